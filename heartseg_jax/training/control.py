"""The control of a transfer: the same run with a frozen encoder of random weights, which owes the brain nothing."""

from __future__ import annotations

from pathlib import Path

from ml_collections import FrozenConfigDict

from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.workdir import Workdir

CALIBRATION_BATCHES = 8
NAME = "random_frozen"


def folder_of(run: Path) -> Path:
    """Return where the control of a run lies."""
    return run / f"control_{NAME}"


def config_of(config: FrozenConfigDict, dataset: str) -> FrozenConfigDict:
    """Return a run's config as its control has it: as many steps of the same data, the encoder random and frozen.

    `dataset` is its `data.path`: the folders of the run's data, absolute.

    A frozen random encoder needs its BatchNorm measured on the data, or its signal dies from stage to stage. A guard
    that would stop the run only warns here: that a control fails is a result.
    """
    batches = max(config.pretrained.recalibrate_batches, CALIBRATION_BATCHES)
    changes = {
        "data.path": dataset,
        "pretrained.path": "",
        "pretrained.load": "encoder",
        "pretrained.recalibrate_batches": batches if config.model.norm != "none" else 0,
        "transfer.schedule": "frozen",
        "transfer.control": False,
    }
    stopping = [name for name in ("collapse", "divergence") if config.guards[name] == "stop"]
    return load.changed(config, changes | {f"guards.{name}": "warn" for name in stopping})


def scores(run: Path, split: str, step: int) -> dict[str, dict[str, float | None]]:
    """Return {name: {mean_dice, pixel_accuracy}} of a run's finished control on the same split, or nothing."""
    file = Workdir(folder_of(run)).evaluation / "summary.json"
    try:
        found = read_json(file)
        if found["split"] != split or found["step"] != step:
            return {}
        row = {key: found[key] for key in ("mean_dice", "pixel_accuracy")}
        return {NAME: row} if all(value is None or type(value) is float for value in row.values()) else {}
    except (UserError, KeyError, TypeError):
        return {}
