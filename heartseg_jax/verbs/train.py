"""The verb `train`: trains a model, or goes on with a run. The training itself is in training/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl.flags import FlagValues

from heartseg_jax.config import load
from heartseg_jax.config.flags import define_cache, define_config, define_distributed, given, texts


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    define_config(values, argv, required=True)
    texts(values, workdir="the run's folder (default: runs/<config name>)")
    define_cache(values)
    define_distributed(values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Train; the same command resumes a run that was stopped."""
    _, config = load.config_of(values)
    from heartseg_jax.progress import unless_said

    with unless_said("starting: loading JAX, then opening the data"):
        from heartseg_jax import distributed

        distributed.start(values.distributed)
        from heartseg_jax.compilation_cache import open_cache
        from heartseg_jax.native.library import turn_on
        from heartseg_jax.native.switch import remember
        from heartseg_jax.training.train import train

        open_cache(values.compilation_cache)
        remember(values.native_kernels)
        turn_on()
        train(config, _folder(values), argv)


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    steps = [int(p.name) for p in _folder(values).glob("checkpoints/*") if p.name.isdigit()]
    if steps:
        return f"the same command resumes from the checkpoint of step {max(steps)}"
    return "no checkpoint was written yet; the same command starts from the beginning"


def _folder(values: FlagValues) -> Path:
    return Path(given(values).get("workdir", f"runs/{load.config_of(values)[0]}"))
