"""The run's book-keeping: metrics read a step late, the guards that watch them, the rows that are written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.evaluation import metrics
from heartseg_jax.findings import Finding, apply_policy
from heartseg_jax.training import guards

Row = dict[str, Any]


class Ledger:
    """Takes each step's metrics (device arrays), reads them a step late, and makes rows of them.

    `tag` is 'val' where validation patients are watched, 'fit' where training slices stand in for them; the rows have
    a Dice for each structure of `labels`.
    """

    def __init__(
        self,
        policy: Any,
        *,
        labels: LabelSet,
        tag: str,
        batch_size: int,
        per_epoch: int,
        write: Callable[[Row], None],
        tell: Callable[[str], None],
    ):
        self._policy, self._tag, self._batch_size, self._per_epoch = policy, tag, batch_size, per_epoch
        self._write, self._tell, self._labels = write, tell, labels
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._read: list[dict[str, float]] = []
        self._divergence, self._collapse = guards.Divergence(), guards.Collapse()
        self._waited_s, self._paused_s, self._clock, self._clock_steps = 0.0, 0.0, math.nan, 0
        self._warned: set[str] = set()
        self.brief = ""
        self.finite = True
        """Whether the last step that was read had a finite loss and gradient: no other state may be kept."""

    def recall(self, rows: Iterable[Row]) -> None:
        """Take the guards' watches up where the rows of an earlier start have left them.

        The measure of divergence is then the first row's mean loss instead of the first step's. Without this, a
        run that a guard has stopped could be started again and again until it got past it.
        """
        for row in rows:
            if (loss := row.get("train/loss")) is not None and not self._divergence.first > 0:
                self._divergence = guards.Divergence(loss)
            predicted = row.get(f"{self._tag}/foreground_fraction")
            black = row.get(f"{self._tag}/all_background_accuracy")
            if predicted is not None and black is not None:
                self._collapse = self._collapse.feed(predicted, 1 - black, self._policy.collapse_share)

    def take(self, step: int, current: Mapping[str, jax.Array]) -> None:
        """Hand in the metrics of the step just sent off; those of the step before are read now."""
        self.settle()
        self._pending = (step, current)
        self._clock_steps += 1

    def settle(self) -> None:
        """Read what is pending, and let the guards see it. Waits for the device only if that step still runs."""
        if self._pending is None:
            return
        step, values = self._pending
        self._pending = None
        row = {name: float(value) for name, value in jax.device_get(values).items()}
        self._read.append(row)
        loss, policy = row["loss"], self._policy
        found = guards.check_loss(step, loss, row.get("gradient_norm", 0.0))
        self.finite = not found
        if not found:
            self._divergence = self._divergence.feed(loss, policy.divergence_factor)
            found = self._divergence.findings(step, loss, policy.divergence_factor, policy.divergence_steps)
        self._act(found)

    def waited(self, seconds: float) -> None:
        """Note that the host waited for data."""
        self._waited_s += seconds

    def start_clock(self) -> None:
        """Begin to measure: called when the first step, and with it the compilation, is over."""
        self._clock, self._clock_steps, self._waited_s, self._paused_s = time.perf_counter(), 0, 0.0, 0.0

    def paused(self, seconds: float) -> None:
        """Note time that was no training: an evaluation, a checkpoint."""
        self._paused_s += seconds

    def look(self, step: int, loss: float, confusions: Mapping[int, np.ndarray]) -> Row:
        """Return the row of an evaluation; the collapse guard sees it.

        `confusions` has a matrix `[classes, classes]` (truth x prediction) per patient; Dice as in `metrics.mean_dice`.
        """
        counts = sum(confusions.values(), np.zeros((self._labels.num_classes,) * 2, np.int64))
        total = max(int(counts.sum()), 1)
        accuracy = float(np.trace(counts)) / total
        row: Row = {f"{self._tag}/loss": _finite(loss), f"{self._tag}/pixel_accuracy": accuracy}
        row[f"{self._tag}/all_background_accuracy"] = float(counts[0].sum()) / total
        dice = metrics.dice_by_structure(list(confusions.values()), self._labels)
        row |= {f"{self._tag}/dice/{name}": value for name, value in dice.items()}
        row[f"{self._tag}/dice/mean"] = metrics.mean_dice(list(confusions.values()), self._labels)
        predicted, true = float(counts[:, 1:].sum()) / total, float(counts[1:].sum()) / total
        row[f"{self._tag}/foreground_fraction"] = predicted
        self._collapse = self._collapse.feed(predicted, true, self._policy.collapse_share)
        self._act(self._collapse.findings(step, predicted, true, accuracy, self._policy.collapse_evaluations))
        return row

    def write(self, step: int, learning_rates: Mapping[str, float], extra: Row) -> None:
        """Write one row: means since the last, rates, and what an evaluation found."""
        row: Row = {"step": step, "epoch": step / self._per_epoch}
        for name in self._read[0] if self._read else ():
            row[f"train/{name}"] = _finite(math.fsum(r[name] for r in self._read) / len(self._read))
        row |= {f"train/learning_rate/{group}": rate for group, rate in learning_rates.items()}
        if self._clock_steps and not math.isnan(self._clock):
            spent = time.perf_counter() - self._clock - self._paused_s
            row["perf/step_ms"] = 1e3 * spent / self._clock_steps
            row["perf/images_per_s"] = self._batch_size * self._clock_steps / spent
            row["perf/data_wait_ms"] = 1e3 * self._waited_s / self._clock_steps
        row.update(extra)
        loss, dice = row.get("train/loss"), row.get(f"{self._tag}/dice/mean")
        words = [f"loss {loss:.4f}" if loss is not None else "", f"{self._tag} Dice {dice:.3f}" if dice else ""]
        self.brief = "  ".join(word for word in words if word) or self.brief
        self._write(row)
        self._read.clear()
        self.start_clock()

    def _act(self, findings: list[Finding]) -> None:
        for warning in apply_policy(findings, self._policy):
            if warning.split(":")[0] not in self._warned:  # once a guard and run: the rows show the rest
                self._warned.add(warning.split(":")[0])
                self._tell(f"WARNING {warning}")


def _finite(value: float) -> float | None:
    """Return the number, or None (JSON's null) where it is NaN or infinite."""
    return value if math.isfinite(value) else None
