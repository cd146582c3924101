"""The tissues that images are synthesised from: one code each, and the heart's label that a code stands for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART, IGNORED


class Tissue(NamedTuple):
    """One tissue of a tissue map.

    Attributes:
      code: its value in the map.
      name: a standard term.
      label: what a pixel of it is labelled; 255 where the structures were joined and cannot be distinguished.
      blood: whether contrast medium reaches it.
    """

    code: int
    name: str
    label: int = 0
    blood: bool = False


AIR, LUNG, FAT, MUSCLE, BONE, MARROW, LIVER, MYOCARDIUM, ORGAN, AIRWAY = range(10)
FIRST_POOL = 10
"""Code of the pool with label k is FIRST_POOL + k, for k = 1 to 8."""
LUNG_VESSEL, OTHER_VEIN, OTHER_ARTERY, JOINED_BLOOD = 20, 21, 22, 23
NUM_CODES = 24

TISSUES: tuple[Tissue, ...] = (
    Tissue(AIR, "air around the body"),
    Tissue(LUNG, "lung"),
    Tissue(FAT, "fat"),
    Tissue(MUSCLE, "muscle and other soft tissue"),
    Tissue(BONE, "cortical bone"),
    Tissue(MARROW, "spongy bone"),
    Tissue(LIVER, "liver"),
    Tissue(MYOCARDIUM, "wall of the heart or of a vessel"),
    Tissue(ORGAN, "other organ: spleen, kidney, stomach, oesophagus"),
    Tissue(AIRWAY, "trachea and bronchi"),
    *(
        Tissue(FIRST_POOL + s.label, f"blood of the {s.name.replace('_', ' ')}", s.label, True)
        for s in HEART.foreground
    ),
    Tissue(LUNG_VESSEL, "vessel in the lung", 0, True),
    Tissue(OTHER_VEIN, "vein that is none of the eight structures", 0, True),
    Tissue(OTHER_ARTERY, "artery that is none of the eight structures", 0, True),
    Tissue(JOINED_BLOOD, "blood of chambers that the source joined", IGNORED, True),
)
"""Codes without a tissue (10, 19) do not occur in maps."""


def labels_of_codes() -> np.ndarray:
    """Return `[256]` uint8: code -> label. Unknown codes are ignored (255)."""
    table = np.full(256, IGNORED, np.uint8)
    for tissue in TISSUES:
        table[tissue.code] = tissue.label
    return table


LABEL_OF = labels_of_codes()
