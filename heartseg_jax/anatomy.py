"""What labels mean: the label sets, each with its names, numbers, colours and codes. Nothing else lives here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

IGNORED = 255
"""Label of a zone that is excluded from loss and score."""


class Structure(NamedTuple):
    """One row of the table. `mask_rgb` is the colour in mask files, `display_rgb` is colour-blind-safe."""

    label: int
    name: str
    short: str
    mask_rgb: tuple[int, int, int]
    display_rgb: tuple[int, int, int]
    snomed: str | None


@dataclass(frozen=True)
class LabelSet:
    """What the labels of a dataset mean, and how many channels its networks have.

    Attributes:
      name: as the config (`data.task`) and `dataset.json` write it.
      structures: the row of label k is number k; background is the first.
      num_classes: channels of the network's output and labels in the counts, background included. At least
        the number of structures; a channel without a structure is merged into background.
    """

    name: str
    structures: tuple[Structure, ...]
    num_classes: int

    def __post_init__(self) -> None:
        if [s.label for s in self.structures] != list(range(len(self.structures))):
            raise ValueError(f"{self.name}: labels must count up from 0, background first")
        if not len(self.structures) <= self.num_classes <= IGNORED:
            raise ValueError(f"{self.name}: {len(self.structures)} structures in {self.num_classes} classes")

    @property
    def foreground(self) -> tuple[Structure, ...]:
        """The structures other than background."""
        return self.structures[1:]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The structures' names, by label."""
        return tuple(structure.name for structure in self.structures)

    @property
    def all_known(self) -> tuple[int, ...]:
        """The `merge` of a source that labels every structure: channel c counts as c."""
        return tuple(s.label for s in self.structures) + (0,) * (self.num_classes - len(self.structures))

    def colour(self, label: int, scheme: str) -> tuple[int, int, int]:
        """Return a label's colour: scheme 'display' is colour-blind-safe, 'masks' is that of the mask files."""
        return {"display": self.structures[label].display_rgb, "masks": self.structures[label].mask_rgb}[scheme]

    def check_merge(self, merge: Sequence[int]) -> tuple[int, ...]:
        """Return `merge` as a tuple of `num_classes` labels, or raise ValueError.

        `merge[c]` is the label that channel c counts as. For the heart: 8 -> 4 for a source whose right atrium
        includes the cavae, 6 -> 1 for an undivided aorta, -> 0 for a structure that is not labelled at all.
        What a channel is merged into must count as itself (`merge[merge[c]] == merge[c]`).
        """
        if isinstance(merge, str) or not all(isinstance(m, int) and not isinstance(m, bool) for m in merge):
            raise ValueError(f"merge must hold whole numbers, not {merge!r}")
        values, last = tuple(merge), self.num_classes - 1
        if len(values) != self.num_classes or not all(0 <= m <= last for m in values):
            raise ValueError(f"merge needs {self.num_classes} labels from 0 to {last}, not {values}")
        if values[0] != 0:
            raise ValueError("merge[0] must be 0: background is never part of a structure")
        names = (*self.names, *(f"label {c}" for c in range(len(self.structures), self.num_classes)))
        for channel, target in enumerate(values):
            if values[target] != target:
                raise ValueError(f"merge sends {names[channel]} to {names[target]}, which is itself merged away")
        return values


_BACKGROUND = Structure(0, "background", "BG", (0, 0, 0), (0, 0, 0), None)

HEART = LabelSet(
    "heart",
    (
        _BACKGROUND,
        Structure(1, "ascending_aorta", "AA", (255, 255, 255), (246, 54, 0), "54247002"),
        Structure(2, "left_atrium", "LA", (255, 0, 0), (164, 28, 127), "82471001"),
        Structure(3, "left_ventricle", "LV", (0, 0, 255), (165, 47, 56), "87878005"),
        Structure(4, "right_atrium", "RA", (255, 255, 0), (19, 253, 148), "73829009"),
        Structure(5, "right_ventricle", "RV", (0, 255, 0), (131, 157, 254), "53085002"),
        Structure(6, "descending_aorta", "DA", (128, 0, 128), (252, 240, 9), "281130003"),
        Structure(7, "pulmonary_artery", "PA", (0, 255, 255), (111, 231, 238), "81040000"),
        Structure(8, "vena_cava", "VC", (255, 165, 0), (95, 39, 251), "35532006"),
    ),
    num_classes=9,
)

TUMOUR = LabelSet(
    "tumour",
    # What the encoder is trained on before the heart: white in its masks, as it is in the source's.
    (_BACKGROUND, Structure(1, "tumour", "TU", (255, 255, 255), (246, 54, 0), None)),
    num_classes=9,  # stated, since its networks and datasets have nine channels: their head fits the heart's
)

LABEL_SETS: dict[str, LabelSet] = {labels.name: labels for labels in (HEART, TUMOUR)}
"""Every label set by its name."""


def counts_as(merge):
    """Return which channel counts as which label, `[..., C, K]` bool, of `merge [..., C]`, an array of numpy or JAX."""
    return merge[..., :, None] == np.arange(merge.shape[-1])


def merge_labels(labels: np.ndarray, merge: Sequence[int]) -> np.ndarray:
    """Map a uint8 label map of any shape by `merge` (label c becomes `merge[c]`); 255 stays, ignored."""
    table = np.arange(IGNORED + 1, dtype=np.uint8)
    table[: len(merge)] = merge
    return table[labels]
