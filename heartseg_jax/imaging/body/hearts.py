"""Hearts of two collections as kits: real ones with their vessels (Toronto), modelled ones with their walls (KCL)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.kit import (
    ASCENDING,
    CAVA,
    CHAMBERS,
    DESCENDING,
    LEFT_ATRIUM,
    LEFT_VENTRICLE,
    NONE,
    PULMONARY,
    RIGHT_ATRIUM,
    RIGHT_VENTRICLE,
    Kit,
    around,
)
from heartseg_jax.imaging.masks.aorta import divide_aorta

EIGHT = {label: t.FIRST_POOL + label for label in range(1, 9)}
TORONTO = {
    1: LEFT_VENTRICLE,
    2: RIGHT_VENTRICLE,
    3: LEFT_ATRIUM,
    4: RIGHT_ATRIUM,
    5: ASCENDING,
    6: PULMONARY,
    **dict.fromkeys((7, 8, 9, 11, 12, 13, 14), t.JOINED_BLOOD),
    10: CAVA,
    15: t.ORGAN,
    16: t.AIRWAY,
}
"""The collection's own values; chambers that it joins, or names by their outlet, are no structure of ours."""
KCL = {
    1: LEFT_VENTRICLE,
    2: RIGHT_VENTRICLE,
    3: LEFT_ATRIUM,
    4: RIGHT_ATRIUM,
    5: ASCENDING,
    6: PULMONARY,
    **dict.fromkeys(range(9, 15), t.MYOCARDIUM),
}
ROOM_MM = 14
"""Of room around a heart, for its walls and fat."""
WIDE_MM = 9.0
"""Where a right atrium is narrower than twice this, it may be a vena cava that the source did not divide from it."""
BRANCH_MM = 5.0
"""Above the heart, an aorta narrower than twice this is one of the arch's branches."""


def real_heart(name: str, person: str, labels: np.ndarray, spacing: float, eight: bool) -> Kit:
    """Return the kit of a real heart's blood, `[X, Y, Z]`; walls and fat are built around it.

    Args:
      name: see `Kit`.
      person: see `Kit`.
      labels: of the eight structures, or in the collection's own values.
      spacing: mm per voxel.
      eight: which of the two.
    """
    codes = _with_room(labels, EIGHT if eight else TORONTO, spacing)
    if not eight:
        _divide_aorta(codes, spacing)
        codes[_narrow(codes == RIGHT_ATRIUM, WIDE_MM, spacing)] = t.JOINED_BLOOD
    branches = _narrow((codes == ASCENDING) | (codes == DESCENDING), BRANCH_MM, spacing)
    heart = np.flatnonzero(np.isin(codes[::4, ::4, ::4], (*CHAMBERS, t.JOINED_BLOOD)).any(axis=(0, 1)))
    branches[:, :, : 4 * heart[-1]] = False
    codes[branches] = t.OTHER_ARTERY
    return Kit(name, person, around(codes, spacing, walls=True), spacing)


def modelled_heart(name: str, labels: np.ndarray, spacing: float) -> Kit:
    """Return the kit of a modelled heart, which has walls, `[X, Y, Z]`; see `real_heart`."""
    codes = _with_room(labels, KCL, spacing)
    codes[(codes == NONE) & ndimage.binary_closing(codes != NONE, iterations=2)] = t.MYOCARDIUM
    return Kit(name, name, around(codes, spacing, walls=False), spacing)


def _narrow(mask: np.ndarray, radius: float, spacing: float) -> np.ndarray:
    """Return the parts of a mask in which no ball of `radius` mm fits."""
    out = np.zeros_like(mask)
    found = ndimage.find_objects(mask.view(np.uint8))
    if found:
        part = np.pad(mask[found[0]], 1)
        core = ndimage.distance_transform_edt(part, sampling=spacing) > radius
        if core.any():
            wide = ndimage.distance_transform_edt(~core, sampling=spacing) <= radius + spacing
            out[found[0]] = (part & ~wide)[1:-1, 1:-1, 1:-1]
    return out


def _with_room(labels: np.ndarray, table: Mapping[int, int], spacing: float) -> np.ndarray:
    room = round(ROOM_MM / spacing)
    codes = np.full(256, NONE, np.uint8)
    codes[list(table)] = list(table.values())
    return codes[np.pad(np.asarray(labels).astype(np.uint8), room)]


def _divide_aorta(codes: np.ndarray, spacing: float) -> None:
    """Call the aorta's part behind the arch descending, in place; an aorta that cannot be divided is none of ours."""
    aorta = codes == ASCENDING
    ascending = divide_aorta(aorta.transpose(2, 1, 0)[:, ::-1, ::-1], (spacing,) * 3).ascending
    if ascending is None:
        codes[aorta] = t.JOINED_BLOOD
    else:
        codes[aorta & ~ascending[:, ::-1, ::-1].transpose(2, 1, 0)] = DESCENDING
