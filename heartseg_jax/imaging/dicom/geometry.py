"""Where the frames of one series lie: their order along the normal, and whether they make one regular stack."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding, counted
from heartseg_jax.imaging.dicom.elements import Vector
from heartseg_jax.imaging.dicom.header import FrameGeometry, Header

SAME_PLACE_MM = 0.01
ORTHONORMAL = 1e-3
PARALLEL = 1e-3
UNEVEN_WARN, UNEVEN_REFUSE, GAP = 0.01, 0.1, 1.5
"""Shares of the usual distance: rounding stays below the first; a gap is a distance of at least GAP times the usual."""
TILT_DEGREES = 0.5
MM = (1e-3, 1e3)
"""Spacings outside this range are in another unit, or from a broken file."""
CONTRADICTION = 0.05
"""Relative difference between two statements of the slice spacing from which on it is reported."""


class FrameRef(NamedTuple):
    """One frame: the file that holds it and its number in there (0-based)."""

    header: Header
    number: int

    @property
    def geometry(self) -> FrameGeometry:
        """Where it lies."""
        return self.header.frames[self.number]


class SliceStack(NamedTuple):
    """Frames in order, and the geometry that they share. `direction` as in `Volume`."""

    frames: tuple[FrameRef, ...]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: np.ndarray


def normal_of(geometry: FrameGeometry) -> np.ndarray | None:
    """Return the unit normal of a frame's plane, or None where its orientation is absent or no rotation."""
    return None if geometry.orientation is None else _normal(geometry.orientation)


@functools.lru_cache(maxsize=1024)
def _normal(orientation: Vector) -> np.ndarray | None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    products = np.array([row @ row - 1, column @ column - 1, row @ column])
    if np.abs(products).max() > ORTHONORMAL:
        return None
    return np.cross(row, column)


def along_normal(frames: Sequence[FrameRef]) -> np.ndarray:
    """Return each frame's distance in mm along the first one's normal; all must have position and orientation."""
    normal = normal_of(frames[0].geometry)
    return np.array([np.dot(frame.geometry.position_mm, normal) for frame in frames])  # type: ignore[arg-type]


def arrange(frames: Sequence[FrameRef]) -> tuple[SliceStack | None, list[Finding]]:
    """Return the frames in order with their geometry, and what is wrong with it; no stack where that refuses.

    The order is that of the positions along the normal: instance numbers, slice locations and file names are often
    wrong. The distance between slices is that of their positions, never the thickness.
    """
    findings = list(_one_by_one(frames))
    if findings:
        return None, findings
    findings += _together(frames)
    if any(finding.level == REFUSE for finding in findings):
        return None, findings
    distances = along_normal(frames)
    order = np.argsort(distances, kind="stable")
    frames, distances = [frames[k] for k in order], distances[order]
    first = frames[0].geometry
    assert first.orientation is not None
    assert first.position_mm is not None
    assert first.spacing_mm is not None
    step, more = _step(frames, distances)
    findings += more
    if step is None:
        return None, findings
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    direction = np.stack([np.cross(row, column), column, row], axis=1)
    spacing = (step, first.spacing_mm[0], first.spacing_mm[1])
    return SliceStack(tuple(frames), spacing, tuple(first.position_mm), direction), findings  # type: ignore[arg-type]


def _one_by_one(frames: Sequence[FrameRef]) -> list[Finding]:
    """Find frames that do not state where they lie."""
    found = []
    wanted = {
        "position": (lambda p: p.position_mm is not None, "ImagePositionPatient"),
        "orientation": (lambda p: p.orientation is not None, "ImageOrientationPatient"),
        "spacing": (
            lambda p: p.spacing_mm is not None and MM[0] <= min(p.spacing_mm) and max(p.spacing_mm) <= MM[1],
            f"PixelSpacing from {MM[0]:g} to {MM[1]:g} mm",
        ),
    }
    for name, (holds, words) in wanted.items():
        lacking = sum(not holds(frame.geometry) for frame in frames)
        if lacking:
            text = f"{lacking} of {len(frames)} slices have no {words}"
            fix = "export the original series again; sizes in mm cannot be guessed"
            found.append(Finding(REFUSE, f"missing_{name}", text, fix=fix))
    if not found and any(normal_of(frame.geometry) is None for frame in frames):
        text = "the directions of rows and columns are not orthogonal unit vectors"
        found.append(Finding(REFUSE, "contradictory_orientation", text, fix="export the original series again"))
    return found


def _together(frames: Sequence[FrameRef]) -> list[Finding]:
    """Find what frames of one stack must share and do not."""
    found = []
    first = frames[0].geometry
    orientations = np.array([frame.geometry.orientation for frame in frames])
    if np.abs(orientations - orientations[0]).max() > PARALLEL:
        text = f"the series has slices of {len(np.unique(np.round(orientations, 2), axis=0))} orientations"
        fix = "choose another series, or export only the axial slices"
        found.append(Finding(REFUSE, "mixed_orientation", text, fix=fix))
    spacings = np.array([frame.geometry.spacing_mm for frame in frames])
    if np.abs(spacings / np.array(first.spacing_mm) - 1).max() > 1e-3:
        text = f"pixel spacings from {spacings.min():g} to {spacings.max():g} mm in one series"
        found.append(Finding(REFUSE, "mixed_spacing", text, fix="choose another series"))
    sizes = {(frame.header.rows, frame.header.columns) for frame in frames}
    if len(sizes) > 1:
        text = "the series has slices of sizes " + ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes))
        found.append(Finding(REFUSE, "mixed_size", text, fix="choose another series"))
    if len({frame.header.person for frame in frames} - {b""}) > 1:
        text = "the slices are of several patients (PatientID)"
        found.append(Finding(REFUSE, "mixed_patients", text, fix="send each patient's study again"))
    references = {frame.header.frame_of_reference for frame in frames} - {""}
    if len(references) > 1:
        text = f"{len(references)} frames of reference in one series: the patient was moved in between"
        found.append(Finding(REFUSE, "mixed_frame_of_reference", text, fix="choose another series"))
    rescales = {(frame.geometry.slope, frame.geometry.intercept) for frame in frames}
    if len(rescales) > 1:
        text = f"{len(rescales)} rescale slopes and intercepts; each slice is read by its own"
        found.append(Finding(NOTE, "mixed_rescale", text))
    return found


def _step(frames: Sequence[FrameRef], distances: np.ndarray) -> tuple[float | None, list[Finding]]:
    """Return the distance in mm between neighbouring slices, or None where there is none."""
    if len(frames) == 1:
        thickness = frames[0].header.thickness_mm
        if not thickness or thickness <= 0:
            text = "a single slice without a SliceThickness: its extent across the plane is unknown"
            return None, [Finding(REFUSE, "missing_spacing", text, fix="give the whole series")]
        return float(thickness), []
    steps = np.diff(distances)
    twice = int((steps < SAME_PLACE_MM).sum())
    if twice:
        text = f"{twice} of {len(frames)} slices lie where another one lies, and nothing distinguishes them"
        fix = "remove the copies, or export each reconstruction or heart phase as a series of its own"
        return None, [Finding(REFUSE, "duplicate_positions", text, fix=fix)]
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP * usual)
    if len(gaps):
        lost = int(sum(round(steps[g] / usual) - 1 for g in gaps))
        places = counted(len(gaps), "place")
        text = f"missing: {counted(lost, 'slice')} in {places}, the first after slice {gaps[0] + 1}"
        return None, [Finding(REFUSE, "gaps", text, fix="send the whole series: slices were lost on the way")]
    uneven = float(np.abs(steps / usual - 1).max())
    if uneven > UNEVEN_REFUSE:
        text = f"slices lie {steps.min():.3g} to {steps.max():.3g} mm apart"
        return None, [Finding(REFUSE, "uneven_spacing", text, fix="choose a series of even spacing")]
    found = []
    if uneven > UNEVEN_WARN:
        text = f"slices lie {steps.min():.4g} to {steps.max():.4g} mm apart; their mean is taken"
        found.append(Finding(WARN, "uneven_spacing", text, fix="prefer a series of even spacing"))
    stated = frames[0].header.between_mm
    if stated and abs(abs(stated) / usual - 1) > CONTRADICTION:
        text = f"SpacingBetweenSlices says {abs(stated):.4g} mm, the positions {usual:.4g} mm; the positions count"
        found.append(Finding(WARN, "contradictory_spacing", text, fix="compare with the scan's report"))
    way = np.subtract(frames[-1].geometry.position_mm, frames[0].geometry.position_mm)  # type: ignore[arg-type]
    along = distances[-1] - distances[0]
    tilt = float(np.degrees(np.arccos(min(along / np.linalg.norm(way), 1.0))))
    if tilt > TILT_DEGREES:
        text = f"the slices are shifted sideways against each other: a gantry tilt of {tilt:.1f} degrees"
        fix = "resample the series to a right-angled stack first, for example with dcm2niix"
        return None, [*found, Finding(REFUSE, "gantry_tilt", text, fix=fix)]
    return float(along / (len(frames) - 1)), found
