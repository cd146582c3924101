"""A run opened by one process or by several: the first one makes what is missing, then all read the same."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from heartseg_jax import distributed
from heartseg_jax import workdir as runs
from heartseg_jax.config import load
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.run_dataset import dataset_for, phantoms_to_make
from heartseg_jax.training.run import Run, open_run


def open_folder(path: Path, config: Any) -> tuple[runs.Workdir, contextlib.AbstractContextManager[Any]]:
    """Return the run's folder and the lock on it, which of several processes the first one holds.

    Raises:
      UserError: as `workdir.open_for_training`; or the processes were started with different configs.
    """
    distributed.agree(json.dumps(load.to_plain(config), sort_keys=True), "config")
    opened = distributed.first(lambda: runs.open_for_training(path, config))
    return opened or (runs.Workdir(path), contextlib.nullcontext())


def blank_dataset(config: Any, folder: runs.Workdir) -> Dataset | None:
    """Return a blank dataset to compile ahead for, while phantoms are made; None where there is nothing to wait for.

    Several processes compile once all have the data: then they meet in the first step at about the same time.
    """
    if distributed.count() > 1 or runs.has_checkpoint(folder):
        return None
    return phantoms_to_make(config, folder.path)


def open_together(config: Any, folder: runs.Workdir) -> Run:
    """Return the run, opened by every process.

    Raises:
      UserError, GuardStop: as `open_run`; or the processes see different data.
    """
    if distributed.count() > 1:
        distributed.first(lambda: dataset_for(config, folder.path))  # phantoms are made once
    with distributed.together():
        run = open_run(config, folder)
    distributed.agree(run.contract.dataset_identity, "dataset")
    return run
