"""Whether CT shows blood with contrast: regions as bright, even and wide as chambers, and not framed by bone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

SLICES = 24
PIXEL_MM = 2.0
"""At most this many slices are examined, evenly spaced, their pixels averaged to about this size."""
BLUR_MM = 2.0
LOW_HU, HIGH_HU = 100.0, 800.0
"""Blood without contrast has 30 to 60 HU, and no other soft tissue above 90; a late phase has 115 to 190."""
WIDE_MM = 11.0
EVEN_HU = 80.0
"""Within a square this wide, blood varies by no more: noise and mixing. Spongy bone varies more, ribs are narrower."""
REACH_MM = 10.0
FRAMED_HU, FRAMED = 60.0, 0.4
"""A vertebra is framed by its cortex: brighter than its inside by FRAMED_HU, within REACH_MM, along this share of its
rim; blood borders mostly on darker walls, fat and lung."""
LEAST_CM2, MOST_LEAST_CM2 = 3.5, 8.0
"""Less is no blood. In coarse pixels a vertebra's cortex fades and its inside counts in part, so that more is asked."""
COARSEST_MM = 6.0


def least_cm2(spacing_mm: Sequence[float]) -> float:
    """Return the area in cm2 from which on `blood_cm2` means contrast."""
    return min(max(LEAST_CM2, 3.6 * (max(spacing_mm[1:]) - 2)), MOST_LEAST_CM2)


def thinned(hu: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, list[float]] | None:
    """Return at most `SLICES` slices `[N, y, x]` float32 and their pixels' size in mm; None where pixels are too large.

    Args:
      hu: `[Z, Y, X]`.
      spacing_mm: (z, y, x).
    """
    if max(spacing_mm[1:]) > COARSEST_MM or min(hu.shape[1:]) < 8:
        return None
    factors = [max(1, min(round(PIXEL_MM / mm), n // 8)) for mm, n in zip(spacing_mm[1:], hu.shape[1:], strict=True)]
    step = math.ceil(len(hu) / SLICES)
    rows, columns = (n // factor for n, factor in zip(hu.shape[1:], factors, strict=True))
    cut = hu[(len(hu) - 1) % step // 2 :: step, : rows * factors[0], : columns * factors[1]]
    # Sums of strided views: several times as fast as a mean over the axes of small blocks.
    parts = (cut[:, y :: factors[0], x :: factors[1]] for y in range(factors[0]) for x in range(factors[1]))
    planes = np.zeros((len(cut), rows, columns), np.float32)
    for part in parts:
        planes += part
    planes /= factors[0] * factors[1]
    return planes, [mm * factor for mm, factor in zip(spacing_mm[1:], factors, strict=True)]


def blood_cm2(hu: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
    """Return the area in cm2 of what looks like blood with contrast: the mean of the eighth of the slices with most.

    Each slice is judged by itself, so that one is enough and their distance does not matter. A chest without contrast
    has less than 1 cm2, one with contrast 5 to 100 cm2. None where pixels are too large to say.

    Args:
      hu: `[Z, Y, X]`.
      spacing_mm: (z, y, x).
    """
    thin = thinned(hu, spacing_mm)
    if thin is None:
        return None
    planes, pixel = thin

    def window(mm: float) -> tuple[int, ...]:
        return (1, *(2 * max(1, round(mm / 2 / one)) + 1 for one in pixel))

    smooth = ndimage.gaussian_filter(planes, (0, *(BLUR_MM / one for one in pixel)))
    low, high = (one(smooth, window(WIDE_MM)) for one in (ndimage.minimum_filter, ndimage.maximum_filter))
    even = (high - low < EVEN_HU) & ((low + high) / 2 > LOW_HU) & (high < HIGH_HU)
    # The middle of an even square represents the square.
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = True
    regions, count = ndimage.label(ndimage.maximum_filter(even, window(WIDE_MM)), in_plane)
    if not count:
        return 0.0
    numbers = np.arange(1, count + 1)
    inside = ndimage.mean(smooth, regions, numbers)
    rim = np.where(regions == 0, ndimage.maximum_filter(regions, (1, 3, 3)), 0)
    brighter = ndimage.maximum_filter(planes, window(REACH_MM)) > np.concatenate([[np.inf], inside])[rim] + FRAMED_HU
    # A region that fills its slice has no rim.
    is_bone = np.nan_to_num(ndimage.mean(brighter, rim, numbers)) >= FRAMED
    is_blood = even & ~np.concatenate([[True], is_bone])[regions]
    areas = np.sort(is_blood.sum(axis=(1, 2))) * pixel[0] * pixel[1] / 100
    return float(areas[-max(1, len(areas) // 8) :].mean())
