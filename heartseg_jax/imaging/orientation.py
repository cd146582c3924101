"""Patient-axial order: slices towards Superior, rows towards Posterior, columns towards Left; and back again.

Axes are exchanged and turned round, nothing is resampled: an oblique volume stays as oblique as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.volume import Volume

TARGET = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
"""Column k is where axis k of (z, y, x) is to run, in LPS."""
OBLIQUE_DEGREES = 5.0


class AxisReorder(NamedTuple):
    """What was done to a volume: axis k of the new one is axis `axes[k]` of the old, turned round if `flipped[k]`."""

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    oblique_degrees: float

    def forth(self, voxels: np.ndarray) -> np.ndarray:
        """Return an array of the source's grid `[Z, Y, X]` in patient-axial order."""
        return np.flip(voxels.transpose(self.axes), tuple(np.flatnonzero(self.flipped)))

    def back(self, voxels: np.ndarray) -> np.ndarray:
        """Return a patient-axial array on the source's grid: exactly what `forth` undid."""
        return np.flip(voxels, tuple(np.flatnonzero(self.flipped))).transpose(np.argsort(self.axes))


def patient_axial(volume: Volume) -> tuple[Volume, AxisReorder]:
    """Return the volume with its axes as near to patient-axial as exchanging and turning them round can bring them.

    Every voxel keeps its place in the patient: left stays left, also where the source's axes are left-handed.
    """
    assert volume.direction is not None
    along = TARGET.T @ volume.direction
    _, axes = linear_sum_assignment(-np.abs(along))
    flipped = tuple(bool(along[k, axis] < 0) for k, axis in enumerate(axes))
    angle = np.degrees(np.arccos(np.clip(min(abs(along[k, axis]) for k, axis in enumerate(axes)), -1, 1)))
    order = AxisReorder(tuple(int(axis) for axis in axes), flipped, float(angle))

    direction, origin = volume.direction[:, axes].copy(), np.array(volume.origin_mm)
    spacing = tuple(volume.spacing_mm[axis] for axis in order.axes)
    for k in np.flatnonzero(flipped):
        origin += (volume.voxels.shape[axes[k]] - 1) * spacing[k] * direction[:, k]
        direction[:, k] *= -1
    # Slices of another axis are cut through the source's frames: none of them is any frame's.
    frames = volume.frames[:: -1 if flipped[0] else 1] if order.axes[0] == 0 else ()
    place = (float(origin[0]), float(origin[1]), float(origin[2]))
    return Volume(order.forth(volume.voxels), spacing, place, direction, frames), order  # type: ignore[arg-type]


def oblique(degrees: float) -> list[Finding]:
    """Return the finding of a volume that is rotated by `degrees` out of the patient's axes, if that is much."""
    if degrees <= OBLIQUE_DEGREES:
        return []
    text = f"the volume is oblique by {degrees:.0f} degrees: its slices are not quite axial"
    return [Finding(WARN, "oblique", text, fix="resample it to axial slices")]
