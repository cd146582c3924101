"""Which dataset a run trains on: the folder or folders that its config names, or phantom patients made for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from heartseg_jax.anatomy import HEART, LABEL_SETS
from heartseg_jax.config import load
from heartseg_jax.config.words import shares_of
from heartseg_jax.data.dataset.join import read_datasets
from heartseg_jax.data.dataset.records import Dataset, Patient, with_test_patients
from heartseg_jax.errors import UserError
from heartseg_jax.progress import say


def dataset_for(config: Any, workdir: Path) -> Dataset:
    """Return the dataset of a config, split by `data.test_patients` where that is given, with its `data.shares`.

    Without `data.path`, phantom patients are made once in `datasets/` beside the run folder, under a name that
    holds the digest of everything they depend on: runs of the same phantoms share them.

    Raises:
      UserError: there is no such dataset, it is of another task than `data.task`, or there are more or fewer shares.
    """
    asked = LABEL_SETS[config.data.task]
    if not config.data.path and asked != HEART:
        raise UserError(
            f"data.task is '{asked.name}' and phantoms are hearts: make a dataset with `python main.py prepare "
            "--source=image_mask_zip --input=FILE.zip --output=DATASET` and give --config.data.path=DATASET"
        )
    path = config.data.path or str(phantom_dataset(config.data.phantom, workdir.parent))
    dataset = read_datasets(path)
    if dataset.label_set != asked:
        raise UserError(
            f"{path} is of the task '{dataset.label_set.name}', the config of '{asked.name}'; give "
            f"--config.data.task={dataset.label_set.name}, or the --config.data.path of another dataset"
        )
    return resplit(dataset, config)


def resplit(dataset: Dataset, config: Any) -> Dataset:
    """Return the dataset with the config's shares and its own test and validation patients, or unchanged."""
    shares = shares_of(config.data.shares)
    if shares and len(shares) != len(dataset.parts):
        raise UserError(
            f"data.shares has {len(shares)} numbers and data.path {len(dataset.parts)} datasets; give one share each"
        )
    if shares and dataset.members:
        dataset = dataclasses.replace(dataset, shares=shares)
    if not config.data.test_patients:
        return dataset
    return with_test_patients(dataset, config.data.test_patients, config.data.validation_patients)


def phantom_dataset(group: Any, parent: Path) -> Path:
    """Return the folder of the phantom patients that `group` (`config.data.phantom`) asks for; make a missing one."""
    path = _phantom_folder(group, parent)
    if not path.is_dir():
        from heartseg_jax.data.sources.case import Options
        from heartseg_jax.data.sources.phantom import phantom
        from heartseg_jax.data.sources.write_cases import write_cases

        say(f"making {group.train + group.validation + group.test} phantom patients in {path}")
        try:
            write_cases(path, phantom(Options(phantom=group)))
        except UserError:
            # Another run may have made the same patients meanwhile; they appear whole or not at all.
            if not path.is_dir():
                raise
    return path


def phantoms_to_make(config: Any, workdir: Path) -> Dataset | None:
    """Return a blank dataset like the phantom patients that `dataset_for` would have to make first, or None."""
    group = config.data.phantom
    if config.data.path or LABEL_SETS[config.data.task] != HEART or _phantom_folder(group, workdir.parent).is_dir():
        return None
    from heartseg_jax.data.dataset.blank import BlankDataset
    from heartseg_jax.data.sources.case import Options
    from heartseg_jax.data.sources.phantom import phantom

    source = phantom(Options(phantom=group))
    assert source.splits is not None
    slices, height, width = group.shape
    no_digests = {"images": "", "labels": ""}
    none = ((height * width,) + (0,) * HEART.num_classes,) * slices
    patients = [
        Patient(name, group.spacing_mm, True, HEART.all_known, none, ("",) * slices, (split,) * slices, no_digests)
        for name, split in source.splits.items()
    ]
    blank = BlankDataset(Path(), "HU", height, width, "patient", source.about, tuple(patients), HEART)
    return resplit(blank, config)


def _phantom_folder(group: Any, parent: Path) -> Path:
    from heartseg_jax.imaging.phantom import generator  # a run on a dataset needs no phantoms

    asked = {"version": generator.VERSION, **load.to_plain(group)}
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    return parent / "datasets" / f"phantom-v{generator.VERSION}-{name}"


def dataset_identity(dataset: Dataset) -> str:
    """Return a digest of what a run learns from: every array, merge and split, but not the folders' paths and names."""
    if dataset.members:
        parts = [dataset_identity(part) for part in dataset.parts]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    record = [dataclasses.asdict(patient) | {"id": patient.own_id} for patient in dataset.patients]
    for patient in record:
        if dataset.name:
            patient["person"] = patient["person"].removeprefix(f"{dataset.name}/")
        if not patient["person"]:
            del patient["person"]  # runs from before this field must recognise their datasets
    return hashlib.sha256(json.dumps([dataset.intensity, record], sort_keys=True).encode()).hexdigest()
