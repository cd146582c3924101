"""Scores a run on patients, its own or those of another dataset. The flags are in `evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.verify import check_arrays
from heartseg_jax.data.dataset.write import SPLITS, Dataset, Patient, read_dataset
from heartseg_jax.data.pipeline import from_contract, misfits, view_of
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity, resplit
from heartseg_jax.errors import UserError
from heartseg_jax.evaluation import report
from heartseg_jax.evaluation.score_split import score_split
from heartseg_jax.inference.predictor import make_probabilities
from heartseg_jax.models.registry import build_model
from heartseg_jax.progress import bar
from heartseg_jax.training import control
from heartseg_jax.training.checkpoints import BEST, Checkpoints
from heartseg_jax.workdir import Workdir, read_config


def evaluate(
    path: Path,
    *,
    step: int | str | None = None,
    data: Path | None = None,
    split: str | None = None,
    output: Path | None,
) -> dict[str, Any]:
    """Score the run in `path` at `step` (a number or 'best'; default: its last) and print the table.

    Without `data`, the run's own dataset and its test patients; with `data`, every patient of that dataset.

    Raises:
      UserError: no run, no such step, no such split, data of another intensity unit than the model was trained on, or
        a dataset that has changed since.
    """
    folder = Workdir(path)
    config = read_config(folder)
    store = Checkpoints(folder.checkpoints)
    last = store.choose()
    chosen = store.choose(step)
    number, _, contract = store.read(chosen)
    if not {"view", "dataset", "dataset_identity"} <= set(contract):
        raise UserError(
            f"the checkpoint of step {number} in {path} does not say what it was trained on; try another --step"
        )
    view = from_contract(contract["view"])
    dataset = read_dataset(data) if data else _own_dataset(contract, config, path)
    check_arrays(dataset, bar("patients compared with their digests"))
    task = contract.get("task", HEART.name)  # runs from before there were others lack it
    if dataset.label_set.name != task:
        raise UserError(
            f"the model in {path} was trained on the task '{task}', {dataset.path} is of the task "
            f"'{dataset.label_set.name}'; give --data=DATASET of the task '{task}'"
        )
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
        words = (
            data and Path(data).name,
            split and wanted,
            "best" if chosen == BEST else f"step{number}" if number != last else "",
        )
        other = "-".join(word for word in words if word)
        output = path / f"evaluation-{other}" if other else folder.evaluation
    name = wanted
    scored = [p for p in dataset.patients if wanted == "all" or wanted in p.splits]
    warnings += misfits(view, scored)
    if wanted == "all":
        warnings += _memorised(scored, dataset, contract, config, foreign=bool(data))
        # Everybody is tested; nobody is left for a baseline to learn from.
        everybody = tuple(dataclasses.replace(p, splits=("test",) * p.num_slices) for p in dataset.patients)
        dataset, name = dataclasses.replace(dataset, patients=everybody), "test"
    if not dataset.examples(name):
        raise UserError(f"{dataset.path} has no {name} patients; choose another --split")
    model = build_model(config.model, dataset.label_set)
    arrays = store.restore_arrays(chosen)
    store.close()
    summary = score_split(
        make_probabilities(model, arrays["params"], arrays.get("batch_stats", {})),
        dataset,
        name,
        view,
        output=output,
        batch_size=config.data.batch_size,
        step=number,
        checkpoint=str(store.folder(chosen)),
        scored="best" if chosen == BEST else "last" if number == last else "asked",
        colours=config.log.colours,
        as_split=wanted,
        warnings=warnings,
    )
    if not data and (beside := control.scores(path, summary["split"], number)):
        summary = report.with_controls(summary, beside)
        report.write_summary(output / "summary.json", summary)
    print(report.table(summary, dataset.label_set))
    return summary


def _own_dataset(contract: Mapping[str, Any], config: Any, path: Path) -> Dataset:
    """Return the dataset that the run was trained on; refuse one that was made anew, whose test patients may differ."""
    place = Path(contract["dataset"])
    dataset = resplit(read_dataset(place), config) if place.is_dir() else dataset_for(config, path)
    if dataset_identity(dataset) != contract["dataset_identity"]:
        raise UserError(
            f"{dataset.path} has changed since {path} was trained on it, so who was trained on cannot be told; "
            "name the patients to score by --data=DATASET"
        )
    return dataset


def _memorised(
    scored: list[Patient], dataset: Dataset, contract: Mapping[str, Any], config: Any, *, foreign: bool
) -> tuple[str, ...]:
    """Say who of these patients was trained on; of a foreign dataset's, who has the very images of a training one."""
    if foreign:
        place = Path(contract["dataset"])
        if not place.is_dir():
            return (f"whether these patients were trained on cannot be told: {place} is gone",)
        dataset = resplit(read_dataset(place), config)
    trained = {p.sha256["images"] for p in dataset.patients_in("train")}
    known = [p.id for p in scored if p.sha256["images"] in trained]
    if not known:
        return ()
    names = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
    return (f"memorisation, not generalisation: {len(known)} of {len(scored)} patients were trained on ({names})",)
