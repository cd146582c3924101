"""Images and labels at a size that a page can hold: averaged over blocks of voxels and rounded, where need be."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging.nifti import nifti_bytes
from heartseg_jax.imaging.volume import Volume

MOST_VOXELS = 24_000_000
"""Voxels in the page; two textures of four bytes each are made of them on the graphics card."""
MOST_IMAGE_BYTES = 20_000_000
"""Of the compressed images: a third more as base64, beside 3 MB of NiiVue, so that a page stays below 40 MB."""
STEPS = (1, 2, 4, 8, 16, 32)
HU_LIMITS = (-1024, 3071)


class Shown(NamedTuple):
    """Images and labels in the page.

    Attributes:
      images: int16 HU, or uint8.
      labels: uint8, on the grid of the images.
      factors: `(z, y, x)`, how many voxels of the source one of these is the mean of.
      step: what the images' values are multiples of; 1 where they are exact.
    """

    images: Volume
    labels: Volume
    factors: tuple[int, int, int]
    step: int


def shown(
    volume: Volume, labels: np.ndarray, most_voxels: int = MOST_VOXELS, most_bytes: int = MOST_IMAGE_BYTES
) -> Shown:
    """Return the images and `labels [Z, Y, X]` uint8 at a size that fits; as they are where they fit."""
    factors = block(volume, most_voxels)
    voxels = volume.voxels
    if voxels.dtype != np.uint8:
        voxels = np.clip(voxels, *HU_LIMITS).astype(np.int16)
    voxels = mean_of_blocks(voxels, factors)
    step = rounding(voxels, most_bytes)
    if step > 1:
        voxels = rounded(voxels, step)
    images = on_blocks(volume, voxels, factors)
    return Shown(images, replace(images, voxels=labels_of_blocks(labels, factors)), factors, step)


def block(volume: Volume, most_voxels: int) -> tuple[int, int, int]:
    """Return the block of voxels `(z, y, x)` that becomes one, so that few enough are left, as cubic as can be."""
    factors = [1, 1, 1]
    while np.prod([-(-n // f) for n, f in zip(volume.voxels.shape, factors, strict=True)]) > most_voxels:
        sides = [
            mm * f if n > f else np.inf
            for mm, f, n in zip(volume.spacing_mm, factors, volume.voxels.shape, strict=True)
        ]
        factors[2 - int(np.argmin(sides[::-1]))] += 1  # in the plane first
    return factors[0], factors[1], factors[2]


def on_blocks(volume: Volume, voxels: np.ndarray, factors: tuple[int, int, int]) -> Volume:
    """Return `voxels`, one per block of `volume`'s, with their place in the patient."""
    assert volume.direction is not None
    steps = volume.direction * np.array(volume.spacing_mm)
    origin = np.array(volume.origin_mm) + steps @ ((np.array(factors) - 1) / 2)
    spacing = np.array(volume.spacing_mm) * factors
    return Volume(
        voxels,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        volume.direction,
    )


def mean_of_blocks(voxels: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Return the rounded mean of each block, in the same dtype; the last one of an axis repeats its border."""
    if factors == (1, 1, 1):
        return voxels
    return np.rint(_sum_of_blocks(voxels, factors) / np.prod(factors, dtype=np.float32)).astype(voxels.dtype)


def labels_of_blocks(labels: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Return for each block the label with the largest share of it; background loses ties."""
    if factors == (1, 1, 1):
        return labels
    shape = tuple(-(-n // f) for n, f in zip(labels.shape, factors, strict=True))
    result, most = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    free = np.full(shape, np.prod(factors), np.int32)
    for index, box in enumerate(ndimage.find_objects(labels)):
        if box is None:
            continue
        blocks = tuple(slice(s.start // f, -(-s.stop // f)) for s, f in zip(box, factors, strict=True))
        around = tuple(slice(s.start * f, s.stop * f) for s, f in zip(blocks, factors, strict=True))
        share = _sum_of_blocks((labels[around] == index + 1).view(np.uint8), factors)
        larger = share > most[blocks]
        result[blocks][larger] = index + 1
        most[blocks][larger] = share[larger]
        free[blocks] -= share
    result[free > most] = 0
    return result


def _sum_of_blocks(voxels: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    rest = [(0, -n % f) for n, f in zip(voxels.shape, factors, strict=True)]
    if any(after for _, after in rest):
        voxels = np.pad(voxels, rest, mode="edge")
    total = np.zeros([n // f for n, f in zip(voxels.shape, factors, strict=True)], np.int32)
    for z, y, x in product(*map(range, factors)):
        total += voxels[z :: factors[0], y :: factors[1], x :: factors[2]]
    return total


def rounded(voxels: np.ndarray, step: int) -> np.ndarray:
    """Return the nearest multiples of `step`, in the same dtype."""
    limits = np.iinfo(voxels.dtype)
    return np.clip((voxels.astype(np.int32) + step // 2) // step * step, limits.min, limits.max).astype(voxels.dtype)


def rounding(voxels: np.ndarray, most_bytes: int) -> int:
    """Return the finest of `STEPS` with which the voxels, compressed, are about `most_bytes` at most."""
    sample = voxels[:: max(1, len(voxels) // 12)]
    for step in STEPS:
        if len(zlib.compress(rounded(sample, step).tobytes(), LEVEL)) * len(voxels) / len(sample) <= most_bytes:
            return step
    return STEPS[-1]


LEVEL = 4
"""Of compression: twice as fast as the usual 6, for 2 % more bytes."""


def packed(volume: Volume) -> bytes:
    """Return a volume as a compressed NIfTI file; the same bytes each time."""
    return gzip.compress(nifti_bytes(volume), LEVEL, mtime=0)
