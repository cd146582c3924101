"""What a comparison costs: an estimate from FLOPs and the machine's measured speed, within seconds."""

from __future__ import annotations

import jax
from ml_collections import FrozenConfigDict

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config.channels import parse
from heartseg_jax.lab.arms import arm_config
from heartseg_jax.models import cost, registry
from heartseg_jax.models.speed import network_flops_per_second
from heartseg_jax.training import phases

SCORING_S = 3.0
"""Seconds per run for scoring and writing, beside its steps."""
COMPILING_S = 15.0
"""Seconds per program: one for each phase of an arm, and each process compiles its own."""
SHARING = 0.75
"""Share of the time that two processes on the same cores need for what one does by itself."""


def step_flops(config: FrozenConfigDict) -> float:
    """Return the FLOPs of a training step of a config, the mean over its phases.

    The backward pass multiplies twice per layer, and goes down to the finest stage that learns.
    """
    model, size = config.model, config.data.size
    channels = len(parse(config.data.channels, None))
    layers = cost.layer_costs(size, size, registry.shape_of(model, LABEL_SETS[config.data.task], channels))
    stages = phases.stages(model.levels)
    total = 0.0
    for phase in phases.plan(config.transfer, model.levels, config.train.steps):
        learning = [i for i, stage in enumerate(stages) if stage in phase.learning]
        reached = (*stages[min(learning, default=len(stages)) :], "decoder", "head")
        backward = sum(layer.flops for layer in layers if layer.path.startswith(reached))
        total += (phase.end - phase.first) * (sum(layer.flops for layer in layers) + 2 * backward)
    return config.data.batch_size * total / config.train.steps


def estimate(config: FrozenConfigDict, runs_left: dict[str, int], workers: int) -> tuple[dict[str, float], float]:
    """Return (arm -> seconds per step, seconds of the whole) for the runs that each arm has left."""
    rate = network_flops_per_second(config.model.dtype)
    configs = {arm: arm_config(config, arm) for arm in runs_left}
    step_s = {arm: step_flops(own) / rate for arm, own in configs.items()}
    tried = len(config.lab.learning_rates)
    runs_per_fold = 1 + tried if tried > 1 else 1
    training = sum(runs_left[arm] * runs_per_fold * config.train.steps * step_s[arm] for arm in runs_left)
    programs = sum(
        len(phases.plan(own.transfer, own.model.levels, config.train.steps))
        for arm, own in configs.items()
        if runs_left[arm]
    )
    around = SCORING_S * sum(runs_left.values()) + COMPILING_S * programs
    # On a CPU the processes share the cores that one of them would use.
    shared = SHARING if workers > 1 and jax.default_backend() == "cpu" else 1.0
    return step_s, training * shared + around / workers
