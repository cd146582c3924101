"""Both atrioventricular valves of a heart: where they can be measured, how sure they are, and why not.

Geometry of the labels and nothing else: no finding here is a diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.findings import Finding
from heartseg_jax.imaging.block_checks import COARSE_MM, EXCLUDES, VALVE_SLICE_MM
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.annulus import Annulus, closed_curve, fitted_plane, planes, quantities, with_intervals
from heartseg_jax.measure.contact import TOLERANCE_MM, NoContact, find_contact, indices_of, places_of
from heartseg_jax.measure.results import (
    ABSENT,
    MEASURED,
    REFUSED,
    Quantity,
    StructureMeasurement,
    ValveMeasurement,
)
from heartseg_jax.measure.rim import OPEN_MM, RAYS, Midway, find_rim, frame_of

UNCERTAIN = "uncertain"
CHAMBERS = {"mitral": ("left_atrium", "left_ventricle"), "tricuspid": ("right_atrium", "right_ventricle")}
AORTIC = ("left_ventricle", "ascending_aorta")
LABEL = {structure.name: structure.label for structure in HEART.foreground}
ANISOTROPIC = 6.0
"""Slices so many pixels apart show no rim in most half-planes."""
FEWEST_RAYS, FEW_RAYS = 0.75, 0.9
"""Share of half-planes in which the chambers part: below the first the contact is open, below the second doubtful."""
NEAR_MM = 5.0
"""A chamber that the border cuts so near to the valve is not whole there."""
WIDE_GAP_MM = 3.0
ROUNDS = 3


@dataclass(frozen=True)
class Ring:
    """An annulus with its plane: centre `[3]` mm and normal `[3]`, downstream."""

    annulus: Annulus
    centre: np.ndarray
    normal: np.ndarray
    doubts: tuple[str, ...]


class Root(NamedTuple):
    """The aortic root's centre `[3]` mm, and its valve's normal `[3]`, None where it is not known."""

    centre: np.ndarray
    normal: np.ndarray | None


def measure_valves(
    prediction: Prediction, rows: Sequence[StructureMeasurement]
) -> tuple[ValveMeasurement | None, ValveMeasurement | None, Quantity | None]:
    """Return the mitral and the tricuspid valve and the septal offset; None for each in other label sets than hearts'.

    Args:
      prediction: with its labels.
      rows: what was measured of its structures.
    """
    if prediction.contract.label_set is not HEART:
        return None, None, None
    if not prediction.intake.spacing_known:
        refused = tuple(_refused(valve, "the spacing is unknown") for valve in CHAMBERS)
        return refused[0], refused[1], None
    by_name = {row.name: row for row in rows}
    found = {}
    for valve, chambers in CHAMBERS.items():
        reason = _barred(prediction.findings, [by_name[name] for name in chambers])
        found[valve] = _refused(valve, reason) if reason else measure_valve(valve, prediction.volume, prediction.labels)
    return found["mitral"], found["tricuspid"], None


def measure_valve(
    valve: str, volume: Volume, labels: np.ndarray, tolerance_mm: float = TOLERANCE_MM
) -> ValveMeasurement:
    """Return what the labels show of a valve.

    Args:
      valve: 'mitral' or 'tricuspid'.
      volume: the grid of the labels.
      labels: `[Z, Y, X]`, numbers of the heart's label set.
      tolerance_mm: of the contact.
    """
    upstream, downstream = CHAMBERS[valve]
    try:
        _check_grid(volume, labels)
        for name in CHAMBERS[valve]:
            if not (labels == LABEL[name]).any():
                raise NoContact(f"there is no {name}")
        ring = _ring(volume, labels, (LABEL[upstream], LABEL[downstream]), tolerance_mm)
    except NoContact as reason:
        return _refused(valve, str(reason))
    root = _aortic_root(volume, labels, ring) if valve == "mitral" else None
    towards = (root and root.centre) if valve == "mitral" else _septum(volume, labels)
    aortic = root.normal if root else None
    values = quantities(ring.annulus.curve[None], ring.normal, towards, aortic)
    resampled = quantities(ring.annulus.resampled, ring.normal, towards, aortic)
    doubts = list(ring.doubts)
    if max(volume.spacing_mm) > VALVE_SLICE_MM:
        doubts.insert(0, f"voxels of up to {max(volume.spacing_mm):.3g} mm make its area too large")
    return ValveMeasurement(
        valve=valve,
        status=UNCERTAIN if doubts else MEASURED,
        reason="; ".join(doubts),
        centre_mm=ring.centre,
        normal=ring.normal,
        septal=None if towards is None else frame_of(ring.normal, towards - ring.centre)[0],
        curve_mm=ring.annulus.curve,
        quantities={name: with_intervals(values[name][0], resampled[name]) for name in values},
    )


def _barred(findings: Sequence[Finding], chambers: Sequence[StructureMeasurement]) -> str:
    """Return why a valve between chambers is not measured at all; '' where nothing bars it."""
    for row in chambers:
        if row.status == ABSENT:
            return f"there is no {row.name}"
        if row.withheld:
            return f"{row.name} cannot be trusted: {row.reason}"
    for finding in findings:
        if "valve" in EXCLUDES.get(finding.check, ()) and finding.check != "coarse_for_valve":
            return finding.seen
    return ""


def _refused(valve: str, reason: str) -> ValveMeasurement:
    return ValveMeasurement(valve, REFUSED, reason)


def _check_grid(volume: Volume, labels: np.ndarray) -> None:
    widest, finest = max(volume.spacing_mm), min(volume.spacing_mm)
    if min(labels.shape) < 2:
        raise NoContact("a single slice shows no valve")
    if widest > COARSE_MM:
        raise NoContact(f"voxels of {widest:.3g} mm are too large to show a valve")
    if widest >= ANISOTROPIC * finest:
        raise NoContact(f"slices {widest:.3g} mm apart, of pixels of {finest:.3g} mm, show no rim of the valve")


def _ring(
    volume: Volume, labels: np.ndarray, pair: tuple[int, int], tolerance_mm: float, least_share: float | None = None
) -> Ring:
    """Return the ring in which two labels part. Raises NoContact."""
    contact = find_contact(volume, labels, pair, tolerance_mm, *([] if least_share is None else [least_share]))
    midway = Midway(contact)
    centre, normal = contact.centre, contact.normal
    for _ in range(ROUNDS):
        rim = find_rim(midway, centre, frame_of(normal), contact.gap_mm + OPEN_MM)
        if rim.found.mean() < FEWEST_RAYS:
            text = f"the contact is open: the two part in {rim.found.sum()} of {RAYS} directions only"
            raise NoContact(text)
        points = rim.points[rim.found]
        _, normal = fitted_plane(points, normal)
        annulus = closed_curve(points, centre, normal)
        centres, normals = planes(annulus.curve[None], normal)
        centre, normal = centres[0], normals[0]
    _check_border(volume, labels, pair, annulus.curve)
    doubts = []
    if rim.found.mean() < FEW_RAYS:
        doubts.append(f"the two chambers part in {rim.found.sum()} of {RAYS} directions only")
    if contact.gap_mm > WIDE_GAP_MM:
        doubts.append(f"the chambers lie {contact.gap_mm:.1f} mm apart")
    return Ring(annulus, centre, normal, tuple(doubts))


def _check_border(volume: Volume, labels: np.ndarray, pair: tuple[int, int], curve: np.ndarray) -> None:
    """Raise NoContact where the block's border cuts one of the labels near the curve."""
    margin = NEAR_MM / np.array(volume.spacing_mm)
    index = indices_of(volume, curve)
    low, high = index.min(axis=0) - margin, index.max(axis=0) + margin
    if (low >= 0).all() and (high <= np.array(labels.shape) - 1).all():
        return
    box = tuple(slice(max(int(a), 0), int(b) + 2) for a, b in zip(low, high, strict=True))
    part = np.isin(labels[box], pair)
    for axis in range(3):
        for end, at in ((0, 0), (labels.shape[axis] - 1, -1)):
            if not box[axis].start <= end < box[axis].stop:
                continue
            cut = np.argwhere(np.take(part, [at], axis=axis))
            if not len(cut):
                continue
            cut[:, axis] = end - box[axis].start
            places = places_of(volume, cut + [side.start for side in box])
            nearest = np.linalg.norm(places[:, None] - curve[None, ::4], axis=2).min()
            if nearest < NEAR_MM:
                raise NoContact("a chamber touches the border of the field of view at the valve")


def _aortic_root(volume: Volume, labels: np.ndarray, ring: Ring) -> Root | None:
    """Return the aortic root; where the aortic valve shows no plane, the aorta's part that is nearest to the ring."""
    label = LABEL["ascending_aorta"]
    if not (labels == label).any():
        return None
    try:
        aortic = _ring(volume, labels, (LABEL["left_ventricle"], label), TOLERANCE_MM, 0.05)
        return Root(aortic.centre, aortic.normal)
    except NoContact:
        places = places_of(volume, np.argwhere(labels == label)[::7])
        away = np.linalg.norm(places - ring.centre, axis=1)
        return Root(places[away < away.min() + 10].mean(axis=0), None)


def _septum(volume: Volume, labels: np.ndarray) -> np.ndarray | None:
    """Return the middle of the left ventricle, in whose direction the septum lies from the right side."""
    left = np.argwhere(labels == LABEL["left_ventricle"])
    return places_of(volume, left.mean(axis=0)[None])[0] if len(left) else None
