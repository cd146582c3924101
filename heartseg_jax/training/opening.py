"""Opening a run: its data looked at by the guards, its contract, and the checkpoint that it goes on from."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from heartseg_jax import workdir as runs
from heartseg_jax.data import pipeline
from heartseg_jax.data.source import dataset_for, dataset_identity
from heartseg_jax.data.store import Dataset
from heartseg_jax.errors import UserError
from heartseg_jax.training import steps
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.inspection import inspect_data


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Any
    folder: runs.Workdir
    dataset: Dataset
    view: pipeline.View
    examples: pipeline.Examples
    watched: pipeline.Examples
    per_epoch: int
    total_steps: int
    contract: dict[str, Any]

    @property
    def tag(self) -> str:
        """'val' where there are validation patients; 'fit' where the training slices stand in for them."""
        return "fit" if self.watched is self.examples else "val"


def open_run(config: Any, folder: runs.Workdir) -> Run:
    """Bring the data up and look at them with the guards."""
    dataset = dataset_for(config, folder.path)
    view = pipeline.view_of(config.data, dataset.intensity)
    if not dataset.examples("train"):
        raise UserError(f"{dataset.path} has no training patients; prepare it with others, or fewer test patients")
    for warning in inspect_data(dataset, config.guards):
        tell(f"WARNING {warning}")
    for warning in pipeline.misfits(view, dataset.patients):
        tell(f"WARNING {warning}")
    examples = pipeline.Examples(dataset, "train", view, config.data.cache_gb)
    validates = bool(dataset.examples("validation"))
    watched = pipeline.Examples(dataset, "validation", view, config.data.cache_gb) if validates else examples
    per_epoch = pipeline.steps_per_epoch(len(examples), config.data.batch_size)
    contract = {
        "view": dict(pipeline.as_contract(view)),
        "dataset": str(dataset.path.absolute()),
        "dataset_identity": dataset_identity(dataset),
        "per_epoch": per_epoch,
    }
    names = ", ".join(
        f"{len(dataset.patients_in(s))} {s} ({len(dataset.examples(s))} slices)"
        for s in ("train", "validation", "test")
    )
    tell(f"data: {dataset.path}; patients: {names}")
    return Run(config, folder, dataset, view, examples, watched, per_epoch, per_epoch * config.train.epochs, contract)


def sign(run: Run, argv: list[str]) -> None:
    """Write `config.json` and `run.json` of this start, once it is known that the run can go on."""
    devices = [device.device_kind for device in jax.devices()]
    runs.sign(run.folder, run.config, {**runs.provenance(argv), "dataset": run.contract, "devices": devices})


def resume(run: Run, checkpoints: Checkpoints, batches: Any, state: steps.TrainState) -> steps.TrainState:
    """Return the newest checkpoint's state and set the data to its place; `state` itself where there is none.

    Raises:
      UserError: the checkpoint is of other data, of another model, or of more steps than the config asks for.
    """
    if not checkpoints.steps():
        return state
    saved = checkpoints.read(checkpoints.steps()[-1])
    # Where the dataset lies is noted, not compared: its identity tells whether it is the same.
    changed = [key for key in run.contract if key != "dataset" and saved.contract.get(key) != run.contract[key]]
    if changed:
        raise UserError(
            f"{run.folder.path} was trained on other data or another view of them ({', '.join(changed)} changed); "
            "give another --workdir"
        )
    if saved.step > run.total_steps:
        raise UserError(
            f"{run.folder.path} has already trained {saved.step} steps, more than the {run.total_steps} that "
            f"train.epochs={run.config.train.epochs} asks for; raise --config.train.epochs"
        )
    if saved.step < run.total_steps:
        batches.set_state(dict(saved.data))
    tell(f"going on from step {saved.step} of {run.total_steps}")
    return checkpoints.restore(saved.step, state)


def tell(line: str) -> None:
    """Say a line of progress without breaking a bar."""
    tqdm.write(line, file=sys.stderr)
