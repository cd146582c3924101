"""A DICOM segmentation -> labels on the grid of the series that it was drawn on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.geometry import SliceStack
from heartseg_jax.imaging.dicom.header import Header, read_from
from heartseg_jax.imaging.dicom.pixels import decode_frames
from heartseg_jax.imaging.dicom.series import SeriesCandidate
from heartseg_jax.imaging.masks.label_maps import paint
from heartseg_jax.imaging.masks.segments import Segments, known_of, structure_of

SAME_PLACE_MM = 0.1
"""Largest distance between a frame of the segmentation and its slice: rounding of decimal strings."""
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


class References(NamedTuple):
    """What a segmentation says it was drawn on: the series' UID ('' where it does not say), and the instances'."""

    series_uid: str
    instances: frozenset[str]

    def are(self, candidate: SeriesCandidate) -> bool:
        """Return whether a series, or one phase of it, is what was drawn on, as far as anything is said."""
        if self.instances:
            return any(frame.header.instance_uid in self.instances for frame in candidate.frames)
        return self.series_uid in ("", candidate.frames[0].header.series_uid)


def references(header: Header) -> References:
    """Return what a segmentation was drawn on; nothing where it is broken, as reading it will show."""
    try:
        return read_from(header.source, _references)
    except Unreadable:
        return References("", frozenset())


def _references(dataset: Any) -> References:
    series = (dataset.get("ReferencedSeriesSequence") or [{}])[0]
    found = {str(item.ReferencedSOPInstanceUID) for item in series.get("ReferencedInstanceSequence") or []}
    for frame in dataset.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in frame.get("DerivationImageSequence") or []:
            found |= {str(item.ReferencedSOPInstanceUID) for item in derivation.get("SourceImageSequence") or []}
    return References(str(series.get("SeriesInstanceUID", "")), frozenset(found))


def read_segmentation(header: Header, stack: SliceStack, meanings: Mapping[str, int] | None = None) -> Segments:
    """Return a segmentation, binary, fractional (half counts) or label map, on the grid of `stack`.

    A segment's structure is given by `meanings` (number or label -> structure), else by its SNOMED CT code, else by its
    label. Other segments are background, as they are in every source.

    Raises:
      UserError: it is broken, drawn on another grid, or no segment is a structure's; it names the file and the fix.
    """
    name = header.source.name
    try:
        segments, numbers, most = read_from(header.source, lambda dataset: _segments(dataset, header, meanings or {}))
        known = known_of(segments, name)
        labels = np.zeros((len(stack.frames), header.rows, header.columns), np.uint8)
        claimed_twice = np.zeros(labels.shape, bool)
        for z, number, frame in zip(_slices(header, stack), numbers, decode_frames(header), strict=True):
            plane = frame.reshape(header.rows, header.columns)
            for value in [number] if number else [int(v) for v in np.unique(plane) if v]:
                if label := segments.get(value):
                    claimed_twice[z] |= paint(labels[z], plane >= most / 2 if number else plane == value, label)
    except Unreadable as error:
        raise UserError(f"{name}: {error}; export the segmentation again") from None
    labels[claimed_twice] = IGNORED
    strange = sum(label is None for label in segments.values())
    return Segments(labels, known, strange, int(claimed_twice.sum()))


def _segments(
    dataset: Any, header: Header, meanings: Mapping[str, int]
) -> tuple[dict[int, int | None], list[int], float]:
    """Return number -> label (None: other anatomy), each frame's segment (0: the pixels say), and full membership."""
    segments: dict[int, int | None] = {}
    for item in dataset.get("SegmentSequence") or []:
        number, label = int(item.SegmentNumber), str(item.get("SegmentLabel", "") or "")
        code = (item.get("SegmentedPropertyTypeCodeSequence") or [{}])[0]
        scheme = str(code.get("CodingSchemeDesignator", ""))
        sct = str(code.get("CodeValue", "")) if scheme == "SCT" else ""
        segments[number] = structure_of(number, label, sct, meanings, header.source.name)
    if header.sop_class == LABELMAP:
        return segments, [0] * len(header.frames), 1.0
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    numbers = []
    for own in dataset.get("PerFrameFunctionalGroupsSequence") or [{}] * len(header.frames):
        stated = own.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
        if not stated:
            raise Unreadable("a frame does not say of which segment it is")
        numbers.append(int(stated[0].ReferencedSegmentNumber))
    if set(numbers) - set(segments):
        raise Unreadable("a frame is of a segment that is not described")
    fractional = str(dataset.get("SegmentationType", "")).upper() == "FRACTIONAL"
    return segments, numbers, float(dataset.get("MaximumFractionalValue", 1) or 1) if fractional else 1.0


def _slices(header: Header, stack: SliceStack) -> list[int]:
    """Return the slice of the stack on which each frame lies."""

    def refuse(what: str) -> UserError:
        return UserError(
            f"{header.source.name} does not lie on the grid of its series: {what}; draw it on the series that is read, "
            "or choose that by --series"
        )

    first = stack.frames[0]
    if (header.rows, header.columns) != (first.header.rows, first.header.columns):
        raise refuse(
            f"it has {header.rows} x {header.columns} pixels, the series {first.header.rows} x {first.header.columns}"
        )
    positions = np.array([frame.geometry.position_mm for frame in stack.frames])
    slices = []
    for geometry in header.frames:
        if geometry.position_mm is None or geometry.orientation is None or geometry.spacing_mm is None:
            raise Unreadable("a frame does not say where it lies")
        if np.abs(np.subtract(geometry.orientation, first.geometry.orientation)).max() > 1e-3:  # type: ignore[arg-type]
            raise refuse("its slices have another orientation")
        if np.abs(np.subtract(geometry.spacing_mm, stack.spacing_mm[1:])).max() > 1e-3 * min(stack.spacing_mm[1:]):
            raise refuse("its pixels are of another size")
        away = np.linalg.norm(positions - geometry.position_mm, axis=1)
        if away.min() > SAME_PLACE_MM:
            raise refuse(f"a frame lies {away.min():.1f} mm from the nearest slice")
        slices.append(int(away.argmin()))
    return slices
