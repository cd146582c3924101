"""How long a run will take on this machine, from its FLOPs and the measured speed of a matrix product."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.data.run_dataset import resplit
from heartseg_jax.errors import UserError
from heartseg_jax.models.speed import network_flops_per_second
from heartseg_jax.training.cadence import STEP_COST


class Estimate(NamedTuple):
    """Seconds of a training step, steps of the run, seconds of the run; None where the data are not there yet."""

    step_s: float
    steps: int | None
    run_s: float | None


def estimate(config: Any, flops_per_image: int) -> Estimate:
    """Return the estimate of a run: right within a factor of about two, without compilation and evaluation."""
    step_s = STEP_COST * flops_per_image * config.data.batch_size / network_flops_per_second(config.model.dtype)
    steps = total_steps(config)
    return Estimate(step_s, steps, None if steps is None else steps * step_s)


def total_steps(config: Any) -> int | None:
    """Return the number of steps of the run, or None where that follows from a dataset that is not there."""
    if config.train.steps:
        return int(config.train.steps)
    if config.data.path:
        try:
            slices = len(resplit(read_dataset(Path(config.data.path)), config).examples("train"))
        except UserError:
            return None
    else:
        slices = config.data.phantom.train * config.data.phantom.shape[0]
    return -(-slices // config.data.batch_size) * config.train.epochs
