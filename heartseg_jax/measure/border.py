"""Where a structure's surface lies on the border of the field of view: there it is cut, and goes on unseen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume, scale_for, seen_by_network
from heartseg_jax.inference.study import Prediction

UNSEEN = 255
"""Marks what lies outside of the field of view; never a structure's label."""
PADDED_HU = -900
"""Padding is set to air, or comes as the scanner's lowest value."""


class Surfaces(NamedTuple):
    """Faces of voxels, counted by label.

    Attributes:
      shared: `[256, 256]` int64, faces between a voxel of one label and one of another; symmetric, its diagonal 0.
    """

    shared: np.ndarray

    def total(self, label: int) -> int:
        """Return the faces of a label's surface, those on the border included."""
        return int(self.shared[label].sum())

    def cut(self, label: int) -> int:
        """Return those of them that lie on the border of the field of view."""
        return int(self.shared[label, UNSEEN])


def surfaces(labels: np.ndarray, box: tuple[slice, ...], unseen: np.ndarray | None) -> Surfaces:
    """Count the faces of each label's surface, and which of them lie on the border of the field of view.

    On the border are faces on the block's outside, and those towards a background voxel that is not in the field of
    view.

    Args:
      labels: `[Z, Y, X]` uint8.
      box: the part of the block that the network saw.
      unseen: `[Y, X]` bool, pixels outside of the scanner's round field of view; None where there are none.
    """
    shared = np.zeros((256, 256), np.int64)
    spans = _spans(labels)
    if spans is None:
        return Surfaces(shared)
    # One voxel more on each side; what lies beyond the block stays UNSEEN.
    around = np.full([stop - start + 2 for start, stop in spans], UNSEEN, np.uint8)
    inner = [slice(max(start - 1, 0), min(stop + 1, n)) for (start, stop), n in zip(spans, labels.shape, strict=True)]
    offsets = [start - 1 for start, _ in spans]
    around[tuple(slice(s.start - o, s.stop - o) for s, o in zip(inner, offsets, strict=True))] = labels[tuple(inner)]
    for axis, (seen, offset) in enumerate(zip(box, offsets, strict=True)):
        places = np.arange(around.shape[axis]) + offset
        for place in np.flatnonzero((places < seen.start) | (places >= seen.stop)):
            plane = around[(slice(None),) * axis + (place,)]
            plane[plane == 0] = UNSEEN
    if unseen is not None:
        rows, columns = inner[1:]
        part = around[:, rows.start - offsets[1] : rows.stop - offsets[1], columns.start - offsets[2] :]
        part = part[..., : columns.stop - columns.start]
        part[(part == 0) & unseen[rows, columns]] = UNSEEN
    for axis in range(3):
        one, other = _shifted(around, axis, 0), _shifted(around, axis, 1)
        differ = one != other
        pairs = (one[differ].astype(np.uint16) << 8) | other[differ]
        shared += np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
    return Surfaces(shared + shared.T)


def surfaces_of(prediction: Prediction) -> Surfaces:
    """Return the surfaces of a prediction's labels, with the border of what the scanner and the network saw."""
    axial, order = patient_axial(prediction.volume)
    box = _seen(prediction, axial)
    return surfaces(order.forth(prediction.labels), box, outside_round_field(axial.voxels))


def seen_on_source(prediction: Prediction) -> tuple[slice, ...]:
    """Return the part of the source's grid `[Z, Y, X]` that the network saw."""
    axial, order = patient_axial(prediction.volume)
    sides: list[slice] = [slice(0)] * 3
    for axis, flipped, seen in zip(order.axes, order.flipped, _seen(prediction, axial), strict=True):
        count = prediction.labels.shape[axis]
        sides[axis] = slice(count - seen.stop, count - seen.start) if flipped else seen
    return tuple(sides)


def _seen(prediction: Prediction, axial: Volume) -> tuple[slice, ...]:
    """Return the part of the patient-axial grid that the network saw: it may be smaller than the slice."""
    spec, (count, height, width) = prediction.contract.input, axial.voxels.shape
    spacing = axial.spacing_mm if prediction.intake.spacing_known else None
    scales = scale_for(height, width, spacing, spec.size, spec.mm_per_pixel)
    rows, columns = (seen_by_network(n, spec.size, s) for n, s in zip((height, width), scales, strict=True))
    return slice(0, count), rows, columns


def seen_pixel_mm(prediction: Prediction) -> float:
    """Return how wide the finest pixels are, in mm, in which the network saw what it labelled.

    A closer look's are those of a square around all that is labelled; in single slices they may be finer.
    """
    axial, order = patient_axial(prediction.volume)
    spec, (_, height, width), spacing = prediction.contract.input, axial.voxels.shape, axial.spacing_mm
    scales = scale_for(height, width, spacing, spec.size, spec.mm_per_pixel)
    spans = _spans(order.forth(prediction.labels)) if spec.closer else None
    if spans is not None:
        _, *sides = (stop - start for start, stop in spans)
        closest = max(sides) / max(spec.closer) / spec.size
        scales = (min(scales[0], closest), min(scales[1], closest))
    return max(scale * mm for scale, mm in zip(scales, spacing[1:], strict=True))


def outside_round_field(voxels: np.ndarray) -> np.ndarray | None:
    """Return `[Y, X]` bool: pixels with the first corner's value in every slice, as padding has it; None without any.

    Air around the patient may be among them where it was cut at one value: no structure touches it.
    """
    corner = voxels[0, 0, 0]
    if corner > (0 if voxels.dtype == np.uint8 else PADDED_HU):
        return None
    same = voxels[0] == corner
    for plane in voxels[1:]:
        same &= plane == corner
        if not same[0, 0]:
            return None
    return same


def _spans(labels: np.ndarray) -> list[tuple[int, int]] | None:
    """Return (start, stop) along each axis of what is not background; None where nothing is."""
    slices = np.flatnonzero(labels.any(axis=(1, 2)))
    if not len(slices):
        return None
    flat = np.logical_or.reduce(labels[slices[0] : slices[-1] + 1], axis=0)
    kept = [slices, np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))]
    return [(int(one[0]), int(one[-1]) + 1) for one in kept]


def _shifted(array: np.ndarray, axis: int, by: int) -> np.ndarray:
    """Return `array` without its last plane along an axis (by 0), or without its first (by 1)."""
    return array[(slice(None),) * axis + (slice(by, array.shape[axis] - 1 + by),)]
