"""Distances between the surfaces of two masks, in mm. Labels and patients are unknown here."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float, float]:
    """HD95, ASSD and NSD of two masks, over surface elements weighted by their area.

    Every element's distance is to the nearest element of the other surface. HD95 is the larger of the two directions'
    95th percentiles; ASSD the mean over both surfaces' elements together; NSD the share of both surfaces'
    area that lies within the tolerance of the other (Nikolov et al. 2021; Reinke et al. 2024,
    doi:10.1038/s41592-023-02150-0).

    The bool masks are 2-D or 3-D, with one spacing per axis; a distance equal to the tolerance is within it. Returns
    (hd95_mm, assd_mm, nsd). Raises ValueError where shapes or spacing do not agree, or a mask is empty.
    """
    if truth.shape != prediction.shape or truth.ndim != len(spacing_mm) or truth.ndim not in (2, 3):
        raise ValueError(f"masks of shapes {truth.shape} and {prediction.shape}, {len(spacing_mm)} spacings")
    if not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"spacing must be positive and finite, not {tuple(spacing_mm)}")
    if not truth.any() or not prediction.any():
        raise ValueError("an empty mask has no surface")
    # Both surfaces lie in the box of the union, so nothing outside it can be nearest.
    (box,) = ndimage.find_objects((truth | prediction).astype(np.uint8))
    areas = [surface_elements(mask[box], spacing_mm) for mask in (truth, prediction)]
    found = []
    for own, other in (areas, areas[::-1]):
        to_other = ndimage.distance_transform_edt(other == 0, sampling=spacing_mm)
        on_surface = own > 0
        found.append((to_other[on_surface], own[on_surface]))
    area = sum(float(a.sum()) for _, a in found)
    hd95 = max(_percentile(d, a, 0.95) for d, a in found)
    assd = sum(float(d @ a) for d, a in found) / area
    # A hair above the tolerance: a distance of exactly 2 mm may come out of the square root as 2.0000000001.
    nsd = sum(float(a[d <= tolerance_mm + 1e-9].sum()) for d, a in found) / area
    return hd95, assd, min(nsd, 1.0)


def _percentile(distances: np.ndarray, areas: np.ndarray, share: float) -> float:
    """Return the smallest distance that at least `share` of the area does not exceed."""
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(areas[order])
    index = int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12)))
    return float(distances[order[min(index, len(order) - 1)]])
