"""One heart with its vessels, ready to be set into a thorax: tissue codes, walls and the fat around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging import tissues as t

NONE = 255
"""Not part of the heart: what the thorax has there stays."""
ASCENDING, LEFT_ATRIUM, LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE, DESCENDING, PULMONARY, CAVA = (
    t.FIRST_POOL + label for label in range(1, 9)
)
CHAMBERS = (LEFT_ATRIUM, LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE)
WALLS_MM = {LEFT_VENTRICLE: 9.0, RIGHT_VENTRICLE: 3.5, LEFT_ATRIUM: 2.0, RIGHT_ATRIUM: 2.0, t.JOINED_BLOOD: 4.0}
"""Thickness of the walls of chambers where the source drew none."""
CLOSED_MM, FAT_MM = 14.0, 5.0
"""Gaps between the chambers up to twice the first are filled with fat, which reaches the second beyond the surface."""


@dataclass(frozen=True)
class Kit:
    """A heart. Axes as the thorax's.

    Attributes:
      name: the source's name for it.
      person: whose heart it is; several sources may show one person.
      codes: `[X, Y, Z]` uint8 tissue codes, `NONE` around it.
      spacing: mm per voxel.
    """

    name: str
    person: str
    codes: np.ndarray
    spacing: float

    def points(self, codes: int | Sequence[int]) -> np.ndarray:
        """Return the positions `[N, 3]` in mm, in the kit's own grid, of every eighth voxel of some tissues."""
        wanted = np.zeros(256, bool)
        wanted[codes if isinstance(codes, int) else list(codes)] = True
        return np.argwhere(wanted[self.codes[::2, ::2, ::2]]) * (2 * self.spacing)

    def ml(self, points: np.ndarray) -> float:
        """Return the volume that `points` stand for."""
        return len(points) * (2 * self.spacing) ** 3 / 1000


def around(codes: np.ndarray, spacing: float, walls: bool) -> np.ndarray:
    """Return a heart's codes with walls (where the source drew none) and pericardial fat around them.

    Args:
      codes: `[X, Y, Z]` uint8 with `NONE` where nothing is known.
      spacing: mm per voxel.
      walls: whether to build walls around the pools.
    """
    out = codes.copy()
    if walls:
        _build_walls(out, spacing)
    out[(out == NONE) & _closed(out != NONE, spacing)] = t.FAT
    return out


def _build_walls(codes: np.ndarray, spacing: float) -> None:
    """Wrap walls around the pools, in place: thick around ventricles, thin around vessels."""
    blood = (codes != NONE) & (codes >= t.FIRST_POOL)
    thin = ndimage.binary_dilation(blood, iterations=max(1, round(1.5 / spacing))) & (codes == NONE)
    chambers = np.isin(codes, list(WALLS_MM))
    room = int(np.ceil(max(WALLS_MM.values()) / spacing)) + 1
    box = tuple(slice(max(0, s.start - room), s.stop + room) for s in ndimage.find_objects(chambers.view(np.uint8))[0])
    part = codes[box]
    pool = blood[box]
    distance, nearest = ndimage.distance_transform_edt(~pool, sampling=spacing, return_indices=True)
    thickness = np.zeros(256, np.float32)
    for code, wall in WALLS_MM.items():
        thickness[code] = wall
    part[(part == NONE) & ~pool & (distance <= thickness[part[tuple(nearest)]])] = t.MYOCARDIUM
    codes[thin] = t.MYOCARDIUM


def _closed(mask: np.ndarray, spacing: float) -> np.ndarray:
    """Return a mask closed by a ball and widened, computed on a coarser grid."""
    step = max(1, round(2.5 / spacing))
    coarse = mask[::step, ::step, ::step]
    room = int(np.ceil(CLOSED_MM / (spacing * step))) + 1
    grown = ndimage.distance_transform_edt(~np.pad(coarse, room)) * spacing * step <= CLOSED_MM
    depth = ndimage.distance_transform_edt(grown) * spacing * step - (CLOSED_MM - FAT_MM)
    closed = depth.astype(np.float32)[room:-room, room:-room, room:-room]
    for axis, count in enumerate(mask.shape):
        closed = between(closed, np.arange(count) / step, axis)
    return closed > 0


def between(values: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    """Return values interpolated linearly along an axis at the positions `at`, which are kept within it."""
    last = values.shape[axis] - 1
    at = np.clip(at, 0, last)
    low = np.minimum(at.astype(int), max(last - 1, 0))
    part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return values.take(low, axis) * (1 - part) + values.take(np.minimum(low + 1, last), axis) * part
