"""Scores a model on a split: patient by patient, beside the baselines, with the slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.anatomy import IGNORED, merge_labels
from heartseg_jax.data.audit.near_duplicates import brightness
from heartseg_jax.data.dataset.records import Dataset, check_unchanged
from heartseg_jax.evaluation import baselines, metrics, report
from heartseg_jax.figures import slices
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.findings import counted
from heartseg_jax.inference.dataset import PatientLabels, predict_split
from heartseg_jax.inference.predictor import Predictor
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.host import windows_of

MAX_PANELS = 6
SLIVER = 0.002
"""Share of a slice's pixels below which a structure in it is its end rather than its body."""


def score_split(
    predictor: Predictor,
    dataset: Dataset,
    split: str,
    spec: InputSpec,
    *,
    output: Path,
    step: int | None,
    checkpoint: str | None,
    scored: str,
    colours: str,
    draw: bool = True,
    as_split: str | None = None,
    own_split: bool = True,
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Score every patient of `split`, write `summary.json`, `cases.csv` and figures to `output`; return the summary.

    `scored` says which weights these are ('last', 'best' or 'asked'), `colours` is `log.colours`, and `as_split` is the
    report's name of the split where it is not `split` itself. `own_split`: the model was trained by this very split.
    """
    number = len(dataset.patients_in(split))
    drawn = set(np.linspace(0, number - 1, min(MAX_PANELS, number)).round().astype(int).tolist()) if draw else set()
    scores: dict[str, metrics.PatientScore] = {}
    panels = []
    for found in predict_split(predictor, dataset, split, spec):
        patient = dataset.patients[found.patient]
        truth = np.asarray(dataset.labels(patient)[found.slices])
        check_unchanged(dataset, patient, truth, found.slices)
        whole = patient.contiguous and bool(np.all(np.diff(found.slices) == 1))
        if len(scores) in drawn:
            panels.append(_panel(dataset, spec, found, truth))
        scores[patient.id] = metrics.score_patient(
            truth, found.labels, dataset.label_set, patient.merge, patient.spacing_mm, whole
        )
    summary = report.build_summary(
        scores,
        dataset.label_set,
        split=as_split or split,
        own_split=own_split,
        step=step,
        checkpoint=checkpoint,
        scored=scored,
        baselines=baselines.baseline_scores(dataset, split),
        split_kind=dataset.split_kind,
        warnings=(*dataset.source.get("caveats", ()), *warnings),
        datasets={p.id: dataset.part_of(p).name for p in dataset.patients_in(split) if dataset.members},
    )
    report.write_report(output, summary, scores)
    if panels:
        mean = "none" if summary["mean_dice"] is None else f"{summary['mean_dice']:.3f}"
        slices.predictions(
            panels,
            output / "predictions.png",
            Palette(dataset.label_set, colours),
            title=f"{(as_split or split).capitalize()} patients: mean Dice {mean}",
            caption=f"{counted(summary['patients'], 'patient')}; of each the slice with most structures",
        )
    return summary


def _panel(dataset: Dataset, spec: InputSpec, found: PatientLabels, truth: np.ndarray) -> slices.Panel:
    """Return the patient's slice with most structures (at a tie, with the largest area) as a row of the picture.

    Slivers do not count: they are the ends of structures.
    """

    def richness(labels: np.ndarray) -> tuple[int, int]:
        areas = np.bincount(labels[(labels > 0) & (labels != IGNORED)], minlength=1)
        return int(np.sum(areas > SLIVER * labels.size)), int(areas.sum())

    best = max(range(len(truth)), key=lambda z: richness(truth[z]))
    patient = dataset.patients[found.patient]
    unit, stored = dataset.part_of(patient).intensity, dataset.images(patient)[found.slices[best]]
    if unit == "tissue":
        image, (low, high) = brightness(stored[None], unit)[0], (0.0, 1.0)
    else:
        image = np.asarray(stored, np.float32)
        low, high = windows_of(spec.for_intensity(unit)[0], image[None])[0, 0]
    name = f"{patient.id}, slice {patient.slice_name(found.slices[best])}"
    own, guess = (merge_labels(labels[best], patient.merge) for labels in (truth, found.labels))
    dice = metrics.dice_from_counts(metrics.confusion(own, guess, dataset.label_set, patient.merge))
    return slices.Panel(name, np.clip((image - low) / (high - low), 0, 1), own, guess, dice)
