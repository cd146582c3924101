"""The records of a dataset: its patients, their splits and counts. Reading and writing are in `read` and `write`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from heartseg_jax.anatomy import IGNORED, LabelSet
from heartseg_jax.data.dataset.splits import GAP, SPLITS
from heartseg_jax.errors import UserError

DTYPES: dict[str, np.dtype[Any]] = {"HU": np.dtype("<i2"), "uint8": np.dtype("u1"), "tissue": np.dtype("u1")}
"""By intensity: "tissue" is for maps of tissue codes (`imaging/tissues.py`), from which images are synthesised."""


@dataclass(frozen=True)
class Patient:
    """One patient of a dataset: everything except the two arrays.

    Attributes:
      id: unique in the dataset, and the stem of the file names; `NAME/ID` where several datasets are joined.
      spacing_mm: `(z, y, x)`; None where it is unknown (PNG).
      contiguous: the slices are a whole volume in order, so that distances in 3D and neighbours as
        channels make sense.
      merge: one label per class; see `LabelSet.check_merge`.
      class_counts: for each slice the number of pixels of every class, then of the ignored ones.
      names: per slice the name of the file or slice it was read from.
      splits: per slice its split; all equal unless the dataset is split by block.
      sha256: digests of the arrays' contents, by "images" and "labels".
      person: the same for all volumes of one person, which are always in the same split; '' where there is one volume.
    """

    id: str
    spacing_mm: tuple[float, float, float] | None
    contiguous: bool
    merge: tuple[int, ...]
    class_counts: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    sha256: dict[str, str]
    person: str = ""

    @property
    def who(self) -> str:
        """The person."""
        return self.person or self.id

    @property
    def own_id(self) -> str:
        """The id in the patient's own dataset, also where several are joined."""
        return self.id.rpartition("/")[2]

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return len(self.names)

    @property
    def labelled(self) -> bool:
        """Whether any pixel is labelled as a structure."""
        return any(sum(row[1:-1]) for row in self.class_counts)

    def slice_name(self, z: int) -> str:
        """Return the name of a slice without the patient's id and the file's suffix, which say nothing new."""
        return PurePath(self.names[z]).stem.removeprefix(self.own_id).lstrip("_/")


@dataclass(frozen=True)
class Dataset:
    """A dataset folder that has been read and found consistent, or several joined. The arrays stay on the disk.

    Attributes:
      path: the folder; of joined datasets their folders with commas between them, to be shown only.
      intensity: a key of `DTYPES`; of joined datasets those that occur, such as "HU+uint8".
      height, width: of every slice; 0 where datasets are joined, see `part_of`.
      split_kind: "patient" or "block".
      source: what the folder keeps about where it comes from.
      label_set: what the labels mean; `dataset.json` has its name, under `task`.
      name: of a member of joined datasets, with which its patients' ids begin; else ''.
      members: the datasets that were joined, see `join.joined`; empty for a single one.
      shares: how often the training examples of each member are shown, relative to each other; empty: each example
        once per epoch.
    """

    path: Path
    intensity: str
    height: int
    width: int
    split_kind: str
    source: dict[str, Any]
    patients: tuple[Patient, ...]
    label_set: LabelSet
    name: str = ""
    members: tuple[Dataset, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The members with their patients as they are split here; a single dataset is its own only part."""
        if not self.members:
            return (self,)
        own: dict[str, list[Patient]] = {member.name: [] for member in self.members}
        for patient in self.patients:
            own[patient.id.partition("/")[0]].append(patient)
        return tuple(dataclasses.replace(member, patients=tuple(own[member.name])) for member in self.members)

    def part_of(self, patient: Patient | int) -> Dataset:
        """Return the single dataset of a patient (or of its index): its intensity, height, width and folder are so."""
        if not self.members:
            return self
        who = self.patients[patient] if isinstance(patient, int) else patient
        name = who.id.partition("/")[0]
        return next(member for member in self.members if member.name == name)

    @property
    def location(self) -> str:
        """The absolute folder or folders, as `data.path` names them."""
        return ",".join(str(part.path.absolute()) for part in self.members or (self,))

    def examples(self, split: str) -> list[tuple[int, int]]:
        """Return `(index of the patient, index of the slice)` of every slice in `split`, in order."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}: there are {', '.join(SPLITS)}")
        return [
            (p, s)
            for p, patient in enumerate(self.patients)
            for s, slice_split in enumerate(patient.splits)
            if slice_split == split
        ]

    def slices_of(self, split: str) -> dict[int, list[int]]:
        """Return `{index of the patient: indices of the slices}` of `split`, in order; no others."""
        found: dict[int, list[int]] = {}
        for patient, z in self.examples(split):
            found.setdefault(patient, []).append(z)
        return found

    def patients_in(self, split: str) -> list[Patient]:
        """Return the patients with at least one slice in `split`."""
        return [self.patients[p] for p in self.slices_of(split)]

    def images(self, patient: Patient | int) -> np.ndarray:
        """Return the images `[N, H, W]` of a patient (or of its index), in the `DTYPES` of its part, memory-mapped."""
        return self.open(patient, "images")

    def labels(self, patient: Patient | int) -> np.ndarray:
        """Return the labels `[N, H, W]` of a patient (or of its index), uint8, memory-mapped."""
        return self.open(patient, "labels")

    def open(self, patient: Patient | int, kind: str) -> np.ndarray:
        """Return the array `kind` ("images" or "labels") of a patient, memory-mapped.

        The header is skipped, not parsed: its shape and dtype were checked when the dataset was read, and
        `np.load` parses it with `ast`, which occasionally fails in threads (SystemError, "AST constructor
        recursion depth mismatch", CPython 3.11) while slices are loaded during a compilation.
        """
        who = self.patients[patient] if isinstance(patient, int) else patient
        path = self.array_path(who, kind)
        with path.open("rb") as file:
            head = file.read(12)
        # The .npy format: magic, version, then the header's length in 2 bytes (version 1) or 4 (later).
        size = 2 if head[6] == 1 else 4
        offset = 8 + size + int.from_bytes(head[8 : 8 + size], "little")
        part = self.part_of(who)
        dtype = DTYPES["uint8" if kind == "labels" else part.intensity]
        return np.memmap(path, dtype, "r", offset, (who.num_slices, part.height, part.width))

    def array_path(self, patient: Patient, kind: str) -> Path:
        """Return the file of the array `kind` of a patient."""
        return self.part_of(patient).path / f"{patient.own_id}.{kind}.npy"


def count_classes(labels: np.ndarray, num_classes: int, where: str) -> tuple[tuple[int, ...], ...]:
    """Return for each slice of `labels [N, H, W]` the pixels of labels 0 to `num_classes - 1`, then of 255.

    Raises:
      UserError: for any other value, naming `where` and the first slice that holds it.
    """
    rows = []
    for index, plane in enumerate(labels):
        counts = np.bincount(plane.ravel(), minlength=256)
        wrong = [int(v) for v in np.flatnonzero(counts) if num_classes <= v != IGNORED]
        if wrong:
            raise UserError(
                f"{where}: slice {index} holds label values {wrong[:8]}; only 0 to {num_classes - 1} and"
                f" {IGNORED} (ignored) have a meaning. Correct the masks, or map them with --colours"
            )
        rows.append((*(int(c) for c in counts[:num_classes]), int(counts[IGNORED])))
    return tuple(rows)


def check_unchanged(dataset: Dataset, patient: Patient, labels: np.ndarray, slices: Sequence[int]) -> None:
    """Raise UserError where `labels [n, H, W]`, read from these slices, are not those that the index counted."""
    where = f"{dataset.array_path(patient, 'labels')}"
    if count_classes(labels, dataset.label_set.num_classes, where) != tuple(patient.class_counts[z] for z in slices):
        raise UserError(f"{where} was changed after it was prepared: its pixels are not those counted; prepare again")


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of the array's contents in C order, as hexadecimal digits."""
    return hashlib.sha256(memoryview(np.ascontiguousarray(array)).cast("B")).hexdigest()


def with_test_patients(dataset: Dataset, test: Sequence[str], validation: Sequence[str] = ()) -> Dataset:
    """Return `dataset` with other splits: `test` and `validation` as named, all other patients train.

    Of joined datasets, those of which no patient is named keep their own split: what they left out stays left out.

    Raises:
      UserError: for an unknown patient, one named twice, or no patient left to train on.
    """
    known = [patient.id for patient in dataset.patients]
    if unknown := [identity for identity in [*test, *validation] if identity not in known]:
        raise UserError(f"no patient {', '.join(unknown)} in {dataset.path}; it holds {', '.join(known)}")
    if twice := set(test) & set(validation):
        raise UserError(f"patient {', '.join(sorted(twice))} cannot both test and validate")
    named = {dataset.part_of(known.index(identity)).path for identity in (*test, *validation)}
    split_again = [patient for patient in dataset.patients if dataset.part_of(patient).path in named]
    parts = {patient.id: "train" for patient in split_again}
    parts |= dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    for patient in split_again:
        others = [other.id for other in split_again if other.who == patient.who]
        if apart := [other for other in others if parts[other] != parts[patient.id]]:
            raise UserError(
                f"{patient.id} and {', '.join(apart)} in {dataset.path} are of one person: test or validate on all of "
                "them, or on none"
            )
    patients = tuple(
        dataclasses.replace(p, splits=(parts[p.id],) * p.num_slices) if p.id in parts else p for p in dataset.patients
    )
    if not any("train" in patient.splits for patient in patients):
        raise UserError(f"no patient of {dataset.path} is left to train on: test or validate on fewer")
    members = tuple(
        dataclasses.replace(member, split_kind="patient") if member.path in named else member
        for member in dataset.members
    )
    kinds = {member.split_kind for member in members} or {"patient"}
    kind = "block" if "block" in kinds else "patient"
    return dataclasses.replace(dataset, split_kind=kind, patients=patients, members=members)


def check_leaks(dataset: Dataset) -> list[str]:
    """Return what is in two splits, one line per finding: a patient, or slices with the same image.

    Constant images are skipped: air is the same in every patient.
    """
    splits_of: dict[str, set[str]] = {}
    for patient in dataset.patients:
        for who in (f"patient {patient.id}", *([f"person {patient.person}"] if patient.person else ())):
            splits_of.setdefault(who, set()).update(set(patient.splits) - {GAP})
    findings = [f"{who} is in {' and '.join(sorted(ins))}" for who, ins in splits_of.items() if len(ins) > 1]
    seen: dict[bytes, tuple[str, str]] = {}
    for patient in dataset.patients:
        for image, name, split in zip(dataset.images(patient), patient.names, patient.splits, strict=True):
            if split == GAP or image.min() == image.max():
                continue
            place = f"{patient.id}/{name}"
            first, first_split = seen.setdefault(hashlib.sha256(image.tobytes()).digest(), (place, split))
            if first_split != split:
                findings.append(f"the same image is {first} in {first_split} and {place} in {split}")
    return findings
