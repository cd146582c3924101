"""The region of interest of a valve: a box along its own plane, and volumes sampled in it. No files here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist, squareform

from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.border import UNSEEN
from heartseg_jax.measure.results import ValveMeasurement

WIDER = 1.3
"""The box's sides in the valve's plane, per largest diameter of the annulus."""
ATRIUM_MM, VENTRICLE_MM = 20.0, 25.0
"""How far the box reaches from the centre to either side of the plane, with its voxels' outer faces."""
SPACING_MM = 0.5
OUTSIDE_HU = -1024
"""HU where the scan shows nothing: the lowest value of most scanners, below air."""


def axes_of(valve: ValveMeasurement) -> np.ndarray:
    """Return `[3, 3]`, right-handed: row 0 lies in the plane and points to the septum, row 2 is the normal.

    Without a septal direction row 0 is the longest diameter of the annulus, pointing to where its largest part in the
    patient's coordinates is positive. The valve is not refused.
    """
    assert valve.normal is not None
    assert valve.curve_mm is not None
    normal = valve.normal / np.linalg.norm(valve.normal)
    along = valve.septal
    if along is None:
        along, _ = _longest(valve.curve_mm, normal)
        along = along * np.sign(along[np.abs(along).argmax()])
    along = along - (along @ normal) * normal
    along = along / np.linalg.norm(along)
    return np.array([along, np.cross(normal, along), normal])


def side_mm(valve: ValveMeasurement) -> float:
    """Return the length of the box's sides in the valve's plane."""
    assert valve.normal is not None
    assert valve.curve_mm is not None
    return WIDER * _longest(valve.curve_mm, valve.normal / np.linalg.norm(valve.normal))[1]


def box(valve: ValveMeasurement) -> Volume:
    """Return the grid of a valve's region of interest, its voxels zeros of one byte: cubes of `SPACING_MM`.

    Slices run from the atrium to the ventricle along the normal, columns along row 0 of `axes_of`. The centre of the
    annulus lies in the middle of the slices' plane, `ATRIUM_MM` from the first slice's outer face.
    """
    assert valve.centre_mm is not None
    axes = axes_of(valve)
    side = int(np.ceil(side_mm(valve) / SPACING_MM))
    shape = round((ATRIUM_MM + VENTRICLE_MM) / SPACING_MM), side, side
    corner = np.array([-side / 2, -side / 2, -ATRIUM_MM / SPACING_MM]) + 0.5  # middle of the first voxel
    x, y, z = valve.centre_mm + SPACING_MM * corner @ axes
    zeros = np.broadcast_to(np.uint8(0), shape)
    return Volume(zeros, (SPACING_MM,) * 3, (float(x), float(y), float(z)), axes[::-1].T.copy())


def images_in(grid: Volume, volume: Volume) -> tuple[Volume, float]:
    """Return the images of a volume at the voxels of a grid, and the share of these that the volume does not show.

    Linear between the centres of the volume's voxels; up to its outer faces the value of the outermost voxel. Beyond
    it is `OUTSIDE_HU`, or 0 in 8-bit images. Whole numbers are rounded, and the kind of number is the volume's.
    """
    at, inside = _places(grid, volume)
    voxels = volume.voxels
    values = ndimage.map_coordinates(voxels, at, np.float32, order=1, mode="nearest").reshape(grid.voxels.shape)
    if voxels.dtype.kind != "f":
        values = np.rint(values)
    values[~inside] = 0 if voxels.dtype.kind == "u" else OUTSIDE_HU
    return replace(grid, voxels=values.astype(voxels.dtype)), float(1 - inside.mean())


def labels_in(grid: Volume, volume: Volume, labels: np.ndarray) -> Volume:
    """Return the label nearest to each voxel of a grid, of `labels [Z, Y, X]` on a volume; `UNSEEN` beyond it."""
    at, inside = _places(grid, volume)
    nearest = np.rint(at).astype(np.intp).reshape(3, *grid.voxels.shape)
    np.clip(nearest, 0, np.array(labels.shape).reshape(3, 1, 1, 1) - 1, out=nearest)
    found = labels[tuple(nearest)]
    found[~inside] = UNSEEN
    return replace(grid, voxels=found)


def _longest(curve_mm: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the vector between the two points that lie farthest apart in the plane, and its length."""
    flat = curve_mm - np.outer(curve_mm @ normal, normal)
    distances = squareform(pdist(flat))
    first, second = np.unravel_index(distances.argmax(), distances.shape)
    return flat[second] - flat[first], float(distances[first, second])


def _places(grid: Volume, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Return where a grid's voxels lie, `[3, N]` in voxels of a volume along (z, y, x), and whether it shows them."""
    assert grid.direction is not None
    assert volume.direction is not None
    # Axes of an oblique volume may be off a right angle by the rounding of a header: solved, not transposed.
    to_voxels = np.linalg.inv(volume.direction * np.array(volume.spacing_mm))
    steps = to_voxels @ (grid.direction * np.array(grid.spacing_mm))
    first = to_voxels @ (np.array(grid.origin_mm) - np.array(volume.origin_mm))
    at = first[:, None] + steps @ np.indices(grid.voxels.shape).reshape(3, -1)
    ends = np.array(volume.voxels.shape)[:, None] - 0.5
    inside = ((at >= -0.5 - TOLERANCE) & (at <= ends + TOLERANCE)).all(axis=0)
    return at, inside.reshape(grid.voxels.shape)


TOLERANCE = 1e-6
"""In voxels: what lies on an outer face is inside, whatever the rounding."""
