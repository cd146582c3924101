"""The thorax that hearts are set into: the labels of one whole trunk, as tissues without its heart and vessels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.kit import NONE, Kit, around

SPACING = 1.5
COARSE = 2
"""Every how many voxels the distance from the rib cage is known."""
WALL = 250
"""Stands for what lies outside the rib cage: muscle, fat, skin or air by the distance from it."""
PAD = 30
"""Voxels of room on all sides, for the layers outside the rib cage."""
BELOW, ABOVE = 30, 15
"""Slices of the trunk that are used below the lungs and above them."""
OF_ABDOMEN = BELOW
"""Below this slice of those, fat between the organs is what it seems."""

_RIBS = tuple(range(54, 78))
_SPINE = tuple(range(93, 118))
_LUNGS = (45, 46, 47, 48, 49)
_HEART = (3, 4, 28, 39, 53, 89)
_TISSUES = (
    (_LUNGS, t.LUNG),
    ((1, 2, 13, 17, 18, 21, 42, 43, 50, 82, 84, 86, 90), t.ORGAN),
    ((5, 6, 16, 37, 38, 83), t.MUSCLE),
    ((7, 14, 15, 87, 88), t.OTHER_ARTERY),
    ((8, 9, 51), t.OTHER_VEIN),
    ((*_RIBS, *_SPINE, 11, 12, 79, 80, 85), t.BONE),
    (_HEART, t.FAT),
    ((44,), t.LIVER),
    ((91,), t.AIRWAY),
)
"""The trunk's label values (TotalSegmentator, version 2) and what tissue each is."""


@dataclass(frozen=True)
class Thorax:
    """A thorax without a heart. Axes: towards the patient's right, anterior, superior; positions in mm of this grid.

    Attributes:
      codes: `[X, Y, Z]` uint8 tissue codes, `WALL` outside the rib cage.
      outside: float32, distance from the rib cage's hull in mm, 0 within it, at every second voxel of each axis.
      tracks: centre lines of the trunk's own `descending` aorta, `superior` and `inferior` vena cava, `[N, 3]` in mm,
        from the top down.
      own: the trunk's own heart and vessels, in this grid.
      width: of the rib cage, mm.
    """

    codes: np.ndarray
    outside: np.ndarray
    tracks: dict[str, np.ndarray]
    own: Kit
    width: float


def make_thorax(labels: np.ndarray, eight: np.ndarray, myocardium: np.ndarray) -> Thorax:
    """Make the thorax of a trunk.

    Args:
      labels: `[X, Y, Z]` at 1.5 mm, TotalSegmentator's values.
      eight: the same grid, labels 0 to 8.
      myocardium: the same grid, not 0 in the wall of the left ventricle.
    """
    lungs = np.flatnonzero(np.isin(labels, _LUNGS).any(axis=(0, 1)))
    levels = slice(max(0, lungs[0] - BELOW), lungs[-1] + 1 + ABOVE)
    pads = [(PAD, PAD), (PAD, PAD), (0, 0)]
    labels, eight, myocardium = (
        np.pad(np.asarray(v)[:, :, levels].astype(np.uint8), pads) for v in (labels, eight, myocardium)
    )
    table = np.full(256, WALL, np.uint8)
    for values, code in _TISSUES:
        table[list(values)] = code
    codes = table[labels]
    heart = (eight > 0) | (myocardium > 0) | np.isin(labels, _HEART)
    codes[heart & (codes == WALL)] = t.FAT
    cage = np.isin(labels, (*_RIBS, *_SPINE, *_LUNGS, 85, 16, 5, 6))
    hull, outside = _rib_cage(cage)
    codes[(codes == WALL) & hull] = t.FAT
    _fill_unnamed(codes, hull, heart)
    _chest_wall(codes, hull, heart)
    codes[ndimage.binary_erosion(codes == t.BONE)] = t.MARROW
    tracks = {
        "descending": _track(eight == 6),
        "superior": _track(labels == 89),
        "inferior": _track(labels == 39),
    }
    width = float(np.median(hull.any(axis=1).sum(axis=0))) * SPACING
    return Thorax(codes, outside, tracks, _own_heart(eight, myocardium, labels), width)


def _finer(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    fine = coarse.repeat(COARSE, 0).repeat(COARSE, 1).repeat(COARSE, 2)
    return fine[: shape[0], : shape[1], : shape[2]]


def _rib_cage(cage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hull of every axial slice of ribs, sternum and spine, `[X, Y, Z]` bool, and the distance from it."""
    few = cage[::COARSE, ::COARSE, ::COARSE]
    hull = np.zeros_like(few)
    away = np.zeros(few.shape, np.float32)
    grid = np.stack(np.meshgrid(*map(np.arange, few.shape[:2]), indexing="ij"), -1).reshape(-1, 2)
    for z in range(few.shape[2]):
        points = np.argwhere(few[:, :, max(0, z - 4) : z + 5].any(axis=2))
        sides = ConvexHull(points).equations
        hull[:, :, z] = (grid @ sides[:, :2].T + sides[:, 2] <= 0.5).all(axis=1).reshape(few.shape[:2])
        away[:, :, z] = ndimage.distance_transform_edt(~hull[:, :, z]) * SPACING * COARSE
    return _finer(hull, cage.shape), ndimage.gaussian_filter(away, 1)


def _fill_unnamed(codes: np.ndarray, hull: np.ndarray, heart: np.ndarray) -> None:
    """Give large parts of the chest that nobody labelled, far from the heart, to the lung or liver that is nearest."""
    coarse = codes[::COARSE, ::COARSE, ::COARSE]
    far = ~ndimage.binary_dilation(heart[::COARSE, ::COARSE, ::COARSE], iterations=4)
    deep = ndimage.binary_erosion(hull[::COARSE, ::COARSE, ::COARSE], iterations=3)
    free = ndimage.binary_opening((coarse == t.FAT) & far & deep, iterations=3)
    # The spine and the gullet must not grow into the mediastinum: only what is off the middle is lung or liver.
    middle = np.flatnonzero((coarse == t.AIRWAY).any(axis=(1, 2))).mean()
    free &= (np.abs(np.arange(len(coarse)) - middle) > 12)[:, None, None]
    nearest = ndimage.distance_transform_edt(
        ~np.isin(coarse, (t.LUNG, t.LIVER)), return_distances=False, return_indices=True
    )
    grown = ndimage.grey_dilation(np.where(free, coarse[tuple(nearest)], 0), size=3)
    smooth = ndimage.median_filter(grown, size=3)
    fine = _finer(smooth, codes.shape)
    take = (codes == t.FAT) & hull & ~heart & (fine > 0)
    take[:, :, :OF_ABDOMEN] = False
    codes[take] = fine[take]


def _chest_wall(codes: np.ndarray, hull: np.ndarray, heart: np.ndarray) -> None:
    """Turn fat at the hull's border and around bones into muscle."""
    flat = ndimage.generate_binary_structure(3, 1)
    flat[1, 1, [0, 2]] = False
    near = hull & ~ndimage.binary_erosion(hull, flat, iterations=5)
    near |= ndimage.binary_dilation(codes == t.BONE, iterations=3)
    codes[(codes == t.FAT) & near & ~heart] = t.MUSCLE


def _track(mask: np.ndarray) -> np.ndarray:
    """Return the centres of a vessel's largest part in every slice, from the top down, `[N, 3]` in mm."""
    points = []
    for z in range(mask.shape[2] - 1, -1, -1):
        flat, count = ndimage.label(mask[:, :, z])
        if not count:
            continue
        sizes = np.bincount(flat.ravel())[1:]
        points.append((*np.argwhere(flat == 1 + int(np.argmax(sizes))).mean(axis=0), z))
    return ndimage.gaussian_filter1d(np.array(points, float).reshape(-1, 3) * SPACING, 2, axis=0)


def _own_heart(eight: np.ndarray, myocardium: np.ndarray, labels: np.ndarray) -> Kit:
    codes = np.full(eight.shape, NONE, np.uint8)
    codes[labels == 28] = t.MYOCARDIUM
    codes[myocardium > 0] = t.MYOCARDIUM
    codes[labels == 39] = t.FIRST_POOL + 8
    codes[eight > 0] = t.FIRST_POOL + eight[eight > 0]
    return Kit("trunk", "trunk", around(codes, SPACING, walls=False), SPACING)
