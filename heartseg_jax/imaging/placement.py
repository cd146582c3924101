"""A label volume on the grid of its image, where the one is a part of the other: cropped, or with its axes turned."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.volume import Volume

OFF_GRID = 0.1
"""Voxels of two grids that are meant to be one lie at most this share of a voxel apart: rounding of headers."""


class Placement(NamedTuple):
    """Where a part lies on an image's grid `[Z, Y, X]`.

    Axis k of the image is the part's axis `axes[k]`, turned round if `flipped[k]`; `start[k]` is where it begins, which
    may be outside.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    start: tuple[int, ...]

    def onto(self, values: np.ndarray, canvas: np.ndarray) -> int:
        """Write the part's `values` into `canvas`, in place; return how many that are not 0 lie outside of it."""
        turned = np.flip(values.transpose(self.axes), tuple(np.flatnonzero(self.flipped)))
        spans = [
            (max(begin, 0), min(begin + own, whole))
            for begin, own, whole in zip(self.start, turned.shape, canvas.shape, strict=True)
        ]
        outside = int(np.count_nonzero(values))
        if all(begin < end for begin, end in spans):
            inner = turned[tuple(slice(b - s, e - s) for (b, e), s in zip(spans, self.start, strict=True))]
            canvas[tuple(slice(*span) for span in spans)] = inner
            outside -= int(np.count_nonzero(inner))
        return outside


def place(part: Volume, image: Volume, where: str | Path) -> Placement:
    """Return where `part` lies on the grid of `image`; `where` names its file.

    Nothing is resampled: every voxel of the part is one of the image's grid, to `OFF_GRID` of a voxel.

    Raises:
      UserError: the grids do not coincide.
    """
    assert part.direction is not None
    assert image.direction is not None
    to_grid = np.linalg.inv(image.direction * image.spacing_mm)
    step = to_grid @ (part.direction * part.spacing_mm)  # of the part's axes, in voxels of the image
    origin = to_grid @ np.subtract(part.origin_mm, image.origin_mm)
    axes = np.abs(step).argmax(axis=1)
    flipped = step[range(3), axes] < 0
    if len(set(axes.tolist())) == 3:
        last = np.array(part.voxels.shape) - 1
        start = np.rint(np.where(flipped, origin - last[axes], origin))
        corners = np.array([*np.ndindex(2, 2, 2)]) * last
        exact = start + np.where(flipped, last[axes] - corners[:, axes], corners[:, axes])
        if np.abs(origin + corners @ step.T - exact).max() <= OFF_GRID and np.abs(start).max() < 2**31:
            return Placement(tuple(axes.tolist()), tuple(flipped.tolist()), tuple(start.astype(int).tolist()))
    raise UserError(
        f"{where} does not lie on the grid of its image: {shown(part)}, the image {shown(image)}; export it with the "
        "reference volume's geometry (3D Slicer: Export to files, or Segmentation geometry, with the volume as "
        "reference)"
    )


def shown(volume: Volume) -> str:
    """Return a grid as text."""
    size = " x ".join(map(str, volume.voxels.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
    return f"{size} at {spacing} mm from ({', '.join(f'{mm:.1f}' for mm in volume.origin_mm)})"
