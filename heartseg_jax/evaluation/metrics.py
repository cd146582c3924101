"""Scores of label maps: counts by structure, their distances, and what they come to over patients.

How the mean is made, and what happens with absent and merged structures, lives here; files and figures do not.
Needs numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import ALL_KNOWN, HEART, IGNORED, NAMES, NUM_LABELS, check_merge, structures
from heartseg_jax.evaluation.surface import surface_distances

NSD_TOLERANCE_MM = 2.0
BOOTSTRAP_FROM_PATIENTS = 10
BOOTSTRAP_ROUNDS = 2000
MEASURES = ("dice", "iou", "hd95_mm", "assd_mm", "nsd_2mm", "volume_bias_ml")


class StructureScore(NamedTuple):
    """One structure in one patient. A measure that cannot be computed is None, never 0.

    `known` is False where the patient's source does not label the structure (`merge` sends it elsewhere): nothing
    is scored. `missed`: exactly one of truth and prediction is empty, so the structure was lost or invented.
    `merged_with` names the structures that the source includes in this one: the score is that of the union.
    """

    dice: float | None
    iou: float | None
    hd95_mm: float | None
    assd_mm: float | None
    nsd_2mm: float | None
    volume_bias_ml: float | None
    missed: bool
    truth_voxels: int
    predicted_voxels: int
    known: bool
    merged_with: tuple[str, ...]

    @property
    def counted(self) -> bool:
        """Whether the structure enters the means: known, and present in truth or prediction."""
        return self.dice is not None


class PatientScore(NamedTuple):
    """One patient's score: by structure name (all of the task's), with the counts it was made from."""

    structures: dict[str, StructureScore]
    confusion: np.ndarray
    slices: int


def confusion(truth: np.ndarray, prediction: np.ndarray, merge: Sequence[int] = ALL_KNOWN) -> np.ndarray:
    """Count voxels by true and predicted label, both mapped by `merge`.

    Args:
        truth: labels 0..8, or 255 for voxels that count nowhere; any shape.
        prediction: labels 0..8, of the same shape.
        merge: nine labels; label c counts as `merge[c]` (see `anatomy.check_merge`).

    Returns:
        int64 [9, 9]; row = truth, column = prediction.

    Raises:
        ValueError: the shapes differ, or a label is outside the range above.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    to = np.asarray(check_merge(tuple(merge)), dtype=np.int64)
    counts = np.zeros(NUM_LABELS * NUM_LABELS, dtype=np.int64)
    # A slice at a time: a whole volume's int64 index would be eight times the labels.
    for true_slice, predicted_slice in zip(_slices(truth), _slices(prediction), strict=True):
        counted = true_slice != IGNORED
        t, p = true_slice[counted], predicted_slice[counted]
        for what, values in (("truth", t), ("prediction", p)):
            if values.size and (int(values.min()) < 0 or int(values.max()) >= NUM_LABELS):
                raise ValueError(f"{what} holds labels outside 0..{NUM_LABELS - 1}: {_outside(values)}")
        index = to[t.astype(np.int64)] * NUM_LABELS + to[p.astype(np.int64)]
        counts += np.bincount(index, minlength=counts.size)
    return counts.reshape(NUM_LABELS, NUM_LABELS)


def dice_from_counts(counts: np.ndarray) -> list[float | None]:
    """Dice of each of the nine labels: 2 TP / (2 TP + FP + FN); None where the label is in neither."""
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [2 * int(b) / int(t + p) if t + p > 0 else None for b, t, p in zip(both, true, predicted, strict=True)]


def iou_from_counts(counts: np.ndarray) -> list[float | None]:
    """Intersection over union of each of the nine labels: TP / (TP + FP + FN); None where it is in neither."""
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [int(b) / int(t + p - b) if t + p > 0 else None for b, t, p in zip(both, true, predicted, strict=True)]


def pixel_accuracy(counts: np.ndarray) -> float | None:
    """Share of the counted voxels with the right label, background included; None if there is no voxel."""
    total = int(counts.sum())
    return int(np.trace(counts)) / total if total else None


def score_patient(
    truth: np.ndarray,
    prediction: np.ndarray,
    merge: Sequence[int] = ALL_KNOWN,
    spacing_mm: Sequence[float] | None = None,
    contiguous: bool = False,
    distances: bool = True,
    task: str = HEART.name,
) -> PatientScore:
    """Score one patient's slices, pooled.

    Distances and volumes are computed only where the slices are a volume: `contiguous` (consecutive, in order) and
    `spacing_mm` known. Otherwise they are None. Ignored voxels (255) are background in both for the distances.

    Args:
        truth: labels [n, H, W], 0..8 or 255 (ignored).
        prediction: labels [n, H, W], 0..8.
        merge: the patient's nine labels.
        spacing_mm: (z, y, x), or None if unknown.
        contiguous: whether these n slices follow one another without a gap.
        distances: False leaves the surface distances out (None), for a quick score.
        task: what the labels stand for, see `anatomy.LABEL_SETS`.

    Raises:
        ValueError: as `confusion`, or the labels are not [n, H, W].
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 3:
        raise ValueError(f"labels of a patient are [slices, height, width], not of shape {truth.shape}")
    merge = check_merge(tuple(merge))
    counts = confusion(truth, prediction, merge)
    dice, iou = dice_from_counts(counts), iou_from_counts(counts)
    spacing = tuple(float(s) for s in spacing_mm) if contiguous and spacing_mm is not None else None
    masks = _merged_labels(truth, prediction, merge) if spacing and distances else None

    found = {}
    for structure in structures(task):
        label = structure.label
        true_voxels, predicted_voxels = int(counts[label].sum()), int(counts[:, label].sum())
        hd95 = assd = nsd = bias = None
        known = merge[label] == label
        if spacing and dice[label] is not None:
            bias = (predicted_voxels - true_voxels) * math.prod(spacing) / 1000.0
            if masks and true_voxels and predicted_voxels:
                hd95, assd, nsd = surface_distances(masks[0] == label, masks[1] == label, spacing, NSD_TOLERANCE_MM)
            elif distances:
                hd95 = assd = math.hypot(*(n * s for n, s in zip(truth.shape, spacing, strict=True)))
                nsd = 0.0
        found[structure.name] = StructureScore(
            dice=dice[label],
            iou=iou[label],
            hd95_mm=hd95,
            assd_mm=assd,
            nsd_2mm=nsd,
            volume_bias_ml=bias,
            missed=(true_voxels == 0) != (predicted_voxels == 0),
            truth_voxels=true_voxels,
            predicted_voxels=predicted_voxels,
            known=known,
            merged_with=tuple(NAMES[c] for c in range(NUM_LABELS) if merge[c] == label and c != label),
        )
    return PatientScore(found, counts, len(truth))


def summarise(scores: Mapping[str, PatientScore], *, seed: int = 0, task: str = HEART.name) -> dict:
    """Bring patients' scores together into the metric part of `summary.json`.

    Each structure's measure is the mean over the patients in whom it is counted; `mean_dice` is the unweighted mean
    over the structures that have a Dice. `pixel_accuracy` pools all voxels. With ten patients or more there is
    `mean_dice_ci95`, a percentile bootstrap over patients; with fewer, `by_patient` shows every one.

    Returns:
        `patients` (how many), `patient_ids`, `slices`, `mean_dice`, `structures_scored`, `structures` {name: the
        measures, `missed`, `invented` (those of the missed that the truth does not have), `patients` (counted),
        `absent` (in neither truth nor prediction, so not counted), `unknown` (not labelled by the source),
        `distance_patients` (with distances), `merged_with`}, `pixel_accuracy`, `foreground_fraction` {truth,
        prediction}, `warnings`, and `mean_dice_ci95` (None below ten patients) and `by_patient` (None from ten).
    """
    table = {s.name: _summarise_structure([p.structures[s.name] for p in scores.values()]) for s in structures(task)}
    counts = sum((p.confusion for p in scores.values()), np.zeros((NUM_LABELS, NUM_LABELS), dtype=np.int64))
    scored = [s["dice"] for s in table.values() if s["dice"] is not None]
    mean_dice = _mean(scored)
    total = int(counts.sum())
    few = len(scores) < BOOTSTRAP_FROM_PATIENTS
    return {
        "patients": len(scores),
        "patient_ids": list(scores),
        "slices": sum(p.slices for p in scores.values()),
        "mean_dice": mean_dice,
        "mean_dice_ci95": None if few else bootstrap_mean_dice(scores, seed=seed),
        "structures_scored": len(scored),
        "structures": table,
        "pixel_accuracy": pixel_accuracy(counts),
        "foreground_fraction": {
            "truth": int(counts[1:].sum()) / total if total else None,
            "prediction": int(counts[:, 1:].sum()) / total if total else None,
        },
        "by_patient": {key: _one_patient(score) for key, score in scores.items()} if few else None,
        "warnings": _warnings(scores, table, counts, mean_dice),
    }


def bootstrap_mean_dice(
    scores: Mapping[str, PatientScore], *, seed: int = 0, rounds: int = BOOTSTRAP_ROUNDS
) -> list[float] | None:
    """95 % percentile interval of `mean_dice` when patients are drawn with replacement; None if nothing counts.

    A draw in which nobody has some structure leaves that structure out, as `summarise` would.
    """
    rows = [[s.dice for s in p.structures.values()] for p in scores.values()]
    counted = np.array([[value is not None for value in row] for row in rows], dtype=np.float64)
    if not counted.any():
        return None
    dice = np.array([[value or 0.0 for value in row] for row in rows])
    draws = np.random.default_rng(seed).multinomial(len(rows), [1 / len(rows)] * len(rows), size=rounds)
    patients = draws @ counted
    means = np.divide(draws @ dice, patients, out=np.zeros_like(patients), where=patients > 0)
    shares = (patients > 0).sum(axis=1)
    values = means.sum(axis=1)[shares > 0] / shares[shares > 0]
    low, high = np.percentile(values, (2.5, 97.5))
    return [float(low), float(high)]


def _summarise_structure(scores: Sequence[StructureScore]) -> dict:
    counted = [s for s in scores if s.counted]
    return {
        **{m: _mean([v for s in counted if (v := getattr(s, m)) is not None]) for m in MEASURES},
        "missed": sum(s.missed for s in counted),
        "patients": len(counted),
        "invented": sum(s.missed and s.truth_voxels == 0 for s in counted),
        "absent": sum(s.known and not s.counted for s in scores),
        "unknown": sum(not s.known for s in scores),
        "distance_patients": sum(s.hd95_mm is not None for s in counted),
        "merged_with": sorted({name for s in counted for name in s.merged_with}),
    }


def _one_patient(score: PatientScore) -> dict:
    dice = {name: s.dice for name, s in score.structures.items()}
    return {
        "mean_dice": _mean([v for v in dice.values() if v is not None]),
        "pixel_accuracy": pixel_accuracy(score.confusion),
        "slices": score.slices,
        "dice": dice,
    }


def _warnings(scores: Mapping[str, PatientScore], structures: dict, counts: np.ndarray, mean_dice) -> list[str]:
    found = []
    if not scores:
        found.append("no patient was scored: the split is empty")
    elif mean_dice is None:
        found.append("mean_dice is null: no structure is in the truth or the prediction of any patient")
    elif not counts[1:].any():
        found.append("the truth has no foreground at all: every Dice counted is of an invented structure")
    if counts[1:].any() and not counts[:, 1:].any():
        found.append("collapse: the prediction has no foreground at all; the pixel accuracy is the share of background")
    for name, row in structures.items():
        if row["merged_with"]:
            ids = [key for key, p in scores.items() if p.structures[name].merged_with]
            found.append(
                f"merged: {name} is scored together with {', '.join(row['merged_with'])} in {_some(ids)}, "
                "whose labels do not tell them apart"
            )
    unknown = [name for name, row in structures.items() if scores and row["unknown"] == len(scores)]
    if unknown:
        found.append(f"unknown: no patient's source labels {', '.join(unknown)}: not scored")
    return found


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _merged_labels(truth: np.ndarray, prediction: np.ndarray, merge: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Map both by `merge`; what is ignored becomes background in both."""
    table = np.zeros(IGNORED + 1, dtype=np.uint8)
    table[:NUM_LABELS] = merge
    return table[truth], np.where(truth == IGNORED, 0, table[prediction]).astype(np.uint8)


def _slices(labels: np.ndarray):
    return labels if labels.ndim > 2 else labels[np.newaxis]


def _outside(values: np.ndarray) -> list[int]:
    found = np.unique(values)
    return [int(v) for v in found[(found < 0) | (found >= NUM_LABELS)]][:5]
