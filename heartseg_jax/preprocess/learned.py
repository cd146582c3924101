"""What a model has learned from, as its checkpoints state it: each dataset, its structures and patients. No files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

REAL, SYNTHESISED = "real", "synthesised"
KINDS = (REAL, SYNTHESISED)


@dataclass(frozen=True)
class Learned:
    """One dataset that a model has learned from; of its patients only those that were trained on.

    Attributes:
      name: of the dataset's folder.
      images: 'real', or 'synthesised' (phantoms, and images made from label maps during training).
      patients, slices: how many were trained on.
      structures: for each structure, how many of the patients have it labelled, in the label set's order. Where others
        are joined with it, so that it teaches their union, all are named: 'right_atrium+vena_cava'.
      images_sha256: of each patient the digest that `dataset.json` has of its images, sorted.
      inherited: whether it was learned by the model whose weights this one began from.
      licence: and attribution; empty where it is not stated.
    """

    name: str
    images: str
    patients: int
    slices: int
    structures: Mapping[str, int]
    images_sha256: tuple[str, ...]
    inherited: bool = False
    licence: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.patients} patients, {self.images} images)"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; `from_json` reads it."""
        return {**asdict(self), "structures": dict(self.structures), "images_sha256": list(self.images_sha256)}

    @classmethod
    def from_json(cls, content: Any) -> Learned:
        """Return what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        found = cls(
            name=content["name"],
            images=content["images"],
            patients=content["patients"],
            slices=content["slices"],
            structures=dict(content["structures"]),
            images_sha256=tuple(content["images_sha256"]),
            inherited=content["inherited"],
            licence=content["licence"],
        )
        words = (found.name, found.licence, *found.structures, *found.images_sha256)
        counts = (found.patients, found.slices, *found.structures.values())
        if not all(type(word) is str for word in words) or type(found.inherited) is not bool:
            raise TypeError("what it learned from has names that are no text")
        if not all(type(count) is int and count >= 0 for count in counts) or found.images not in KINDS:
            raise ValueError("what it learned from has counts or kinds of images that cannot be")
        return found


UNRECORDED = Learned("not recorded", REAL, 0, 0, {}, (), inherited=True)
"""What stands for the data of weights that do not state theirs: those of a run of an earlier version."""


def in_words(records: Iterable[Learned]) -> str:
    """Return the datasets in one line; one that the initial weights learned from too is named once."""
    return "; ".join(dict.fromkeys(map(str, records)))


def inherited(records: Iterable[Learned], *, head: bool) -> tuple[Learned, ...]:
    """Return the records as those of a model that began from the weights of the one which learned them.

    Without its `head` the model was taught none of the structures; their patients have been seen all the same.
    """
    return tuple(replace(one, inherited=True, structures=one.structures if head else {}) for one in records)


def taught(records: Iterable[Learned], structures: Iterable[str]) -> dict[str, tuple[str, ...]] | None:
    """Return for each structure of which kinds of images it was taught: none, 'real', 'synthesised' or both.

    A union counts for the structure that it is named after. None where nothing is recorded.
    """
    known = list(records)
    if not known:
        return None
    seen = {(key.partition("+")[0], one.images) for one in known for key, count in one.structures.items() if count}
    return {name: tuple(kind for kind in KINDS if (name, kind) in seen) for name in structures}


def part_of(records: Iterable[Learned], structures: Iterable[str]) -> dict[str, str]:
    """Return for each structure that was never taught as itself, but in a union, the structure that names the union.

    The network knows only the sum of their probabilities.
    """
    known = list(records)
    never = {name for name, kinds in (taught(known, structures) or {}).items() if not kinds}
    unions = [key.split("+") for one in known for key, count in one.structures.items() if count]
    found: dict[str, str] = {}
    for head, *others in unions:
        for name in never.intersection(others):
            found.setdefault(name, head)
    return found


def trained_on(records: Iterable[Learned]) -> frozenset[str]:
    """Return the digests of the images of all patients in the records."""
    return frozenset(digest for one in records for digest in one.images_sha256)
