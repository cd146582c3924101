"""Cutting smooth slices out of volumes of codes, and the smooth randomness that bends them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging.body.kit import between

CORNERS = tuple((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1))
STRIDE = 4
"""Smooth displacements are computed at every fourth pixel and interpolated."""


def vote(codes: np.ndarray, at: np.ndarray, fill: int) -> np.ndarray:
    """Return the code `[N]` with the largest trilinear weight at each position `[N, 3]` in voxels; `fill` outside.

    Borders are as smooth as those of an interpolated mask, and no code appears between two others.
    """
    out = np.full(len(at), fill, np.uint8)
    within = np.flatnonzero(((at >= 0) & (at < np.array(codes.shape) - 1)).all(axis=1))
    at = at[within]
    low = at.astype(np.int32)
    strides = np.array([codes.shape[1] * codes.shape[2], codes.shape[2], 1], np.int32)
    base = low @ strides
    flat = codes.reshape(-1)
    found = np.stack([flat[base + int(np.dot(corner, strides))] for corner in CORNERS], axis=1)
    winner = found[:, 0].copy()
    mixed = np.flatnonzero((found != found[:, :1]).any(axis=1))
    some = found[mixed]
    f = (at[mixed] - low[mixed]).astype(np.float32)
    x, y, z = ((1 - f[:, a], f[:, a]) for a in range(3))
    weights = np.stack([x[i] * y[j] * z[k] for i, j, k in CORNERS], axis=1)
    totals = np.stack([(weights * (some == some[:, c : c + 1])).sum(axis=1) for c in range(8)], axis=1)
    winner[mixed] = some[np.arange(len(some)), totals.argmax(axis=1)]
    out[within] = winner
    return out


class Warp:
    """A smooth random displacement in mm, from a coarse grid of random vectors."""

    def __init__(self, rng: np.random.Generator, low: np.ndarray, high: np.ndarray, wave_mm: float, size_mm: float):
        """Draw a field over the box from `low` to `high` mm, of waves of about `wave_mm` and deviation `size_mm`."""
        self.low, self.wave = low - wave_mm, wave_mm
        counts = np.ceil((high - low) / wave_mm).astype(int) + 4
        # A cubic spline through independent values has about 0.7 of their deviation between them.
        self.field = [ndimage.spline_filter(f) for f in rng.normal(0, size_mm / 0.85, (3, *counts))]

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Return the displacements `[..., 3]` at positions `[..., 3]`, in mm."""
        where = np.moveaxis((at - self.low) / self.wave, -1, 0)
        return np.stack(
            [ndimage.map_coordinates(f, where, order=3, prefilter=False, mode="nearest") for f in self.field], axis=-1
        )


def dense(few: np.ndarray, size: int) -> np.ndarray:
    """Return `[size, size, C]` of what is known at every `STRIDE`th pixel, `[size / STRIDE, size / STRIDE, C]`."""
    at = np.arange(size) / STRIDE
    return between(between(few, at, 0), at, 1)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Return smooth noise `[size, size]` of mean about 0 and deviation about 1, with `cells` waves across."""
    coarse = rng.normal(0, 1.4, (cells + 3, cells + 3))
    at = np.linspace(1, cells + 1, size // STRIDE + 1)
    few = ndimage.map_coordinates(coarse, np.meshgrid(at, at, indexing="ij"), order=3)
    return dense(few[:, :, None], size)[:, :, 0]
