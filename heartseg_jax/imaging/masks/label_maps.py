"""What the names, codes and numbers of a source mean, and which structures are unknown because it lacks them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.imaging.masks.aorta import divide_aorta

AORTA, SUPERIOR_CAVA, INFERIOR_CAVA, APPENDAGE = 101, 102, 103, 104
"""Parts and unions of structures, found among labels until `resolve_parts` has resolved them. Never in a dataset."""
ASCENDING, LEFT_ATRIUM, LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE, DESCENDING, PULMONARY, CAVA = range(1, 9)
PART_OF = {AORTA: ASCENDING, SUPERIOR_CAVA: CAVA, INFERIOR_CAVA: CAVA, APPENDAGE: LEFT_ATRIUM}

WORDS: dict[str, int] = {
    **{name: label for label, name in enumerate(HEART.names)},
    **{structure.short.lower(): structure.label for structure in HEART.foreground},
    "ignored": IGNORED,
    "aorta": AORTA,
    "superior_vena_cava": SUPERIOR_CAVA,
    "inferior_vena_cava": INFERIOR_CAVA,
    "left_atrial_appendage": APPENDAGE,
    "myocardium": 0,
}
"""By name, lower case with underscores: in users' label maps, and as names of segments."""

CODES: dict[str, int] = {
    **{structure.snomed: structure.label for structure in HEART.foreground if structure.snomed},
    "15825003": AORTA,
    "48345005": SUPERIOR_CAVA,
    "64131007": INFERIOR_CAVA,
    "33626005": APPENDAGE,
}
"""By SNOMED CT: the structures' codes, the whole aorta, each vena cava, and the left atrium's appendage."""

FORM = 'a JSON of the form {"500": "left_ventricle", ...}'


def meaning_of(word: str) -> int | None:
    """Return the label that a name means, a part such as `AORTA`, or None where it is no structure's."""
    return WORDS.get(word.strip().lower().replace(" ", "_").replace("-", "_"))


def whole_structures(parts: Collection[int]) -> set[int]:
    """Return the labels, and `AORTA`, that a source labels completely if it labels `parts`.

    One vena cava of two is not the structure, and the appendage is not the atrium: with the rest as background the
    network would learn that there is none.
    """
    known = {part for part in parts if 0 < part < HEART.num_classes} | ({AORTA} & set(parts))
    return known | ({CAVA} if {SUPERIOR_CAVA, INFERIOR_CAVA} <= set(parts) else set())


def merge_for(parts: Collection[int]) -> tuple[int, ...]:
    """Return the `merge` of a source that labels only `parts`: a structure not labelled completely is unknown.

    With `AORTA` among them both parts of the aorta count as one.
    """
    known = whole_structures(parts)
    merge = [label if label in known or label == 0 else 0 for label in HEART.all_known]
    if AORTA in known:
        merge[ASCENDING], merge[DESCENDING] = ASCENDING, ASCENDING
    return tuple(merge)


def paint(labels: np.ndarray, inside: np.ndarray, label: int) -> np.ndarray:
    """Write a structure into `labels`, in place; return where another structure was already (to be ignored).

    Ignored pixels are overwritten, and the parts of one structure may overlap.
    """
    old = labels[inside]
    other = (old != 0) & (old != IGNORED)
    for value in np.unique(old[other]):
        if PART_OF.get(int(value), int(value)) == PART_OF.get(label, label):
            other &= old != value
    claimed_twice = np.zeros(labels.shape, bool)
    claimed_twice[inside] = other
    labels[inside] = label
    return claimed_twice


class Resolved(NamedTuple):
    """Labels 0 to 8 and 255, the `merge` they need, and what was done with an undivided aorta ('' without one)."""

    labels: np.ndarray
    merge: tuple[int, ...]
    aorta: str
    limbs: int = 0


def resolve_parts(
    labels: np.ndarray, spacing_mm: tuple[float, float, float] | None, merge: tuple[int, ...]
) -> Resolved:
    """Replace parts and unions among patient-axial `labels [Z, Y, X]` by structures.

    Parts of a structure that is not labelled completely (see `merge`) become 0. An `AORTA` becomes its ascending and
    descending part where its shape allows. Where it does not, or `spacing_mm (z, y, x)` is None (the slices are no
    volume), all of it is label 1, and the `merge` counts the descending part as the ascending one.
    """
    table = np.arange(256, dtype=np.uint8)
    for part, structure in PART_OF.items():
        table[part] = structure if merge[structure] else 0
    aorta = labels == AORTA
    if not aorta.any():
        return Resolved(table[labels], merge, "")
    labels = table[labels]
    labels[aorta] = ASCENDING
    ascending, limbs, reason = None, 0, "the slices are no volume"
    if spacing_mm is not None:
        ascending, limbs, reason = divide_aorta(aorta, spacing_mm)
    parts = list(merge)
    parts[ASCENDING], parts[DESCENDING] = ASCENDING, ASCENDING if ascending is None else DESCENDING
    if ascending is not None:
        labels[aorta & ~ascending] = DESCENDING
        reason = "divided at the middle of the arch"
    return Resolved(labels, tuple(parts), reason, limbs)


def read_label_map(path: str | Path) -> dict[str, int]:
    """Return {value, name or number in the files: label} of a JSON {"500": "left_ventricle", ...}.

    Meanings are names of `WORDS`; 0 is background where it is not named.

    Raises:
      UserError: it cannot be read, or names something that is no structure.
    """
    entries = read_json(path, fix=f"give {FORM}")
    found = {str(value).strip(): str(name) for value, name in entries.items()}
    if len(found) < len(entries):
        raise UserError(f"{path} names a value twice")
    meanings: dict[str, int] = {"0": 0}
    for value, name in found.items():
        meaning = meaning_of(name)
        if meaning is None:
            raise UserError(f"{path} names '{name}', which is none of {', '.join(WORDS)}")
        meanings[value] = meaning
    return meanings


def by_number(meanings: Mapping[str, int], where: str | Path) -> dict[int, int]:
    """Return the map with its keys as the whole numbers that label maps hold; raise UserError for other keys."""
    numbers: dict[int, int] = {}
    for value, label in meanings.items():
        try:
            number = int(value)
        except ValueError:
            raise UserError(f"{where} names the value '{value}', no whole number; give {FORM}") from None
        if numbers.setdefault(number, label) != label:
            raise UserError(f"{where} gives the value {number} two meanings")
    return numbers


OWN: dict[int, int] = {value: value for value in (*HEART.all_known, IGNORED)}
"""The map of files that hold the project's own labels."""


def translated(values: np.ndarray, meanings: Mapping[int, int], where: str) -> np.ndarray:
    """Return `values` (whole numbers) as uint8 labels, 255 or `AORTA`.

    Raises:
      UserError: a value has no meaning; `where` names the file.
    """
    found = np.unique(values)
    if meanings is OWN and IGNORED in found and set(found.tolist()) <= {0, IGNORED}:
        raise UserError(
            f"{where} holds 0 and {IGNORED} only: that may be one structure or a zone to ignore; say which with "
            f'--labels=map.json, such as {{"{IGNORED}": "left_atrium"}}'
        )
    strange = [int(value) for value in found if int(value) not in meanings]
    if strange:
        raise UserError(
            f"{where} has values without a meaning: {', '.join(map(str, strange[:8]))}; give their "
            "meaning with --labels=map.json"
        )
    own = np.zeros(values.shape, np.uint8)
    for value in found:  # value by value: a table of places would be eight times as large as the labels
        if meanings[int(value)]:
            own[values == value] = meanings[int(value)]
    return own
