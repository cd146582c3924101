"""Scores a model on a split: patient by patient, beside the baselines, with the figures. The verb `evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax import workdir
from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.pipeline import Examples, View, from_contract, intensity_window, view_of
from heartseg_jax.data.source import resplit
from heartseg_jax.data.store import SPLITS, Dataset, read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.evaluation import baselines, figures, metrics, report
from heartseg_jax.inference.predict import PatientLabels, Probabilities, make_probabilities, predict_split
from heartseg_jax.training import checkpoints, steps

MAX_PANELS = 6
SLIVER = 0.002
"""Share of a slice's pixels below which a structure in it is its end rather than its body."""


def score_split(
    probabilities: Probabilities,
    dataset: Dataset,
    split: str,
    view: View,
    *,
    output: Path,
    batch_size: int,
    step: int | None,
    checkpoint: str | None,
    draw: bool = True,
    as_split: str | None = None,
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Score every patient of `split`, write `summary.json`, `cases.csv` and figures to `output`; return the summary.

    `as_split` is the name told in the report where it is not `split` itself.
    """
    scores, panels = {}, []
    for found in predict_split(probabilities, Examples(dataset, split, view), batch_size):
        patient = dataset.patients[found.patient]
        truth = np.asarray(dataset.labels(patient)[found.slices])
        whole = patient.contiguous and bool(np.all(np.diff(found.slices) == 1))
        scores[patient.id] = metrics.score_patient(truth, found.labels, patient.merge, patient.spacing_mm, whole)
        panels.append(_panel(dataset, view, found, truth))
    summary = report.build_summary(
        scores,
        split=as_split or split,
        step=step,
        checkpoint=checkpoint,
        baselines=baselines.baseline_scores(dataset, split),
        split_kind=dataset.split_kind,
        warnings=warnings,
    )
    report.write_report(output, summary, scores)
    if draw and panels:
        mean = "none" if summary["mean_dice"] is None else f"{summary['mean_dice']:.3f}"
        kept = [panels[i] for i in np.unique(np.linspace(0, len(panels) - 1, MAX_PANELS).round().astype(int))]
        figures.predictions(
            kept,
            output / "predictions.png",
            title=f"{as_split or split} patients: mean Dice {mean}",
            caption=f"{summary['patients']} patients; of each the slice with most structures",
        )
    return summary


def _panel(dataset: Dataset, view: View, found: PatientLabels, truth: np.ndarray) -> figures.Panel:
    """Return the patient's slice with most structures (of equals the one with most of them) as a picture's row.

    Slivers do not count: a slice of which they are the point would show a structure at its very end.
    """

    def richness(labels: np.ndarray) -> tuple[int, int]:
        areas = np.bincount(labels[(labels > 0) & (labels != IGNORED)], minlength=1)
        return int(np.sum(areas > SLIVER * labels.size)), int(areas.sum())

    best = max(range(len(truth)), key=lambda z: richness(truth[z]))
    patient = dataset.patients[found.patient]
    image = np.asarray(dataset.images(patient)[found.slices[best]], np.float32)
    low, high = intensity_window(view, image[None])[0]
    name = f"{patient.id}, slice {patient.names[found.slices[best]].removeprefix(patient.id).lstrip('_/')}"
    return figures.Panel(
        name, np.clip((image - low) / (high - low), 0, 1), truth[best], found.labels[best], patient.merge
    )


def evaluate(
    path: Path, *, step: int | None = None, data: Path | None = None, split: str | None = None, output: Path | None
) -> dict[str, Any]:
    """Score the run in `path` at `step` (default: its last) and print the table.

    Without `data`, the run's own dataset and its test patients; with `data`, every patient of that dataset.

    Raises:
      UserError: no run, no such step, no such split, or data of another intensity unit than the model was trained on.
    """
    folder = workdir.Workdir(path)
    config = workdir.read_config(folder)
    store = checkpoints.Checkpoints(folder.checkpoints)
    known = store.steps()
    if not known:
        raise UserError(f"{path} has no checkpoint yet; let it train first")
    if step is not None and step not in known:
        raise UserError(f"{path} has no checkpoint of step {step}; there are {', '.join(map(str, known))}")
    step = known[-1] if step is None else step
    contract = store.read(step).contract
    view = from_contract(contract["view"])
    dataset = read_dataset(data) if data else resplit(read_dataset(contract["dataset"]), config)
    if split not in (None, "all", *SPLITS):
        raise UserError(f"--split must be one of all, {', '.join(SPLITS)}, not '{split}'")
    wanted = split or ("all" if data else "test")
    warnings: tuple[str, ...] = ()
    if dataset.intensity != view.intensity:
        if view.normalise != "percentile":
            raise UserError(
                f"the model was trained on {view.intensity} through a fixed window, {dataset.path} holds "
                f"{dataset.intensity}; train with --config.data.normalise=percentile to score it on both"
            )
        view = dataclasses.replace(view_of(config.data, dataset.intensity), normalise="percentile")
        warnings = (f"trained on {contract['view']['intensity']}, scored on {dataset.intensity}, by percentiles",)
    if output is None:
        other = "-".join(word for word in (data and Path(data).name, split and wanted) if word)
        output = path / f"evaluation-{other}" if other else folder.evaluation
    name = wanted
    if wanted == "all":
        # Everybody is tested; nobody is left for a baseline to learn from.
        everybody = tuple(dataclasses.replace(p, splits=("test",) * p.num_slices) for p in dataset.patients)
        dataset, name = dataclasses.replace(dataset, patients=everybody), "test"
    if not dataset.examples(name):
        raise UserError(f"{dataset.path} has no {name} patients; choose another --split")
    model = steps.build_model(config.model)
    arrays = store.restore_arrays(step)
    store.close()
    summary = score_split(
        make_probabilities(model, arrays["params"], arrays.get("batch_stats", {})),
        dataset,
        name,
        view,
        output=output,
        batch_size=config.data.batch_size,
        step=step,
        checkpoint=str(folder.checkpoints / str(step)),
        as_split=wanted,
        warnings=warnings,
    )
    print(report.table(summary))
    return summary
