"""Writing a dataset folder, whole or not at all: two arrays per patient, and `dataset.json`.

What a user of datasets needs can be imported from here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.data.dataset.read import FORMAT_VERSION, IDENTITY, INDEX, read_dataset
from heartseg_jax.data.dataset.records import (
    DTYPES,
    Dataset,
    Patient,
    check_leaks,
    count_classes,
    digest,
    with_test_patients,
)
from heartseg_jax.data.dataset.splits import SPLITS, assign_splits, block_splits
from heartseg_jax.data.dataset.verify import verify
from heartseg_jax.errors import UserError
from heartseg_jax.files import new_folder, write_json

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


class DatasetWriter:
    """Writes a dataset beside its final place, one patient at a time, and moves it there when it is complete.

        with DatasetWriter(path, intensity="uint8", height=512, width=512, label_set=HEART, source={...}) as writer:
            writer.add("1001", images, labels, names=names, split="train")
        dataset = read_dataset(path)

    Where the body raises, nothing is left behind and an older dataset stays as it was.

    Args:
      path: the folder to be. An existing dataset is replaced only with `overwrite`; any other
        existing file or folder that is not empty is never touched.
      intensity: "HU" (int16), "uint8", or "tissue" (uint8 codes of `imaging/tissues.py`).
      height, width: rows and columns of every slice.
      label_set: what the labels mean.
      source: kind of the source and the options it was read with; kept in `dataset.json`.
      split_kind: "patient" or "block".
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
        label_set: LabelSet,
        source: dict[str, Any],
        split_kind: str = "patient",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).resolve()  # a link stays one: what it leads to is replaced
        check_output(self.path, overwrite)
        self._overwrite = overwrite
        self._head: dict[str, Any] = {
            "intensity": intensity,
            "height": int(height),
            "width": int(width),
            "split_kind": split_kind,
            "source": source,
        }
        if intensity not in DTYPES:
            raise UserError(f"intensity {intensity!r} is unknown; give one of {', '.join(DTYPES)}")
        self._dtype, self._label_set = DTYPES[intensity], label_set
        self._patients: list[Patient] = []
        self._folder = contextlib.ExitStack()

    def __enter__(self) -> DatasetWriter:
        self._partial = self._folder.enter_context(new_folder(self.path, overwrite=self._overwrite))
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
        merge: Sequence[int] | None = None,
        person: str = "",
    ) -> Patient:
        """Write one patient: `images [N, H, W]` of the dataset's dtype, `labels [N, H, W]` uint8.

        `split` is one name for all slices, or one per slice; without `merge` every structure is labelled; `person` is
        needed where one has several volumes.
        Raises UserError for label values out of range and for an id that cannot be a file's name; ValueError
        for shapes and dtypes.
        """
        if not IDENTITY.fullmatch(identity):
            raise UserError(f"patient {identity!r}: use letters, digits and - _ . in a name")
        if identity.casefold() in {p.id.casefold() for p in self._patients}:
            raise UserError(
                f"patient {identity!r} comes twice (upper and lower case count as the same): spell the name in one way"
            )
        expected = (len(names), self._head["height"], self._head["width"])
        if images.shape != expected or labels.shape != expected or not names:
            raise ValueError(f"patient {identity}: expected {expected}, got {images.shape}, {labels.shape}")
        if images.dtype != self._dtype or labels.dtype != np.uint8:
            raise ValueError(f"patient {identity}: dtypes {images.dtype} and {labels.dtype}")
        patient = Patient(
            id=identity,
            spacing_mm=None if spacing_mm is None else (*(float(s) for s in spacing_mm),),  # type: ignore[arg-type]
            contiguous=bool(contiguous),
            merge=self._label_set.check_merge(self._label_set.all_known if merge is None else tuple(merge)),
            class_counts=count_classes(labels, self._label_set.num_classes, f"patient {identity}"),
            names=tuple(names),
            splits=(split,) * len(names) if isinstance(split, str) else tuple(split),
            sha256={"images": digest(images), "labels": digest(labels)},
            person=person,
        )
        for kind, array in (("images", images), ("labels", labels)):
            np.save(self._partial / f"{identity}.{kind}.npy", np.ascontiguousarray(array), allow_pickle=False)
        self._patients.append(patient)
        return patient

    def split_again(self, splits: Mapping[str, str | Sequence[str]], kind: str) -> None:
        """Give the patients (by id) other splits than they were added with, and the dataset its `split_kind`."""
        self._head["split_kind"] = kind
        for number, patient in enumerate(self._patients):
            split = splits[patient.id]
            own = (split,) * patient.num_slices if isinstance(split, str) else tuple(split)
            self._patients[number] = dataclasses.replace(patient, splits=own)

    def written(self) -> Dataset:
        """Return what was written so far as a dataset, to be checked before it is taken for whole."""
        return Dataset(path=self._partial, patients=tuple(self._patients), label_set=self._label_set, **self._head)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        with self._folder:
            if error is not None:
                raise error
            record = {"format_version": FORMAT_VERSION, "task": self._label_set.name, **self._head}
            record["patients"] = [dataclasses.asdict(patient) for patient in self._patients]
            write_json(self._partial / INDEX, record)
            read_dataset(self._partial)  # What could not be read again must not take the place of anything.
            check_output(self.path, self._overwrite)  # Again: somebody else may have been faster.


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Raise UserError unless a dataset may be written at `path`; call it before long work."""
    path = Path(path)
    if Path.cwd().is_relative_to(path.resolve()):
        raise UserError(f"{path} is the folder that you are in, or above it: name a new folder for --output")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / INDEX).is_file():
        raise UserError(f"{path} exists and is not a dataset: it stays as it is; choose another --output")
    if not overwrite:
        raise UserError(f"{path} already holds a dataset: choose another --output, or --overwrite it")
