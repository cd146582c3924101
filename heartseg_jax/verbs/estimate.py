"""How long a run will take on this machine, from its FLOPs and the measured speed of a matrix product."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.data.run_dataset import resplit
from heartseg_jax.errors import UserError
from heartseg_jax.training.cadence import STEP_COST

EFFICIENCY = 0.5
"""Speed of a training step as a share of a matrix product's: 0.37 to 0.96 on two CPU cores, by the network."""


class Estimate(NamedTuple):
    """Seconds of a training step, steps of the run, seconds of the run; None where the data are not there yet."""

    step_s: float
    steps: int | None
    run_s: float | None


def estimate(config: Any, flops_per_image: int) -> Estimate:
    """Return the estimate of a run: right within a factor of about two, without compilation and evaluation."""
    step_s = STEP_COST * flops_per_image * config.data.batch_size / (EFFICIENCY * flops_per_second(config.model.dtype))
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


def flops_per_second(dtype: str) -> float:
    """Return the speed of a matrix product on JAX's default device: the best of four, after compilation."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    times = []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: '40 ms', '3.2 s', '12 min', '5 h', '3 days'."""
    for unit, size, below in (("ms", 1e-3, 1.0), ("s", 1.0, 100.0), ("min", 60.0, 6000.0), ("h", 3600.0, 172_800.0)):
        if seconds < below:
            number = seconds / size
            return f"{number:.1f} {unit}" if unit == "s" and number < 10 else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
