"""Checks that stop a run before it wastes time or misleads: each finding says what was seen, its cause, and a fix.

Pure functions of arrays and numbers; the caller decides by config whether a finding stops or warns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED, LabelSet
from heartseg_jax.findings import REFUSE, Finding, counted
from heartseg_jax.imaging import hu_checks


def check_labels(where: str, values: np.ndarray, labels: LabelSet) -> list[Finding]:
    """Find `values` (label maps of any shape, integer) that are neither a class's label nor 255.

    They must be caught on the host: optax gives NaN for a label too large, and a cast to a small type
    turns -1 into the last class without a word.
    """
    found, counts, classes = *np.unique(values, return_counts=True), labels.num_classes
    wrong = [(int(v), int(n)) for v, n in zip(found, counts, strict=True) if not (0 <= v < classes or v == IGNORED)]
    if not wrong:
        return []
    listed = ", ".join(f"{value} ({counted(count, 'pixel')})" for value, count in wrong[:5])
    return _found(
        "labels",
        f"{where} has label values out of range: {listed}; allowed are 0 to {classes - 1} and {IGNORED}",
        cause="masks numbered another way (shifted by one, or grey levels taken for labels)",
        fix="prepare the dataset again with the palette of its masks (prepare --colours=map.json)",
    )


def check_images(where: str, images: np.ndarray, intensity: str) -> list[Finding]:
    """Find slices `[N, H, W]` of which most are constant, and values that are not of the unit `intensity`."""
    return [
        replace(
            finding, check="images", seen=f"{where}: {finding.seen}", fix="prepare the dataset again, from the source"
        )
        for finding in hu_checks.of_pixels(images, intensity)
        if finding.level == REFUSE
    ]


def check_known_structures(
    class_counts: np.ndarray, merges: Sequence[Sequence[int]], labels: LabelSet
) -> list[Finding]:
    """Find structures that a source claims to know but that no training slice holds.

    `class_counts` is `[patients, classes + 1]` pixels of the training slices by label, the ignored ones last; `merges`
    has one merge per patient.
    """
    totals = class_counts.sum(axis=0)
    if totals[1:-1].sum() == 0:
        return _found(
            "missing_labels",
            "the training slices hold no structure at all: every label is background",
            cause="the masks are black, or their colours were not recognised when the dataset was made",
            fix="open a mask as a picture, then prepare the dataset again with its palette (--colours=map.json)",
        )
    missing = [
        s.name for s in labels.foreground if totals[s.label] == 0 and any(merge[s.label] == s.label for merge in merges)
    ]
    if not missing:
        return []
    return _found(
        "missing_labels",
        f"no training slice holds {', '.join(missing)}, though the sources claim to label it",
        cause="the masks lack the structure, its colour was decoded as another, or only test patients have it",
        fix="give `merge` for sources that do not label it, or move a patient who has it into training",
    )


def check_loss(step: int, loss: float, gradient_norm: float = 0.0) -> list[Finding]:
    """Find a loss, or a gradient's global norm, that is NaN or infinite.

    The loss is that of the weights before the step: where it is finite and the gradient is not, the weights after
    the step are lost all the same.
    """
    broken = {name: value for name, value in (("loss", loss), ("gradient", gradient_norm)) if not math.isfinite(value)}
    if not broken:
        return []
    name, value = next(iter(broken.items()))
    return _found(
        "non_finite",
        f"the {name} of step {step} is {value}",
        cause="a learning rate that is too high, or images with values that are not finite",
        fix="a lower --config.train.learning_rate, or --config.train.clip_norm=1",
    )


def check_black(where: str, predicted: float | None, true: float | None) -> list[Finding]:
    """Find a final prediction without any structure where the labels have some (foreground fractions)."""
    if predicted is None or true is None or predicted > 0 or true == 0:
        return []
    return _found(
        "collapse",
        f"the final model marks no structure in any slice of the {where}; the labels mark {100 * true:.1f} % of "
        "the pixels",
        cause="training that was too short or at the wrong rate, or images that reach the network as constants",
        fix="look at figures/inputs.png and figures/curves.png; then more --config.train.epochs, or another "
        "--config.train.learning_rate",
    )


def _found(check: str, seen: str, *, cause: str, fix: str) -> list[Finding]:
    return [Finding(REFUSE, check, seen, cause=cause, fix=fix)]


class Divergence(NamedTuple):
    """Watches for a loss that stays far above its start. Feed it the loss of every step, in order."""

    first: float = math.nan
    high_steps: int = 0

    def feed(self, loss: float, factor: float) -> Divergence:
        """Return the watch after one more loss; the first above 0 is the measure.

        A batch in which nothing counts (all ignored, or only the Dice loss and all background) has a loss of exactly 0.
        """
        if not self.first > 0:
            return Divergence(loss, 0)
        return Divergence(self.first, self.high_steps + 1 if loss > factor * self.first else 0)

    def findings(self, step: int, loss: float, factor: float, steps: int) -> list[Finding]:
        """Find a loss above `factor` times the first for `steps` steps in a row."""
        if self.high_steps < steps:
            return []
        return _found(
            "divergence",
            f"at step {step} the loss is {loss:.4g}; for {self.high_steps} steps it has stayed above {factor:g} "
            f"times its start ({self.first:.3g})",
            cause="a learning rate that is too high",
            fix="a lower --config.train.learning_rate (1e-3 suits most runs), or more --config.train.warmup_steps",
        )


class Collapse(NamedTuple):
    """Watches the evaluations for a model that predicts (nearly) nothing but background."""

    empty_evaluations: int = 0

    def feed(self, predicted: float, true: float, share: float) -> Collapse:
        """Return the watch after an evaluation with these foreground fractions."""
        empty = true > 0 and predicted < share * true
        return Collapse(self.empty_evaluations + 1 if empty else 0)

    def findings(self, step: int, predicted: float, true: float, accuracy: float, evaluations: int) -> list[Finding]:
        """Find a collapse that has lasted `evaluations` evaluations."""
        if self.empty_evaluations < evaluations:
            return []
        return _found(
            "collapse",
            f"at step {step}, for {self.empty_evaluations} evaluations in a row, the model has marked "
            f"{100 * predicted:.3f} % of the pixels as a structure where the labels mark {100 * true:.1f} %; "
            f"its accuracy of {100 * accuracy:.1f} % is that of an all-black mask",
            cause="a learning rate that is too high or too low, frozen or lost weights, images that reach the "
            "network as constants (look at figures/inputs.png), or labels that are mostly background",
            fix="look at figures/inputs.png; then another --config.train.learning_rate, or "
            "--config.train.dice_weight above 0",
        )
