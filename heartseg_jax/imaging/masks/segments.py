"""Segments by name, as annotation programs write them: which structure each is. No files here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import CODES, WORDS, meaning_of

NAME_OF = {label: word for word, label in reversed(WORDS.items())}
"""A label's longest-known word, for messages."""


class Segments(NamedTuple):
    """Labels `[Z, Y, X]` uint8 (`label_maps.PART_OF` among them) on the image's grid, and what was seen on the way.

    Attributes:
      labels: 255 where two structures claim a voxel.
      known: the labels of all segments, also where no voxel has them.
      strange: how many segments are of other anatomy: background.
      overlapping: how many voxels two structures claim; excluded from loss and score.
    """

    labels: np.ndarray
    known: frozenset[int]
    strange: int
    overlapping: int


def structure_of(number: int | str, name: str, code: str, meanings: Mapping[str, int], where: str) -> int | None:
    """Return the label of a segment, or None where it is other anatomy.

    Args:
      number: the segment's number or label value.
      name: as the file has it; upper case, blanks and hyphens do not matter.
      code: its SNOMED CT code, '' without one.
      meanings: the user's own (number or name -> label), which take precedence.
      where: the file, for messages.

    Raises:
      UserError: the name is one structure's and the code another's.
    """
    own = meanings.get(str(number), meanings.get(name.strip()))
    if own is not None:
        return own
    by_code, by_name = CODES.get(code), meaning_of(name)
    if by_code is not None and by_name is not None and by_code != by_name:
        raise UserError(
            f"segment {number} of {where} is called '{NAME_OF[by_name]}' and has the code of {NAME_OF[by_code]} "
            f'({code}): correct one of them, or say which it is by --labels=map.json, such as {{"{number}": '
            f'"{NAME_OF[by_name]}"}}'
        )
    return by_name if by_code is None else by_code


def known_of(structures: Mapping[int, int | None], where: str) -> frozenset[int]:
    """Return the labels of segments (number -> label). Raises UserError where none is a structure's."""
    known = frozenset(label for label in structures.values() if label not in (None, 0, IGNORED))
    if not known:
        raise UserError(
            f"none of the {len(structures)} segments of {where} is a structure of the heart that is known here; say "
            'what each is by --labels=map.json, such as {"1": "left_ventricle"}'
        )
    return known
