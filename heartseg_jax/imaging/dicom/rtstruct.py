"""A DICOM RT structure set: its contours -> labels on the grid of the series that they were drawn on.

A voxel belongs to a structure where its centre lies within the contours of its slice, or on them (`polygons.fill`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted
from heartseg_jax.imaging.dicom.elements import Unreadable, text, vector
from heartseg_jax.imaging.dicom.geometry import SliceStack
from heartseg_jax.imaging.dicom.header import Header, read_from
from heartseg_jax.imaging.dicom.segmentation import References
from heartseg_jax.imaging.masks.label_maps import paint
from heartseg_jax.imaging.masks.polygons import fill
from heartseg_jax.imaging.masks.segments import Segments, known_of, structure_of

SAME_PLACE_MM = 0.1
"""Largest distance of a contour's points from their slice: rounding of decimal strings."""
BEYOND_PIXELS = 1.0
"""A contour reaches at most this far beyond the outermost pixels' centres."""
MOST_MISSING = 3
"""Slices without a contour between two that have one: more are the space between two parts of a structure."""
CLOSED, EXCLUSIVE = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"


class Contour(NamedTuple):
    """One closed line: its points `[N, 3]` in mm (LPS), the images that it says it is on, and whether it is XOR."""

    points_mm: np.ndarray
    images: frozenset[str]
    exclusive: bool


class Region(NamedTuple):
    """A region of interest: its structure, or None for other anatomy, and its contours."""

    label: int | None
    frame_of_reference: str
    contours: tuple[Contour, ...]


def structure_set_references(header: Header) -> References:
    """Return what a structure set was drawn on; nothing where it is broken, as reading it will show."""
    try:
        return read_from(header.source, _references)
    except Unreadable:
        return References("", frozenset())


def _references(dataset: Any) -> References:
    series = [
        one
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for one in study.get("RTReferencedSeriesSequence") or []
    ]
    images = {str(image.ReferencedSOPInstanceUID) for one in series for image in one.get("ContourImageSequence") or []}
    return References(str(series[0].get("SeriesInstanceUID", "")) if series else "", frozenset(images))


def read_structure_set(
    header: Header, stack: SliceStack, meanings: Mapping[str, int] | None = None
) -> tuple[Segments, list[Finding]]:
    """Return a structure set on the grid of `stack`, and what was seen.

    A region's structure is given by `meanings` (its number or name), else by its SNOMED CT code, else by its name;
    others are background. A region without contours says nothing: its structure is unknown.

    Raises:
      UserError: it is broken, drawn on another grid, or no region is a structure's; it names the file and the fix.
    """
    name = header.source.name
    try:
        regions = read_from(header.source, lambda dataset: _regions(dataset, name, meanings or {}))
    except Unreadable as error:
        raise UserError(f"{name}: {error}; export the structure set again") from None
    drawn = {number: region for number, region in regions.items() if region.contours}
    known = known_of({number: region.label for number, region in (drawn or regions).items()}, name)
    if not drawn:
        raise UserError(f"{name} has no contour of a structure; draw some, or remove it")
    first = stack.frames[0].header
    labels = np.zeros((len(stack.frames), first.rows, first.columns), np.uint8)
    claimed_twice = np.zeros(labels.shape, bool)
    crossing = np.zeros(labels.shape, bool)
    copies = gaps = 0
    for region in drawn.values():
        if not region.label:
            continue
        if region.frame_of_reference and first.frame_of_reference not in ("", region.frame_of_reference):
            raise UserError(
                f"{name} lies in another frame of reference than its series: it was drawn on another scan; draw it on "
                "the series that is read, or choose that by --series"
            )
        slices = _slices(region.contours, stack, name)
        gaps += _gaps(slices, name)
        for z, (polygons, exclusive) in slices.items():
            found = fill(polygons, (first.rows, first.columns), exclusive=exclusive)
            claimed_twice[z] |= paint(labels[z], found.inside | found.ambiguous, region.label)
            crossing[z] |= found.ambiguous
            copies += found.copies
    labels[claimed_twice | crossing] = IGNORED
    found_here = [*_doubts(copies, int(crossing.sum()), gaps)]
    empty = sum(bool(region.label) and not region.contours for region in regions.values())
    if empty:
        what = f"{counted(empty, 'region')} of a structure without a contour: unknown, not absent"
        found_here.append(Finding(WARN, "empty_regions", what, fix="draw them, or remove them"))
    strange = sum(region.label is None for region in drawn.values())
    return Segments(labels, known, strange, int(claimed_twice.sum())), found_here


def _doubts(copies: int, ambiguous: int, gaps: int) -> Iterator[Finding]:
    if copies:
        what = f"{counted(copies, 'contour')} left out that enclose the pixels of another of their structure and slice"
        yield Finding(WARN, "contour_copies", what, fix="remove the copies")
    if ambiguous:
        what = f"{counted(ambiguous, 'voxel')} where contours of one structure cross: ignored (255)"
        yield Finding(WARN, "crossing_contours", what, fix="draw each part once, and holes inside of it")
    if gaps:
        what = f"{counted(gaps, 'slice')} without a contour between others of their structure: background there"
        yield Finding(WARN, "contour_gaps", what, fix="where the structure goes on, interpolate and export again")


def _regions(dataset: Any, where: str, meanings: Mapping[str, int]) -> dict[int, Region]:
    """Return number -> region; contours of other anatomy are not parsed."""
    codes: dict[int, str] = {}
    for item in dataset.get("RTROIObservationsSequence") or []:
        for code in item.get("RTROIIdentificationCodeSequence") or []:
            if str(code.get("CodingSchemeDesignator", "")) == "SCT":
                codes[int(item.ReferencedROINumber)] = str(code.get("CodeValue", ""))
    items: dict[int, list[Any]] = defaultdict(list)
    for item in dataset.get("ROIContourSequence") or []:
        items[int(item.ReferencedROINumber)] += item.get("ContourSequence") or []
    regions: dict[int, Region] = {}
    for roi in dataset.get("StructureSetROISequence") or []:
        number = int(roi.ROINumber)
        if number in regions:
            raise Unreadable(f"two regions have the number {number}")
        label = structure_of(number, str(roi.get("ROIName", "") or ""), codes.get(number, ""), meanings, where)
        nothing = Contour(np.zeros((0, 3)), frozenset(), False)
        contours = [_contour(item) if label else nothing for item in items.pop(number, [])]
        regions[number] = Region(label, text(roi, "ReferencedFrameOfReferenceUID"), tuple(contours))
    if items:
        raise Unreadable(f"it has contours of a region that it does not describe ({min(items)})")
    if not regions:
        raise Unreadable("it describes no region of interest")
    return regions


def _contour(item: Any) -> Contour:
    kind = text(item, "ContourGeometricType").upper()
    if kind not in (CLOSED, EXCLUSIVE):
        raise Unreadable(f"a structure has a contour of the type {kind[:20] or 'none'}, which encloses nothing")
    length = text(item, "ContourData").count("\\") + 1
    numbers = vector(item, "ContourData", length)
    stated = text(item, "NumberOfContourPoints")
    if numbers is None or length % 3 or (stated and stated != str(length // 3)):
        raise Unreadable("a contour has not as many points as it states")
    images = frozenset(str(image.ReferencedSOPInstanceUID) for image in item.get("ContourImageSequence") or [])
    return Contour(np.array(numbers).reshape(-1, 3), images, kind == EXCLUSIVE)


def _slices(contours: Sequence[Contour], stack: SliceStack, name: str) -> dict[int, tuple[list[np.ndarray], bool]]:
    """Return by slice, in order: the polygons `[N, 2]` (row, column) on it, and whether any is XOR."""

    def refuse(what: str) -> UserError:
        return UserError(
            f"{name} does not lie on the slices of its series: {what}; draw it on the series that is read, or choose "
            "that by --series"
        )

    first = stack.frames[0].header
    positions = np.array([frame.geometry.position_mm for frame in stack.frames])
    numbers = {frame.header.instance_uid: z for z, frame in enumerate(stack.frames) if len(frame.header.frames) == 1}
    normal = stack.direction[:, 0]
    levels = positions @ normal
    last = np.array([first.rows, first.columns]) - 1
    found: dict[int, tuple[list[np.ndarray], bool]] = {}
    for contour in contours:
        heights = contour.points_mm @ normal
        z = int(np.abs(levels - heights[0]).argmin())
        away = float(np.abs(heights - levels[z]).max())
        if away > SAME_PLACE_MM:
            across = np.ptp(heights) > SAME_PLACE_MM
            raise refuse("a contour runs across them" if across else f"a contour is {away:.2f} mm from the nearest")
        stated = {numbers[uid] for uid in contour.images if uid in numbers}
        if stated - {z}:
            raise refuse("a contour refers to the image of another slice than the one it lies on")
        polygon = (contour.points_mm - positions[z]) @ stack.direction[:, 1:] / stack.spacing_mm[1:]
        if (polygon < -BEYOND_PIXELS).any() or (polygon > last + BEYOND_PIXELS).any():
            raise refuse("a contour reaches beyond the image")
        polygons, exclusive = found.get(z, ([], False))
        found[z] = ([*polygons, polygon], exclusive or contour.exclusive)
    return dict(sorted(found.items()))


def _gaps(slices: Mapping[int, object], name: str) -> int:
    """Return how many slices close between those of a structure have no contour; refuse one drawn on every n-th."""
    steps = np.diff([*slices])
    if len(steps) > 1 and np.median(steps) > 1:
        raise UserError(
            f"the contours of a structure in {name} lie {np.median(steps):.0f} slices apart: those between would count "
            "as background; interpolate between the slices where it was drawn, and export it again"
        )
    return int((steps - 1)[steps <= MOST_MISSING + 1].sum())
