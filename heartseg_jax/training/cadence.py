"""When a run logs, evaluates and saves: decided from counts before the first step, so that a resumed run agrees."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

EVALUATION_SHARE = 0.1
"""Share of a run's arithmetic that evaluations may take where `log.evaluate_every_steps` is 0."""
STEP_COST = 3
"""A training step costs about this many forward passes of its batch (`models.cost.forward_flops`)."""


class Cadence(NamedTuple):
    """Which steps (1-based) of a run of `total_steps` do what; the last step evaluates and saves.

    Attributes:
      evaluate_epochs: epochs between evaluations.
      collapse_evaluations: evaluations in a row that make a collapse.
    """

    total_steps: int
    per_epoch: int
    log_steps: int
    save_steps: int
    evaluate_epochs: int
    collapse_evaluations: int

    def logs(self, step: int) -> bool:
        """Whether a row of metrics is written after `step`, even without an evaluation."""
        return step % self.log_steps == 0

    def evaluates(self, step: int) -> bool:
        """Whether the validation slices are evaluated after `step`."""
        return step == self.total_steps or step % (self.per_epoch * self.evaluate_epochs) == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after `step`."""
        return step == self.total_steps or step % self.save_steps == 0


def cadence(config: Any, per_epoch: int, total_steps: int, watched_slices: int) -> Cadence:
    """Return the cadence of a config whose evaluations look at `watched_slices` slices.

    Evaluations are `log.evaluate_every_epochs` epochs apart, or as many whole epochs as the least distance needs.
    A collapse is found after as much training as `guards.collapse_evaluations` evaluations at the config's own
    distance, but never from a single evaluation that follows others.
    """
    asked = config.log.evaluate_every_epochs
    least = config.log.evaluate_every_steps or least_distance(watched_slices, config.data.batch_size)
    epochs = max(asked, math.ceil(least / per_epoch))
    collapse = config.guards.collapse_evaluations
    return Cadence(
        total_steps,
        per_epoch,
        config.log.every_steps,
        config.checkpoint.every_steps,
        epochs,
        max(math.ceil(collapse * asked / epochs), min(collapse, 2)),
    )


def least_distance(watched_slices: int, batch_size: int) -> int:
    """Return the steps between evaluations that keep their share of the arithmetic at `EVALUATION_SHARE` or below.

    An evaluation costs a forward pass per batch, the last one filled, and a step `STEP_COST`: d steps and an evaluation
    of n batches have the share n / (n + STEP_COST * d).
    """
    batches = math.ceil(watched_slices / batch_size)
    distance = batches * (1 - EVALUATION_SHARE) / (EVALUATION_SHARE * STEP_COST)
    return max(math.ceil(distance - 1e-9), 1)
