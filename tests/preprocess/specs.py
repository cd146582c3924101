"""A small input specification, to be changed by tests."""

from heartseg_jax.config.channels import parse
from heartseg_jax.preprocess.contract import InputSpec

WINDOW = (-100.0, 500.0)


def spec(channels="repeat", window=WINDOW, **changes):
    fields = {"intensity": "HU", "size": 32, "mm_per_pixel": 0.0, "percentiles": (1.0, 99.0)}
    return InputSpec(channels=parse(channels, window), **(fields | changes))
