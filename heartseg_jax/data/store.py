"""The dataset folder: one pair of arrays a patient and `dataset.json`. Written whole or not at all.

The records are in `dataset`, how a source becomes such a folder is told in `prepare`, who is in which
split in `splits`; what a reader of datasets needs can be imported from here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import reprlib
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.anatomy import ALL_KNOWN, HEART, NUM_LABELS, TASKS, check_merge
from heartseg_jax.data.dataset import (
    DTYPES,
    Dataset,
    Patient,
    check_leaks,
    count_classes,
    digest,
    with_test_patients,
)
from heartseg_jax.data.splits import GAP, SPLITS, assign_splits, block_splits
from heartseg_jax.errors import UserError

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "Dataset",
    "DatasetWriter",
    "Patient",
    "assign_splits",
    "block_splits",
    "check_leaks",
    "check_output",
    "read_dataset",
    "verify",
    "with_test_patients",
]

FORMAT_VERSION = 1
INDEX = "dataset.json"
IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Ids of patients: they become names of files, so nothing that leads out of the folder."""
MM = (1e-3, 1e3)
"""Spacings in mm beyond these are no slice's, but another unit or a broken file."""


class DatasetWriter:
    """Writes a dataset beside its final place, a patient at a time, and moves it there when whole.

        with DatasetWriter(path, intensity="uint8", height=512, width=512, source={...}) as writer:
            writer.add("1001", images, labels, names=names, split="train")
        dataset = read_dataset(path)

    Where the body raises, nothing is left behind and an older dataset stays as it was.

    Args:
      path: the folder to be. An existing dataset is replaced only with `overwrite`; any other
        existing file or folder that is not empty is never touched.
      intensity: "HU" (int16) or "uint8".
      height: rows of every slice.
      width: columns of every slice.
      source: kind of the source and what was said about it; kept in `dataset.json`.
      split_kind: "patient" or "block".
      task: what the labels stand for, see `anatomy.TASKS`.
      overwrite: replace an existing dataset.

    Raises:
      UserError: where `path` is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        intensity: str,
        height: int,
        width: int,
        source: dict[str, Any],
        split_kind: str = "patient",
        task: str = HEART,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        check_output(self.path, overwrite)
        self._overwrite = overwrite
        self._head = {
            "format_version": FORMAT_VERSION,
            "intensity": intensity,
            "height": int(height),
            "width": int(width),
            "split_kind": split_kind,
            "task": task,
            "source": source,
        }
        self._dtype = DTYPES[intensity]
        self._patients: list[Patient] = []
        self._partial = self.path.parent / f".{self.path.name}.partial-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> DatasetWriter:
        self._partial.mkdir(parents=True)
        return self

    def add(
        self,
        identity: str,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        names: Sequence[str],
        split: str | Sequence[str],
        spacing_mm: tuple[float, float, float] | None = None,
        contiguous: bool = False,
        merge: Sequence[int] = ALL_KNOWN,
        person: str = "",
    ) -> Patient:
        """Write one patient: `images [N, H, W]` of the dataset's dtype, `labels [N, H, W]` uint8.

        `split` is one name for all slices, or one a slice; `person` is needed where one has several volumes.
        Raises UserError for label values out of range and for an id that cannot be a file's name; ValueError
        for shapes and dtypes.
        """
        if not IDENTITY.fullmatch(identity):
            raise UserError(f"patient {identity!r}: use letters, digits and - _ . in a name")
        if identity.casefold() in {p.id.casefold() for p in self._patients}:
            raise UserError(f"patient {identity!r} comes twice (upper and lower case count as the same)")
        expected = (len(names), self._head["height"], self._head["width"])
        if images.shape != expected or labels.shape != expected or not names:
            raise ValueError(f"patient {identity}: expected {expected}, got {images.shape}, {labels.shape}")
        if images.dtype != self._dtype or labels.dtype != np.uint8:
            raise ValueError(f"patient {identity}: dtypes {images.dtype} and {labels.dtype}")
        patient = Patient(
            id=identity,
            spacing_mm=None if spacing_mm is None else (*(float(s) for s in spacing_mm),),  # type: ignore[arg-type]
            contiguous=bool(contiguous),
            merge=check_merge(tuple(merge)),
            class_counts=count_classes(labels, f"patient {identity}"),
            names=tuple(names),
            splits=(split,) * len(names) if isinstance(split, str) else tuple(split),
            sha256={"images": digest(images), "labels": digest(labels)},
            person=person,
        )
        for kind, array in (("images", images), ("labels", labels)):
            with open(self._partial / f"{identity}.{kind}.npy", "wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        self._patients.append(patient)
        return patient

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self) -> None:
        record = {**self._head, "patients": [dataclasses.asdict(patient) for patient in self._patients]}
        with open(self._partial / INDEX, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        read_dataset(self._partial)  # What could not be read again must not take the place of anything.
        check_output(self.path, self._overwrite)  # Again: somebody else may have been faster.
        old = self.path.parent / f".{self.path.name}.old-{uuid.uuid4().hex[:8]}"
        if self.path.exists():
            self.path.rename(old)
        self._partial.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Raise UserError unless a dataset may be written at `path`; call it before long work."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / INDEX).is_file():
        raise UserError(f"{path} exists and is not a dataset: it stays as it is; choose another --output")
    if not overwrite:
        raise UserError(f"{path} already holds a dataset: choose another --output, or --overwrite it")


def read_dataset(path: str | Path) -> Dataset:
    """Read `dataset.json` at `path` and the heads of the arrays, and check that they agree.

    The contents are not read: `verify` does that.

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
        record = json.loads((path / INDEX).read_text(encoding="utf-8"))
        version = record["format_version"]
        if type(version) is not int or version != FORMAT_VERSION:
            raise UserError(f"{path / INDEX} is of format {version}, not {FORMAT_VERSION}: prepare it again")
        patients = tuple(_patient_from_json(entry) for entry in record["patients"])
        dataset = Dataset(
            path=path,
            intensity=_field(record, "intensity", str),
            height=_field(record, "height", int),
            width=_field(record, "width", int),
            split_kind=_field(record, "split_kind", str),
            source=_field(record, "source", dict),
            patients=patients,
            task=_field({"task": HEART, **record}, "task", str),  # datasets from before there were others lack it
        )
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path / INDEX} is damaged ({detail}): prepare the dataset again") from error
    _check_consistent(dataset)
    return dataset


def _field(entry: dict[str, Any], name: str, kind: Any, each: Any = None) -> Any:
    """Return a field that is a `kind`, and each of its members an `each`: nothing is converted, a bool is no number."""
    value = entry[name]
    if type(value) is not kind or (each and any(type(member) is not each for member in value)):
        expected = kind.__name__ + (f" of {each.__name__}" if each else "")
        raise TypeError(f"{name} must be {expected}, not {reprlib.repr(value)}")
    return value


def _patient_from_json(entry: dict[str, Any]) -> Patient:
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
        merge=check_merge(_field(entry, "merge", list, int)),
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
    if dataset.task not in TASKS:
        fail(f"its task {dataset.task!r} is none of {', '.join(TASKS)}")
    if not dataset.patients:
        fail("it holds no patient")
    ids = [patient.id.casefold() for patient in dataset.patients]
    twice = sorted({patient.id for patient in dataset.patients if ids.count(patient.id.casefold()) > 1})
    if twice:
        fail(f"patient {', '.join(twice[:3])} comes twice")
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
                fail(f"{file.name} goes on after its array")
        counts = patient.class_counts
        if len(patient.splits) != len(counts) or len(counts) != patient.num_slices:
            fail(f"patient {patient.id}: names, splits and counts differ in length")
        area = dataset.height * dataset.width
        if any(len(row) != NUM_LABELS + 1 or min(row) < 0 or sum(row) != area for row in counts):
            fail(f"patient {patient.id}: the class counts of a slice do not add up to its {area} pixels")
        if not set(patient.splits) <= {*SPLITS, GAP}:
            fail(f"patient {patient.id}: unknown split in {sorted(set(patient.splits))}")
        if dataset.split_kind == "patient" and len(set(patient.splits)) != 1:
            fail(f"patient {patient.id} is in several splits, but the dataset says it is split by patient")


def verify(dataset: Dataset) -> None:
    """Read every array whole and compare digests and class counts with the index.

    Raises:
      UserError: naming the first array that differs.
    """
    for patient in dataset.patients:
        for kind in ("images", "labels"):
            if digest(dataset.open(patient, kind)) != patient.sha256.get(kind):
                array = f"{patient.id}.{kind}.npy"
                raise UserError(f"{dataset.path / array} was changed after it was prepared: prepare again")
        if count_classes(dataset.labels(patient), f"patient {patient.id}") != patient.class_counts:
            raise UserError(f"the class counts of patient {patient.id} in {dataset.path} are wrong: prepare again")
