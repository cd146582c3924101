"""Several dataset folders as one dataset, whose patients know their folder. The arrays stay where they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.data.dataset.records import DTYPES, Dataset, Patient
from heartseg_jax.data.dataset.splits import GAP
from heartseg_jax.errors import UserError


def paths_of(text: str) -> tuple[Path, ...]:
    """Return the folders that `A,B,C` names; a folder whose own name has commas is one.

    Raises:
      UserError: there is nothing before, between or after commas.
    """
    if "," not in text or Path(text).is_dir():
        return (Path(text),)
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"'{text}' names an empty dataset folder; give folders with one comma between them")
    return tuple(Path(word) for word in words)


def read_datasets(text: str) -> Dataset:
    """Return the dataset that `text` names, or those that it names with commas between them, joined.

    Raises:
      UserError: one is not there or damaged, or they cannot be joined.
    """
    found = [read_dataset(path) for path in paths_of(text)]
    return found[0] if len(found) == 1 else joined(found)


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """Return several datasets as one.

    The id of a patient becomes `NAME/ID`, NAME being the name of the dataset's folder. So does the name of a person:
    that one person is in two datasets is not known here.

    Raises:
      UserError: two folders have one name, or the label sets differ.
    """
    names = [dataset.path.resolve().name for dataset in datasets]
    for number, name in enumerate(names):
        if name.casefold() in {other.casefold() for other in names[:number]}:
            raise UserError(
                f"two of the datasets are called {name}: rename a folder, its name is part of patients' ids"
            )
    first = datasets[0]
    for dataset in datasets:
        if dataset.label_set != first.label_set:
            raise UserError(
                f"{dataset.path} is of the task '{dataset.label_set.name}', {first.path} of '{first.label_set.name}': "
                "datasets of one run need one task; leave one out"
            )
    members = tuple(
        dataclasses.replace(dataset, name=name, patients=tuple(_renamed(p, name) for p in dataset.patients))
        for dataset, name in zip(datasets, names, strict=True)
    )
    units = [unit for unit in DTYPES if any(member.intensity == unit for member in members)]
    kinds = {member.split_kind for member in members}
    caveats = [f"{m.name}: {text}" for m in members for text in m.source.get("caveats", ())]
    return Dataset(
        path=Path(",".join(str(dataset.path) for dataset in datasets)),
        intensity="+".join(units),
        height=0,
        width=0,
        split_kind="block" if "block" in kinds else "patient",
        source={"kind": "joined", **({"caveats": caveats} if caveats else {})},
        patients=tuple(patient for member in members for patient in member.patients),
        label_set=first.label_set,
        members=members,
    )


def _renamed(patient: Patient, name: str) -> Patient:
    person = f"{name}/{patient.person}" if patient.person else ""
    return dataclasses.replace(patient, id=f"{name}/{patient.id}", person=person)


def copies(dataset: Dataset) -> list[str]:
    """Return one line per patient whose images are those of a patient of another split in another part."""
    found, seen = [], dict[str, Patient]()
    for patient in dataset.patients if dataset.members else ():
        first = seen.setdefault(patient.sha256["images"], patient)
        own, other = (sorted(set(p.splits) - {GAP}) for p in (patient, first))
        if own != other:
            found.append(f"{patient.id} ({', '.join(own)}) has the images of {first.id} ({', '.join(other)})")
    return found
