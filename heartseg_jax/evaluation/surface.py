"""Distances between the surfaces of two masks, in mm or pixels. Labels and patients are unknown here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage


def surface_elements(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Area of the mask's surface at every corner where voxels meet.

    The surface runs through the corners of voxels whose neighbours (8 in 3-D, 4 in 2-D) are not all equal. A corner's
    element is the Euclidean norm of the areas of the voxel faces that meet there, by axis, each face shared by its
    corners. In 2-D that is the length that marching squares draws; in 3-D a flat or 45-degree surface has its
    exact area. Weighting by area keeps an anisotropic grid from counting its dense direction more
    (Nikolov et al. 2021, doi:10.2196/26151, who take the areas from a marching-cubes table).

    Everything beyond the mask's edge is outside. Returns float64, one longer than `mask` along every axis; 0 off the
    surface, else mm^2 (mm in 2-D).
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    total = np.zeros(tuple(n - 1 for n in padded.shape))
    for axis in range(padded.ndim):
        faces = np.diff(padded, axis=axis).astype(np.float64)
        for other in range(padded.ndim):
            if other != axis:
                along = faces.swapaxes(0, other)
                faces = (along[:-1] + along[1:]).swapaxes(0, other)
        area = math.prod(s for other, s in enumerate(spacing_mm) if other != axis)
        total += (faces * (area / 2 ** (padded.ndim - 1))) ** 2
    return np.sqrt(total)


class Border(NamedTuple):
    """One mask's surface elements beside the other mask's, as arrays of equal length.

    Attributes:
      distances: to the nearest element of the other surface, at least 0.
      areas: of the elements.
      shifts: the distances with a sign: positive where the predicted border lies outside the true one.
      counted: whether the element can be a real border: it touches neither the edge of the image nor an ignored voxel.
    """

    distances: np.ndarray
    areas: np.ndarray
    shifts: np.ndarray
    counted: np.ndarray


def borders(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], ignored: np.ndarray | None = None
) -> tuple[Border, Border]:
    """Return the borders of the truth and of the prediction, bool masks in 2-D or 3-D with one spacing per axis.

    A corner on one surface lies either on the other one too (distance 0) or amid voxels that the other mask has all or
    none of, which decides the sign: a predicted element outside the truth and a true one inside the prediction are
    positive, the opposite negative. `ignored` voxels are background in both masks.

    Raises ValueError where shapes or spacing do not agree, or a mask is empty.
    """
    if truth.shape != prediction.shape or truth.ndim != len(spacing_mm) or truth.ndim not in (2, 3):
        raise ValueError(f"masks of shapes {truth.shape} and {prediction.shape}, {len(spacing_mm)} spacings")
    if not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"spacing must be positive and finite, not {tuple(spacing_mm)}")
    if not truth.any() or not prediction.any():
        raise ValueError("an empty mask has no surface")
    # Both surfaces lie in the box of the union, so nothing outside it can be nearest.
    (box,) = ndimage.find_objects((truth | prediction).astype(np.uint8))
    unknown = np.zeros(truth.shape, dtype=bool) if ignored is None else ignored
    around = np.pad(unknown, 1, constant_values=True)[tuple(slice(s.start, s.stop + 2) for s in box)]
    for axis in range(around.ndim):  # of all voxels that meet at a corner
        along = around.swapaxes(0, axis)
        around = (along[:-1] | along[1:]).swapaxes(0, axis)
    masks = [mask[box] for mask in (truth, prediction)]
    areas = [surface_elements(mask, spacing_mm) for mask in masks]
    found = []
    for own, other, mask, inside in ((*areas, masks[1], 1.0), (*areas[::-1], masks[0], -1.0)):
        on_surface = own > 0
        distances = ndimage.distance_transform_edt(other == 0, sampling=spacing_mm)[on_surface]
        # Off its surface a mask has all or none of the voxels at a corner: any of them will do.
        within = np.pad(mask, 1)[(slice(1, None),) * mask.ndim][on_surface]
        shifts = np.where(within, inside, -inside) * distances
        found.append(Border(distances, own[on_surface], shifts, ~around[on_surface]))
    return found[0], found[1]


def surface_distances(pair: tuple[Border, Border], tolerance_mm: float) -> tuple[float, float, float]:
    """HD95, ASSD and NSD of two `borders`, over surface elements weighted by their area.

    Every element's distance is to the nearest element of the other surface. HD95 is the larger of the two directions'
    95th percentiles; ASSD the mean over both surfaces' elements together; NSD the share of both surfaces'
    area that lies within the tolerance of the other (Nikolov et al. 2021; Reinke et al. 2024,
    doi:10.1038/s41592-023-02150-0). A distance equal to the tolerance is within it. Returns (hd95_mm, assd_mm, nsd).
    """
    area = sum(float(border.areas.sum()) for border in pair)
    hd95 = max(_percentile(border.distances, border.areas, 0.95) for border in pair)
    assd = sum(float(border.distances @ border.areas) for border in pair) / area
    # A hair above the tolerance: a distance of exactly 2 mm may come out of the square root as 2.0000000001.
    nsd = sum(float(border.areas[border.distances <= tolerance_mm + 1e-9].sum()) for border in pair) / area
    return hd95, assd, min(nsd, 1.0)


def mean_shift(pairs: Iterable[tuple[Border, Border]]) -> float | None:
    """Return the mean signed distance between predicted and true borders: positive where predictions are too large.

    It is the ASSD with signs (`Border.shifts`), over the counted elements of all `pairs`; None where there is none. A
    straight edge along the grid that is predicted one pixel too far inside gives exactly -1 pixel; a disc, whose border
    is a staircase, about -0.85. A shifted mask has as much before as behind it: 0.

    Distances to elements that are not counted are: where a structure goes on beyond the image, its border is at least
    that far away.
    """
    moved = area = 0.0
    for border in (border for pair in pairs for border in pair):
        moved += float(border.shifts[border.counted] @ border.areas[border.counted])
        area += float(border.areas[border.counted].sum())
    return moved / area if area else None


def _percentile(distances: np.ndarray, areas: np.ndarray, share: float) -> float:
    """Return the smallest distance that at least `share` of the area does not exceed."""
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(areas[order])
    index = int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12)))
    return float(distances[order[min(index, len(order) - 1)]])
