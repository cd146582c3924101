"""The anatomical table that everything reads: label, name, colours, code. Nothing else lives here."""

from __future__ import annotations

from typing import NamedTuple

IGNORED = 255
"""Label of a zone that is nobody's: left out of loss and score."""


class Structure(NamedTuple):
    """One row of the table. `mask_rgb` is the colour in mask files, `display_rgb` is colour-blind-safe."""

    label: int
    name: str
    short: str
    mask_rgb: tuple[int, int, int]
    display_rgb: tuple[int, int, int]
    snomed: str | None


STRUCTURES: tuple[Structure, ...] = (
    Structure(0, "background", "BG", (0, 0, 0), (0, 0, 0), None),
    Structure(1, "ascending_aorta", "AA", (255, 255, 255), (246, 54, 0), "54247002"),
    Structure(2, "left_atrium", "LA", (255, 0, 0), (164, 28, 127), "82471001"),
    Structure(3, "left_ventricle", "LV", (0, 0, 255), (165, 47, 56), "87878005"),
    Structure(4, "right_atrium", "RA", (255, 255, 0), (19, 253, 148), "73829009"),
    Structure(5, "right_ventricle", "RV", (0, 255, 0), (131, 157, 254), "53085002"),
    Structure(6, "descending_aorta", "DA", (128, 0, 128), (252, 240, 9), "281130003"),
    Structure(7, "pulmonary_artery", "PA", (0, 255, 255), (111, 231, 238), "81040000"),
    Structure(8, "vena_cava", "VC", (255, 165, 0), (95, 39, 251), "35532006"),
)

NUM_LABELS = len(STRUCTURES)
HEART, TUMOUR = "heart", "tumour"
FOREGROUND: tuple[Structure, ...] = STRUCTURES[1:]
NAMES: tuple[str, ...] = tuple(structure.name for structure in STRUCTURES)

TASKS: dict[str, tuple[Structure, ...]] = {
    HEART: FOREGROUND,
    # What the encoder is trained on before the heart: white in its masks, as it is in the source's.
    TUMOUR: (Structure(1, "tumour", "TU", (255, 255, 255), (246, 54, 0), None),),
}
"""What datasets are of: the structures beside the background, by task. Labels mean what their dataset's task says."""

ALL_KNOWN: tuple[int, ...] = tuple(range(NUM_LABELS))
"""The `merge` of a source that labels every structure: channel c counts as c."""


def structures(task: str = HEART) -> tuple[Structure, ...]:
    """Return the structures beside the background that labels of this task stand for."""
    return TASKS[task]


def check_merge(merge: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    """Return `merge` as a tuple of nine labels, or raise ValueError.

    `merge[c]` is the label that channel c counts as: 8 -> 4 for a source whose right atrium holds the
    cavae, 6 -> 1 for an undivided aorta, -> 0 for a structure that is not labelled at all. What a
    channel is merged into must itself stand (`merge[merge[c]] == merge[c]`).
    """
    if isinstance(merge, str) or not all(isinstance(m, int) and not isinstance(m, bool) for m in merge):
        raise ValueError(f"merge must hold whole numbers, not {merge!r}")
    values = tuple(int(m) for m in merge)
    if len(values) != NUM_LABELS or not all(0 <= m < NUM_LABELS for m in values):
        raise ValueError(f"merge needs {NUM_LABELS} labels from 0 to {NUM_LABELS - 1}, not {values}")
    if values[0] != 0:
        raise ValueError("merge[0] must be 0: background is never part of a structure")
    for channel, target in enumerate(values):
        if values[target] != target:
            raise ValueError(f"merge sends {NAMES[channel]} to {NAMES[target]}, which is itself merged away")
    return values
