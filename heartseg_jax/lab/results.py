"""The results of the laboratory's runs: one JSON file per fold. A damaged one counts as missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.lab.arms import Fold, Job, folds_of

NUMBER = (int, float)
FIELDS: dict[str, tuple[type, ...]] = {
    "arm": (str,),
    "split": (str,),
    "train_patients": (int,),
    "seed": (int,),
    "fold": (str,),
    "patients": (dict,),
    "fit_dice": (*NUMBER, type(None)),
    "curve": (list,),
    "seconds": NUMBER,
    "stopped": (str, type(None)),
    "all_background": (bool,),
    "proofs": (list,),
}
"""What a result must hold to be shown."""


def path_of(folder: Path, job: Job, fold: Fold) -> Path:
    """Return the file of a fold's result."""
    return folder / f"{job.name(fold.name)}.json"


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a result, or None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = read_json(path)
    except UserError:
        return None
    return found if _usable(found) else None


def _usable(found: Mapping[str, Any]) -> bool:
    if not all(isinstance(found.get(name, ...), kinds) for name, kinds in FIELDS.items()):
        return False
    try:
        counts = [np.asarray(table) for table in found["patients"].values()]
        points = [(int(step), _number(seen), _number(unseen)) for step, seen, unseen in found["curve"]]
    except (TypeError, ValueError):
        return False
    square = all(c.ndim == 2 and c.shape[0] == c.shape[1] and c.dtype.kind == "i" for c in counts)
    return square and bool(points) and all(isinstance(p, dict) and "identical" in p for p in found["proofs"])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return every result that can be used."""
    return [found for path in sorted(folder.glob("*.json")) if (found := read_result(path)) is not None]


def missing_folds(dataset: Dataset, job: Job, folder: Path) -> list[Fold]:
    """Return the folds of a job that have no result yet."""
    return [fold for fold in folds_of(dataset, job) if read_result(path_of(folder, job, fold)) is None]


def damaged(folder: Path) -> Iterable[Path]:
    """Yield the files that look like results and cannot be used."""
    return (path for path in sorted(folder.glob("*.json")) if read_result(path) is None)
