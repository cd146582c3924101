"""The verb `lab`: compares transfer with its controls. The laboratory itself is in lab/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl.flags import FlagValues

from heartseg_jax.config import load
from heartseg_jax.config.flags import define_cache, define_config, texts


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    define_config(values, argv, "what to compare", required=True)
    texts(values, workdir="the laboratory's folder (default: runs/<config name>)")
    define_cache(values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Train and compare; the same command resumes."""
    name, config = load.config_of(values)
    from heartseg_jax.progress import unless_said

    with unless_said("starting: loading JAX, then opening the data"):
        from heartseg_jax.compilation_cache import open_cache
        from heartseg_jax.lab.laboratory import lab
        from heartseg_jax.native.switch import remember

        open_cache(values.compilation_cache)
        remember(values.native_kernels)
        lab(config, Path(values.workdir or f"runs/{name}"), argv)


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    return "finished runs are kept; the same command trains the others"
