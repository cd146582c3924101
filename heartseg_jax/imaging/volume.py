"""A CT volume with its geometry, and the resampling between its grid and the network's. No files here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

AIR_HU = -1000


class Frame(NamedTuple):
    """Where one slice came from: a DICOM instance's UID, and the frame's number in it (1-based; 1 for a single one)."""

    uid: str
    number: int


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient, in the source's own frame order.

    Attributes:
      voxels: `[Z, Y, X]`, any numeric dtype; HU for CT.
      spacing_mm: `(z, y, x)` distance between voxel centres.
      origin_mm: `(x, y, z)` centre of voxel `[0, 0, 0]` in DICOM's LPS (to the Left, Posterior, Superior).
      direction: `[3, 3]`; column k is the xyz unit vector of voxel axis k of (z, y, x).
      frames: the source of each slice, for objects that refer to them; empty where the source has no instances.
    """

    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray | None = None
    frames: tuple[Frame, ...] = ()

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise ValueError(f"a volume has three axes (Z, Y, X), not {self.voxels.ndim}")
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be three positive lengths, not {self.spacing_mm}")
        if self.frames and len(self.frames) != len(self.voxels):
            raise ValueError(f"{len(self.frames)} frames for {len(self.voxels)} slices")
        if self.direction is None:
            # Patient-axial: slices towards Superior, rows towards Posterior, columns towards Left.
            object.__setattr__(self, "direction", np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing_mm)) / 1000.0


def put_in_middle(canvas: np.ndarray, plane: np.ndarray) -> None:
    """Put `plane [h, w]` into the middle of `canvas [H, W]`, which is at least as large, in place."""
    top, left = (canvas.shape[0] - plane.shape[0]) // 2, (canvas.shape[1] - plane.shape[1]) // 2
    canvas[top : top + plane.shape[0], left : left + plane.shape[1]] = plane


def scale_for(
    height: int,
    width: int,
    spacing_mm: tuple[float, float, float] | None,
    size: int,
    mm_per_pixel: float,
) -> tuple[float, float]:
    """Return `(scale_y, scale_x)`: how many pixels of the source lie between two of the network's.

    With `mm_per_pixel` above 0 and a known `spacing_mm (z, y, x)` the network's pixel has that size in
    the patient; otherwise the longer side of the slice fills `size`, and the aspect is kept.
    """
    if mm_per_pixel > 0 and spacing_mm is not None:
        return mm_per_pixel / spacing_mm[1], mm_per_pixel / spacing_mm[2]
    scale = max(height, width) / size
    return scale, scale


def sample_positions(n_in: int, n_out: int, scale: float) -> np.ndarray:
    """Return where the `n_out` samples lie on an axis of `n_in` pixels: float64 `[n_out]`, in pixels.

    The middles of the two grids coincide, and pixel k covers k - 0.5 to k + 0.5.
    """
    return (n_in - 1) / 2 + (np.arange(n_out) - (n_out - 1) / 2) * scale


def _is_inside(positions: np.ndarray, n_in: int) -> np.ndarray:
    tolerance = 1e-6  # A sample on the outer edge of the last pixel is inside, whatever the rounding.
    return (positions >= -0.5 - tolerance) & (positions <= n_in - 0.5 + tolerance)


def resampling_matrix(n_in: int, n_out: int, scale: float) -> np.ndarray:
    """Return the float32 matrix `[n_out, n_in]` that resamples an axis, centre-aligned (`sample_positions`).

    The kernel is a triangle, as wide as `scale` where that is above 1: linear interpolation on the way up,
    antialiased on the way down (Pillow's BILINEAR). Rows add up to 1; the row of a sample outside the
    source is zero, for the caller to fill.
    """
    positions = sample_positions(n_in, n_out, scale)
    distance = np.abs(np.arange(n_in)[None, :] - positions[:, None])
    weights = np.maximum(0.0, 1.0 - distance / max(scale, 1.0))
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    weights[~_is_inside(positions, n_in)] = 0.0
    return weights.astype(np.float32)


def seen_by_network(n_in: int, size: int, scale: float) -> slice:
    """Return which of an axis's `n_in` pixels get their probabilities from the network's `size`: a run, maybe empty."""
    inside = np.flatnonzero(_is_inside(sample_positions(size, n_in, 1.0 / scale), size))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def _is_same_grid(height: int, width: int, size: int, scale: tuple[float, float]) -> bool:
    return height == width == size and tuple(scale) == (1.0, 1.0)


def resample_slices(image: np.ndarray, size: int, scale: tuple[float, float], fill: float) -> np.ndarray:
    """Resample `image [N, H, W]` to `[N, size, size]` of the same dtype; `fill` (air) where it has nothing.

    `scale` is (y, x), of `scale_for`. On the same grid the input itself is returned.
    """
    count, height, width = image.shape
    if _is_same_grid(height, width, size, scale):
        return image
    rows, columns = resampling_matrix(height, size, scale[0]), resampling_matrix(width, size, scale[1])
    outside = ~np.logical_and.outer(rows.any(axis=1), columns.any(axis=1))
    from scipy.sparse import csr_array  # 0.3 s, which checks and lists of arrays do without

    few_rows, few_columns = csr_array(rows), csr_array(columns)  # a sample averages a few pixels, the rest are zeros
    result = np.empty((count, size, size), image.dtype)
    for index in range(count):  # Slice by slice: a whole volume in float32 would be four times its int16.
        plane = (few_columns @ (few_rows @ image[index].astype(np.float32)).T).T
        plane[outside] = fill
        result[index] = np.rint(plane) if np.issubdtype(image.dtype, np.integer) else plane
    return result


def resample_labels(labels: np.ndarray, size: int, scale: tuple[float, float]) -> np.ndarray:
    """Resample `labels [N, H, W]` to `[N, size, size]`; 0 outside the source. `scale` is (y, x), of `scale_for`.

    On a coarser grid each pixel takes the label with the largest share of what the image's own kernel
    averages there (background only where no other ties with it): picking the nearest pixel would, for even
    scales, lie half a source pixel beside the image. On a finer grid it is the nearest pixel. On the same grid
    the input itself is returned.
    """
    height, width = labels.shape[1:]
    if _is_same_grid(height, width, size, scale):
        return labels
    y, x = sample_positions(height, size, scale[0]), sample_positions(width, size, scale[1])
    outside = ~np.logical_and.outer(_is_inside(y, height), _is_inside(x, width))
    if max(scale) > 1:
        result = _largest_share(
            labels, resampling_matrix(height, size, scale[0]), resampling_matrix(width, size, scale[1])
        )
    else:
        # The tolerance makes ties fall the same way in spite of rounding.
        nearest_y = np.clip(np.ceil(y - 0.5 - 1e-6), 0, height - 1).astype(np.intp)
        nearest_x = np.clip(np.ceil(x - 0.5 - 1e-6), 0, width - 1).astype(np.intp)
        result = labels[:, nearest_y[:, None], nearest_x[None, :]]
    result[:, outside] = 0
    return result


def _largest_share(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return for each pixel of the new grid the label whose indicator is largest there."""
    from scipy.sparse import csr_array

    # Dense products would wake BLAS's own threads for each of them, beside those that load slices.
    few_rows, few_columns = csr_array(rows), csr_array(columns)
    result = np.zeros((len(labels), len(rows), len(columns)), labels.dtype)
    for plane, new in zip(labels, result, strict=True):
        most = np.full(new.shape, 1e-6, np.float32)
        for value in sorted(np.unique(plane), key=lambda value: (value == 0, value)):  # background last: it loses ties
            share = (few_columns @ (few_rows @ (plane == value).astype(np.float32)).T).T
            larger = share > most + 1e-6
            new[larger], most[larger] = value, share[larger]
    return result


def back_matrices(size: int, height: int, width: int, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices `[height, size]` and `[width, size]` from the network's grid back to the source's slices.

    `scale` is the one that led to the network's grid. The row of a pixel that the network did not see is zero.
    """
    return resampling_matrix(size, height, 1.0 / scale[0]), resampling_matrix(size, width, 1.0 / scale[1])


def resample_back(probabilities: np.ndarray, height: int, width: int, scale: tuple[float, float]) -> np.ndarray:
    """Bring `probabilities [N, size, size, C]` back to the source's slices: `[N, height, width, C]`.

    Linear; outside what the network saw, background (channel 0) has probability 1. `scale` is the one
    that led to the network's grid. On the same grid the input itself is returned.
    """
    count, size_y, size_x, channels = probabilities.shape
    if size_y == size_x and _is_same_grid(height, width, size_y, scale):
        return probabilities
    rows, columns = back_matrices(size_y, height, width, scale)
    outside = ~np.logical_and.outer(rows.any(axis=1), columns.any(axis=1))
    from scipy.sparse import csr_array

    few_rows, few_columns = csr_array(rows), csr_array(columns)
    result = np.empty((count, height, width, channels), probabilities.dtype)
    for plane, new in zip(probabilities, result, strict=True):
        # The axis that is resampled comes first, so that whole rows are added: here the columns, then the rows.
        wide = few_columns @ plane.transpose(1, 0, 2).reshape(size_x, -1)
        wide = wide.reshape(width, size_y, channels).transpose(1, 0, 2)
        new[:] = (few_rows @ wide.reshape(size_y, -1)).reshape(new.shape)
        new[outside] = 0
        new[outside, 0] = 1
    return result
