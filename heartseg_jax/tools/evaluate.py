"""The verb `evaluate`: scores a run on patients, its own or those of another dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from heartseg_jax.data.pipeline import from_contract, view_of
from heartseg_jax.data.source import resplit
from heartseg_jax.data.store import SPLITS, read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.evaluation import report
from heartseg_jax.evaluation.evaluate import score_split
from heartseg_jax.inference.predict import make_probabilities
from heartseg_jax.models.forward import build_model
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_config


def evaluate(
    path: Path, *, step: int | None = None, data: Path | None = None, split: str | None = None, output: Path | None
) -> dict[str, Any]:
    """Score the run in `path` at `step` (default: its last) and print the table.

    Without `data`, the run's own dataset and its test patients; with `data`, every patient of that dataset.

    Raises:
      UserError: no run, no such step, no such split, or data of another intensity unit than the model was trained on.
    """
    folder = Workdir(path)
    config = read_config(folder)
    store = Checkpoints(folder.checkpoints)
    step = store.choose(step)
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
    model = build_model(config.model)
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
