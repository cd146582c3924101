"""The run's metrics: read a step late, shown to the guards that watch them, and made into rows. No clock, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.evaluation import metrics
from heartseg_jax.findings import Finding, apply_policy
from heartseg_jax.progress import say
from heartseg_jax.training import guards

Row = dict[str, Any]


class MetricsLog:
    """Takes each step's metrics (device arrays), reads them a step late, and makes rows of their means.

    `tag` is 'val' where validation patients are watched, 'fit' where there are none and training slices are;
    the rows have a Dice for each structure of `labels`. `collapse_evaluations` empty ones in a row are a collapse.
    """

    def __init__(self, policy: Any, labels: LabelSet, tag: str, collapse_evaluations: int):
        self._policy, self._labels, self._tag = policy, labels, tag
        self._collapse_evaluations = collapse_evaluations
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._read: list[dict[str, float]] = []
        self._divergence, self._collapse = guards.Divergence(), guards.Collapse()
        self._warned: set[str] = set()
        self.finite = True
        """Whether the last step that was read had a finite loss and gradient: no other state may be kept."""

    def restore(self, rows: Iterable[Row]) -> None:
        """Continue the guards' watches where the rows of an earlier start have left them.

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

    def record(self, step: int, current: Mapping[str, jax.Array]) -> None:
        """Take the metrics of the step that has just been sent to the device; those of the step before are read now."""
        self.flush()
        self._pending = (step, current)

    def flush(self) -> None:
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

    def evaluate(
        self,
        step: int,
        loss: float,
        confusions: Mapping[int, np.ndarray],
        parts: Mapping[str, Sequence[int]] | None = None,
    ) -> Row:
        """Return the metrics of an evaluation; the collapse guard sees them.

        `confusions` has a matrix `[classes, classes]` (truth x prediction) per patient; Dice as in `metrics.mean_dice`.
        `parts` are the patients of each joined dataset, by its name: each has a mean Dice of its own.
        """
        counts = sum(confusions.values(), np.zeros((self._labels.num_classes,) * 2, np.int64))
        total = max(int(counts.sum()), 1)
        accuracy = float(np.trace(counts)) / total
        row: Row = {f"{self._tag}/loss": _finite(loss), f"{self._tag}/pixel_accuracy": accuracy}
        row[f"{self._tag}/all_background_accuracy"] = float(counts[0].sum()) / total
        dice = metrics.dice_by_structure(list(confusions.values()), self._labels)
        row |= {f"{self._tag}/dice/{name}": value for name, value in dice.items()}
        row[f"{self._tag}/dice/mean"] = metrics.mean_dice(list(confusions.values()), self._labels)
        for name, patients in (parts or {}).items():
            if own := [confusions[patient] for patient in patients if patient in confusions]:
                row[f"{self._tag}/{name}/dice/mean"] = metrics.mean_dice(own, self._labels)
        predicted, true = float(counts[:, 1:].sum()) / total, float(counts[1:].sum()) / total
        row[f"{self._tag}/foreground_fraction"] = predicted
        self._collapse = self._collapse.feed(predicted, true, self._policy.collapse_share)
        self._act(self._collapse.findings(step, predicted, true, accuracy, self._collapse_evaluations))
        return row

    def means(self) -> Row:
        """Return the means of the steps that were read since the last call."""
        names = self._read[0] if self._read else ()
        row = {f"train/{n}": _finite(math.fsum(r[n] for r in self._read) / len(self._read)) for n in names}
        self._read.clear()
        return row

    def _act(self, findings: list[Finding]) -> None:
        for warning in apply_policy(findings, self._policy):
            if warning.split(":")[0] not in self._warned:  # once per guard and run: the rows show the rest
                self._warned.add(warning.split(":")[0])
                say(f"WARNING {warning}")


def brief(row: Row, tag: str) -> str:
    """Return loss and mean Dice of a row in a few words; only what the row lacks is left out, a Dice of 0 is shown."""
    loss, dice = row.get("train/loss"), row.get(f"{tag}/dice/mean")
    words = [f"loss {loss:.4f}"] if loss is not None else []
    return "  ".join([*words, f"{tag} Dice {dice:.3f}"] if dice is not None else words)


def _finite(value: float) -> float | None:
    """Return the number, or None (JSON's null) where it is NaN or infinite."""
    return value if math.isfinite(value) else None
