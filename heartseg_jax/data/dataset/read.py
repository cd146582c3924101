"""Reading a dataset folder: its index, and whether the heads of the arrays agree with it."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.anatomy import HEART, LABEL_SETS, LabelSet
from heartseg_jax.data.dataset.records import DTYPES, Dataset, Patient
from heartseg_jax.data.dataset.splits import GAP, SPLITS
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json

FORMAT_VERSION = 1
INDEX = "dataset.json"
IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Ids of patients become file names, so nothing that could lead out of the folder is allowed."""
MM = (1e-3, 1e3)
"""Spacings outside these limits are in another unit, or the file is damaged."""


def read_dataset(path: str | Path) -> Dataset:
    """Read `dataset.json` at `path` and the heads of the arrays, and check that they agree.

    The contents are not read: `verify.check_arrays` does that.

    Raises:
      UserError: for a missing folder, index or array, another format version, or anything that
        disagrees: shapes, dtypes, counts, splits.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no dataset at {path}: make one with `python main.py prepare`, or correct data.path")
    if not (path / INDEX).is_file():
        raise UserError(f"{path} is not a dataset: no {INDEX}; make one with `python main.py prepare`")
    try:
        record = read_json(path / INDEX, fix="prepare the dataset again")
        version = record["format_version"]
        if type(version) is not int or version != FORMAT_VERSION:
            raise UserError(f"{path / INDEX} is of format {version}, not {FORMAT_VERSION}: prepare it again")
        label_set = _label_set(record)
        patients = tuple(_patient_from_json(entry, label_set) for entry in record["patients"])
        dataset = Dataset(
            path=path,
            intensity=_field(record, "intensity", str),
            height=_field(record, "height", int),
            width=_field(record, "width", int),
            split_kind=_field(record, "split_kind", str),
            source=_field(record, "source", dict),
            patients=patients,
            label_set=label_set,
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError) as error:
        detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path / INDEX} is damaged ({detail}): prepare the dataset again") from error
    _check_consistent(dataset)
    return dataset


def _field(entry: dict[str, Any], name: str, kind: Any, each: Any = None) -> Any:
    """Return a field of type `kind` whose members are of type `each`; nothing is converted."""
    value = entry[name]
    if type(value) is not kind or (each and any(type(member) is not each for member in value)):
        expected = kind.__name__ + (f" of {each.__name__}" if each else "")
        raise TypeError(f"{name} must be {expected}, not {reprlib.repr(value)}")
    return value


def _label_set(record: dict[str, Any]) -> LabelSet:
    name = _field({"task": HEART.name, **record}, "task", str)  # datasets from before there were others lack it
    if name not in LABEL_SETS:
        raise ValueError(f"its task {name!r} is none of {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name]


def _patient_from_json(entry: dict[str, Any], label_set: LabelSet) -> Patient:
    identity, spacing = _field(entry, "id", str), entry["spacing_mm"]
    if not IDENTITY.fullmatch(identity):
        raise ValueError(f"{reprlib.repr(identity)} is no patient's id: letters, digits and - _ .")
    if spacing is not None:
        spacing = tuple(float(value) for value in spacing)
        if len(spacing) != 3 or not all(MM[0] <= value <= MM[1] for value in spacing):  # NaN neither
            raise ValueError(f"spacing_mm must be three numbers of mm (z, y, x) or null, not {entry['spacing_mm']}")
    digests = _field(entry, "sha256", dict)
    if not all(isinstance(digests.get(kind), str) for kind in ("images", "labels")):
        raise ValueError(f"sha256 of patient {identity} needs the digests of images and labels")
    return Patient(
        id=identity,
        spacing_mm=spacing,
        contiguous=_field(entry, "contiguous", bool),
        merge=label_set.check_merge(_field(entry, "merge", list, int)),
        class_counts=tuple(
            tuple(_field({"class_counts of a slice": row}, "class_counts of a slice", list, int))
            for row in _field(entry, "class_counts", list)
        ),
        names=tuple(_field(entry, "names", list, str)),
        splits=tuple(_field(entry, "splits", list, str)),
        sha256=digests,
        person=_field({"person": "", **entry}, "person", str),  # datasets from before there were several lack it
    )


def _check_consistent(dataset: Dataset) -> None:
    def fail(reason: str) -> None:
        raise UserError(f"the dataset {dataset.path} is damaged: {reason}; prepare it again")

    if dataset.intensity not in DTYPES or dataset.split_kind not in ("patient", "block"):
        fail(f"intensity {dataset.intensity!r}, split by {dataset.split_kind!r}")
    warnings = dataset.source.get("warnings", [])
    if not isinstance(warnings, list) or any(not isinstance(text, str) for text in warnings):
        fail("the warnings of its source are no list of sentences")
    if not dataset.patients:
        fail("it holds no patient")
    ids = [patient.id.casefold() for patient in dataset.patients]
    if twice := sorted({patient.id for patient in dataset.patients if ids.count(patient.id.casefold()) > 1}):
        fail(f"patient {', '.join(twice[:3])} occurs twice")
    for patient in dataset.patients:
        shape = (patient.num_slices, dataset.height, dataset.width)
        for kind, dtype in (("images", DTYPES[dataset.intensity]), ("labels", np.dtype("u1"))):
            file = dataset.array_path(patient, kind)
            try:
                if not file.is_file():
                    raise OSError("it is missing")
                array = np.lib.format.open_memmap(file, mode="r")
            except Exception as error:  # numpy lets escape whatever its parser stumbled over
                fail(f"{file.name} cannot be read ({error})")
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                order = "" if array.flags.c_contiguous else " in Fortran order"
                fail(f"{file.name} is {array.dtype}{list(array.shape)}{order}, not {dtype}{list(shape)}")
            if array.offset + array.nbytes != file.stat().st_size:
                fail(f"{file.name} continues after its array")
        counts = patient.class_counts
        if len(patient.splits) != len(counts) or len(counts) != patient.num_slices:
            fail(f"patient {patient.id}: names, splits and counts differ in length")
        area = dataset.height * dataset.width
        if any(len(row) != dataset.label_set.num_classes + 1 or min(row) < 0 or sum(row) != area for row in counts):
            fail(f"patient {patient.id}: the class counts of a slice do not add up to its {area} pixels")
        if not set(patient.splits) <= {*SPLITS, GAP}:
            fail(f"patient {patient.id}: unknown split in {sorted(set(patient.splits))}")
        if dataset.split_kind == "patient" and len(set(patient.splits)) != 1:
            fail(f"patient {patient.id} is in several splits, but the dataset says it is split by patient")
