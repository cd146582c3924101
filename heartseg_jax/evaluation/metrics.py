"""Scores of label maps: counts per structure, surface distances, and their summary over patients.

The rules for means and for absent and merged structures are here; files and figures are not.
Needs numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED, LabelSet, merge_labels
from heartseg_jax.evaluation.surface import borders, mean_shift, surface_distances
from heartseg_jax.findings import some

NSD_TOLERANCE_MM = 2.0
BOOTSTRAP_FROM_PATIENTS = 10
BOOTSTRAP_ROUNDS = 2000
MEASURES = ("dice", "iou", "hd95_mm", "assd_mm", "nsd_2mm", "volume_bias_ml", "bias_mm", "bias_px")


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
    bias_mm: float | None
    bias_px: float | None
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
    """One patient's score: by structure name (all of the label set's), with the counts it was made from."""

    structures: dict[str, StructureScore]
    confusion: np.ndarray
    slices: int


def confusion(truth: np.ndarray, prediction: np.ndarray, labels: LabelSet, merge: Sequence[int]) -> np.ndarray:
    """Count voxels by true (row) and predicted label (column), both mapped by `merge`: int64 [classes, classes].

    `truth` holds labels below `labels.num_classes`, or 255 for voxels that are not counted; `prediction`, of the same
    shape, only labels. Raises ValueError where the shapes differ, or a label is outside that range.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    classes = labels.num_classes
    merge = labels.check_merge(tuple(merge))
    counts = np.zeros(classes * classes, dtype=np.int64)
    if truth.ndim < 3:
        truth, prediction = truth[np.newaxis], prediction[np.newaxis]
    # A slice at a time: a whole volume's int64 index would be eight times the labels.
    for true_slice, predicted_slice in zip(truth, prediction, strict=True):
        counted = true_slice != IGNORED
        t, p = true_slice[counted], predicted_slice[counted]
        for what, values in (("truth", t), ("prediction", p)):
            if values.size and (int(values.min()) < 0 or int(values.max()) >= classes):
                outside = [int(v) for v in np.unique(values) if not 0 <= v < classes]
                raise ValueError(f"{what} holds labels outside 0..{classes - 1}: {outside[:5]}")
        index = merge_labels(t, merge).astype(np.int64) * classes + merge_labels(p, merge)
        counts += np.bincount(index, minlength=counts.size)
    return counts.reshape(classes, classes)


def dice_from_counts(counts: np.ndarray) -> list[float | None]:
    """Dice of each label: 2 TP / (2 TP + FP + FN); None where the label is in neither."""
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [2 * int(b) / int(t + p) if t + p > 0 else None for b, t, p in zip(both, true, predicted, strict=True)]


def iou_from_counts(counts: np.ndarray) -> list[float | None]:
    """Intersection over union of each label: TP / (TP + FP + FN); None where it is in neither."""
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [int(b) / int(t + p - b) if t + p > 0 else None for b, t, p in zip(both, true, predicted, strict=True)]


def dice_by_structure(confusions: Sequence[np.ndarray], labels: LabelSet) -> dict[str, float | None]:
    """Mean Dice over patients per structure, from one confusion matrix per patient; None where no patient has it."""
    found = [dice_from_counts(counts) for counts in confusions]
    return {s.name: _mean([value for dice in found if (value := dice[s.label]) is not None]) for s in labels.foreground}


def mean_dice(confusions: Sequence[np.ndarray], labels: LabelSet) -> float | None:
    """Mean Dice: the mean over patients for each structure, then the unweighted mean over structures that have one."""
    return _mean([value for value in dice_by_structure(confusions, labels).values() if value is not None])


def pixel_accuracy(counts: np.ndarray) -> float | None:
    """Share of the counted voxels with the right label, background included; None if there is no voxel."""
    total = int(counts.sum())
    return int(np.trace(counts)) / total if total else None


def score_patient(
    truth: np.ndarray,
    prediction: np.ndarray,
    labels: LabelSet,
    merge: Sequence[int],
    spacing_mm: Sequence[float] | None = None,
    contiguous: bool = False,
    *,
    overlap_only: bool = False,
) -> PatientScore:
    """Score one patient's slices, pooled; with `overlap_only` without any distance or volume, which take longest.

    Distances and volumes are computed only where the slices are a volume: `contiguous` (consecutive, in order) and
    `spacing_mm` (z, y, x) known. Otherwise they are None. The signed distance of borders is in mm where the spacing is
    known (within the slices where they are not a volume) and else in pixels. `truth` and `prediction` are labels
    [n, H, W]; voxels that are ignored in the truth (255) are background in both for the distances. Raises ValueError as
    `confusion` does.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 3:
        raise ValueError(f"labels of a patient are [slices, height, width], not of shape {truth.shape}")
    counts = confusion(truth, prediction, labels, merge)
    dice, iou = dice_from_counts(counts), iou_from_counts(counts)
    measured = contiguous and not overlap_only
    spacing = tuple(float(s) for s in spacing_mm) if measured and spacing_mm is not None else None
    ignored = truth == IGNORED
    maps = [np.where(ignored, 0, merge_labels(a, merge)) for a in (truth, prediction)]

    found = {}
    for structure in labels.foreground:
        label = structure.label
        true_voxels, predicted_voxels = int(counts[label].sum()), int(counts[:, label].sum())
        hd95 = assd = nsd = bias = bias_mm = bias_px = None
        both = true_voxels > 0 and predicted_voxels > 0
        if spacing and dice[label] is not None:
            bias = (predicted_voxels - true_voxels) * math.prod(spacing) / 1000.0
            if both:
                pair = borders(maps[0] == label, maps[1] == label, spacing, ignored)
                hd95, assd, nsd = surface_distances(pair, NSD_TOLERANCE_MM)
                bias_mm = mean_shift([pair])  # None for a single slice, all of whose border lies at the volume's end
            else:
                hd95 = assd = math.hypot(*(n * s for n, s in zip(truth.shape, spacing, strict=True)))
                nsd = 0.0
        if both and bias_mm is None and not overlap_only:
            bias_mm, bias_px = _bias_within_slices(maps[0] == label, maps[1] == label, ignored, spacing_mm)
        found[structure.name] = StructureScore(
            dice=dice[label],
            iou=iou[label],
            hd95_mm=hd95,
            assd_mm=assd,
            nsd_2mm=nsd,
            volume_bias_ml=bias,
            bias_mm=bias_mm,
            bias_px=bias_px,
            missed=(true_voxels == 0) != (predicted_voxels == 0),
            truth_voxels=true_voxels,
            predicted_voxels=predicted_voxels,
            known=merge[label] == label,
            merged_with=tuple(s.name for s in labels.foreground if merge[s.label] == label != s.label),
        )
    return PatientScore(found, counts, len(truth))


def _bias_within_slices(
    truth: np.ndarray, prediction: np.ndarray, ignored: np.ndarray, spacing_mm: Sequence[float] | None
) -> tuple[float | None, float | None]:
    """Return (bias_mm, bias_px) over the borders of the slices where both masks are; one of them is None."""
    in_plane = (1.0, 1.0) if spacing_mm is None else tuple(float(s) for s in spacing_mm[1:])
    shared = np.flatnonzero(truth.any(axis=(1, 2)) & prediction.any(axis=(1, 2)))
    found = mean_shift(borders(truth[z], prediction[z], in_plane, ignored[z]) for z in shared)
    return (None, found) if spacing_mm is None else (found, None)


def summarise(scores: Mapping[str, PatientScore], labels: LabelSet, *, seed: int = 0) -> dict:
    """Summarise patients' scores as the metric part of `summary.json`.

    Each structure's measure is the mean over the patients in whom it is counted; `mean_dice` is the unweighted mean
    over the structures that have a Dice. `pixel_accuracy` pools all voxels. With ten patients or more there is
    `mean_dice_ci95`, a percentile bootstrap over patients; with fewer, `by_patient` shows each.

    Returns:
        `patients` (how many), `patient_ids`, `slices`, `mean_dice`, `structures_scored`, `structures` {name: the
        measures, `missed`, `invented` (those of the missed that the truth does not have), `patients` (counted),
        `absent` (in neither truth nor prediction, so not counted), `unknown` (not labelled by the source),
        `distance_patients` (with distances), `merged_with`}, `pixel_accuracy`, `foreground_fraction` {truth,
        prediction}, `warnings`, and `mean_dice_ci95` (None below ten patients) and `by_patient` (None from ten).
    """
    table = {s.name: _summarise_structure([p.structures[s.name] for p in scores.values()]) for s in labels.foreground}
    counts = sum((p.confusion for p in scores.values()), np.zeros((labels.num_classes,) * 2, dtype=np.int64))
    scored = [s["dice"] for s in table.values() if s["dice"] is not None]
    mean_dice = _mean(scored)
    total = int(counts.sum())
    shares = {"truth": int(counts[1:].sum()), "prediction": int(counts[:, 1:].sum())}
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
        "foreground_fraction": {which: number / total if total else None for which, number in shares.items()},
        "by_patient": {key: _one_patient(score) for key, score in scores.items()} if few else None,
        "warnings": _warnings(scores, table, counts, mean_dice),
    }


def bootstrap_mean_dice(
    scores: Mapping[str, PatientScore], *, seed: int = 0, rounds: int = BOOTSTRAP_ROUNDS
) -> list[float] | None:
    """95 % percentile interval of `mean_dice` when patients are drawn with replacement; None if nothing counts.

    A draw in which no patient has a structure leaves that structure out, as `summarise` would.
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
    return np.percentile(values, (2.5, 97.5)).tolist()


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
    unlabelled = [key for key, p in scores.items() if not p.confusion[1:].any()]
    if unlabelled and counts[1:].any():
        found.append(
            f"no structure is labelled in {some(unlabelled, 6)}: whatever is predicted there scores 0; label them, "
            "or leave them out"
        )
    for name, row in structures.items():
        if row["merged_with"]:
            ids = [key for key, p in scores.items() if p.structures[name].merged_with]
            found.append(
                f"merged: {name} is scored together with {', '.join(row['merged_with'])} in {some(ids, 6)}, "
                "whose labels do not distinguish them"
            )
    if unknown := [name for name, row in structures.items() if scores and row["unknown"] == len(scores)]:
        found.append(f"unknown: no patient's source labels {', '.join(unknown)}: not scored")
    return found


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
