"""What is measured: a cell is a config at one image size, batch size and dtype, and one kind of work. No JAX here."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import FrozenConfigDict

from heartseg_jax.config import load, schema
from heartseg_jax.config.words import grid_of
from heartseg_jax.data.run_dataset import dataset_for
from heartseg_jax.errors import UserError

WORK = ("train", "infer")
GROUP = "benchmark."
RUN = "run"
"""Name of the run, in the folder of a benchmark, that the cells' steps are of; it is never written."""
LONG = 10**6
"""Steps of that run: its phases and its schedule need a length, and no cell takes so many."""


class Cell(NamedTuple):
    """One row to be: the config's name, the config at the cell's size, batch size and dtype, and the work."""

    name: str
    config: FrozenConfigDict
    work: str

    def __str__(self) -> str:
        data = self.config.data
        return f"{self.name} {self.work} {data.size}x{data.size}, batch {data.batch_size}, {self.config.model.dtype}"


def cells_of(name: str, config: FrozenConfigDict, typed: Collection[str]) -> list[Cell]:
    """Return the cells that a config's `benchmark` group asks for, each once.

    Fields that were `typed` on the command line are set in every config that is measured.

    Raises:
      UserError: a config is missing or fails, does not accept a size, or the file sets fields that nothing would read.
    """
    values, grid = dict(load.fields(config)), config.benchmark
    loaded = [load.load(spec) for spec in grid.configs]
    if loaded:
        _refuse_unread(name, values, typed)
    everywhere = {field: values[field] for field in (*typed, "benchmark.seconds", "benchmark.steps")}
    works = WORK if grid.work == "both" else (grid.work,)
    axes = {
        "data.size": grid_of("benchmark.sizes", grid.sizes, like=0),
        "data.batch_size": grid_of("benchmark.batches", grid.batches, like=0),
        "model.dtype": grid.dtypes,
    }
    asked = {field: wanted for field, wanted in axes.items() if wanted}
    found: list[Cell] = []
    for own_name, own in loaded or [(name, config)]:
        for point in itertools.product(*asked.values()):
            measured = _shortened(load.changed(own, everywhere | dict(zip(asked, point, strict=True))))
            found += [Cell(own_name, measured, work) for work in works]
    return list(dict.fromkeys(found))


def _refuse_unread(name: str, values: dict[str, Any], typed: Collection[str]) -> None:
    """Refuse a file that names configs to measure and sets fields of its own, which would be those of none of them."""
    own = dict(load.fields(schema.defaults())) | {"model.num_classes": values["model.num_classes"]}
    for field, value in values.items():
        if not field.startswith(GROUP) and field not in typed and value != own[field]:
            raise UserError(
                f"{name} sets {field}, but what benchmark.configs names is measured; give --config.{field}={value} to "
                "set it in all of them, or leave benchmark.configs out"
            )


def _shortened(config: FrozenConfigDict) -> FrozenConfigDict:
    """Return the config with steps for every phase and one phantom patient: batches larger than it repeat slices."""
    one = {"data.phantom.train": 1, "data.phantom.validation": 0, "data.phantom.test": 0}
    return load.changed(config, one | {"train.steps": LONG})


def prepare(cells: list[Cell], place: Path) -> None:
    """Make the phantom patients that the cells need, in the folder `place`, and check the datasets that they name.

    Raises:
      UserError: a dataset is missing, of another task, or without training patients.
    """
    for config in dict.fromkeys(cell.config for cell in cells):
        dataset = dataset_for(config, place / RUN)
        if not dataset.examples("train"):
            raise UserError(f"{dataset.path} has no training patients, whose slices are needed; name another data.path")
