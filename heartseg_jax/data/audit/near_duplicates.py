"""Slices that are nearly the same picture, whatever their size, window or compression: a perceptual hash. No files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft

from heartseg_jax.imaging.tissues import (
    BONE,
    FAT,
    FIRST_POOL,
    LIVER,
    LUNG,
    MARROW,
    MUSCLE,
    MYOCARDIUM,
    ORGAN,
    TISSUES,
)
from heartseg_jax.imaging.volume import resample_slices, scale_for

SIDE = 32
"""Pixels of the thumbnail."""
MOST_BITS = 10
LEAST_CORRELATION = 0.97
"""By `benchmarks/near_duplicates.py` on 21 real and 1,440 phantom slices: the most similar of two patients correlate by
0.81 and 0.85; copies at half the size, as JPEG, under another window or gamma by 0.976 and more, with at most 6 of 63
bits different."""
CHUNK = 2**22
MOST = 200
"""At most this many pairs are returned."""
WINDOW_HU = (-200.0, 600.0)
"""Window in which slices in HU are compared: from fat to contrast."""


def _greys() -> np.ndarray:
    """Return `[256]` float32: the grey, from 0 to 1, in which a tissue code is shown."""
    table = np.zeros(256, np.float32)
    solid = {FAT: 0.15, MUSCLE: 0.32, BONE: 0.95, MARROW: 0.5, LIVER: 0.42, MYOCARDIUM: 0.38, ORGAN: 0.35, LUNG: 0.04}
    for tissue in TISSUES:
        # Pools differ a little, so that their borders are seen.
        table[tissue.code] = 0.62 + 0.012 * (tissue.code - FIRST_POOL) if tissue.blood else solid.get(tissue.code, 0.0)
    return table


GREY_OF = _greys()


def brightness(images: np.ndarray, intensity: str) -> np.ndarray:
    """Return `images [N, H, W]` in HU or 8 bits as float32 from 0 to 1, to be compared or shown.

    The window of 8-bit slices is unknown: each is scaled by the range of what is brighter than air. Tissue maps are
    shown with the greys of a contrast CT.
    """
    if intensity == "tissue":
        return GREY_OF[np.asarray(images)]
    some = np.asarray(images, np.float32)
    if intensity == "HU":
        return np.clip((some - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1)
    tops = [np.percentile(image[image > 0], 99) if (image > 0).any() else 255.0 for image in some]
    return np.clip(some / np.array(tops, np.float32)[:, None, None], 0, 1)


class Prints(NamedTuple):
    """Of N slices: `codes [N]` uint64 and `thumbnails [N, SIDE * SIDE]` uint8."""

    codes: np.ndarray
    thumbnails: np.ndarray


def prints_of(images: np.ndarray) -> Prints:
    """Return the prints of `images [N, H, W]`, brightness from 0 to 1.

    The code is that of Zauner (2010): the signs of the lowest 8x8 cosine frequencies but the mean, about their median.
    """
    height, width = images.shape[1:]
    small = resample_slices(images.astype(np.float32), SIDE, scale_for(height, width, None, SIDE, 0.0), 0.0)
    low = fft.dctn(small, axes=(1, 2))[:, :8, :8].reshape(len(small), 64)[:, 1:]
    signs = low > np.median(low, axis=1, keepdims=True)
    codes = (signs.astype(np.uint64) << np.arange(63, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    return Prints(codes, np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8).reshape(len(small), -1))


class NearDuplicate(NamedTuple):
    """Two slices, by their numbers, and their correlation: 1 is the same picture."""

    one: int
    other: int
    correlation: float


def near_duplicates(prints: Prints, groups: Sequence[int], most: int = MOST) -> list[NearDuplicate]:
    """Return at most `most` pairs of nearly equal slices of different `groups [N]`, the most similar first.

    Slices without any structure (air) resemble each other and are left out.
    """
    names = np.asarray(groups)
    kept = np.flatnonzero(prints.thumbnails.std(axis=1) >= 2)
    found: list[NearDuplicate] = []
    for group in np.unique(names[kept])[:-1]:
        own, others = kept[names[kept] == group], kept[names[kept] > group]
        step = max(1, CHUNK // len(others))
        for start in range(0, len(own), step):
            rows = own[start : start + step]
            differ = np.bitwise_count(prints.codes[rows][:, None] ^ prints.codes[others][None])
            for a, b in zip(*np.nonzero(differ <= MOST_BITS), strict=True):
                value = correlation(prints.thumbnails[rows[a]], prints.thumbnails[others[b]])
                if value >= LEAST_CORRELATION:
                    found.append(NearDuplicate(int(rows[a]), int(others[b]), value))
            found = sorted(found, key=lambda pair: -pair.correlation)[:most]
    return found


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation of two thumbnails."""
    a, b = one - one.mean(), other - other.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
