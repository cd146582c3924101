"""Both atrioventricular valves of a heart: where they can be measured, how sure they are, and why not.

Geometry of the labels and nothing else: no finding here is a diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from heartseg_jax.anatomy import HEART
from heartseg_jax.findings import Finding
from heartseg_jax.imaging.block_checks import EXCLUDES, VALVE_SLICE_MM
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.annulus import RESAMPLES, quantities, with_intervals
from heartseg_jax.measure.border import seen_on_source, seen_pixel_mm
from heartseg_jax.measure.contact import TOLERANCE_MM, NoContact, places_of
from heartseg_jax.measure.models import with_models, with_range
from heartseg_jax.measure.repeats import instability
from heartseg_jax.measure.results import (
    ABSENT,
    MEASURED,
    REFUSED,
    UNCERTAIN,
    WIDE_INTERVAL,
    Quantity,
    StructureMeasurement,
    ValveMeasurement,
)
from heartseg_jax.measure.rim import frame_of
from heartseg_jax.measure.ring import Ring, check_grid, find_ring
from heartseg_jax.measure.septal_offset import apex_of, septal_offsets
from heartseg_jax.measure.status import LOW_AGREEMENT
from heartseg_jax.threads import map_in_order

MITRAL, TRICUSPID = "mitral", "tricuspid"
CHAMBERS = {MITRAL: ("left_atrium", "left_ventricle"), TRICUSPID: ("right_atrium", "right_ventricle")}
"""Of each valve, the one upstream first."""
LABEL = {structure.name: structure.label for structure in HEART.foreground}
AORTIC_SHARE, NEAREST_MM = 0.05, 10.0
"""Least share of the aortic valve's contact; how much of the aorta is its root where the valve shows no ring."""
WORKERS = 2
"""Models whose valves are measured at once."""


class Valves(NamedTuple):
    """Both valves, and the septal offset; None where one of the two is refused."""

    mitral: ValveMeasurement | None
    tricuspid: ValveMeasurement | None
    septal_offset_mm: Quantity | None


def measure_valves(prediction: Prediction, rows: Sequence[StructureMeasurement]) -> Valves:
    """Return the valves of a prediction; none of them in label sets other than the heart's.

    Args:
      prediction: with its labels.
      rows: what was measured of its structures.
    """
    if prediction.contract.label_set is not HEART:
        return Valves(None, None, None)
    by_name = {row.name: row for row in rows}
    barred, doubts = {}, {}
    coarse = _coarse(prediction)
    for valve, names in CHAMBERS.items():
        chambers = [by_name[name] for name in names]
        barred[valve] = _barred(prediction, chambers)
        doubts[valve] = coarse + [
            f"models, or the views of one, agree little on {row.name} (mean pairwise Dice {row.agreement:.2f})"
            for row in chambers
            if row.agreement is not None and row.agreement < LOW_AGREEMENT
        ]
    seen = seen_on_source(prediction)
    found = valves_of_labels(prediction.volume, prediction.labels, barred, doubts, seen=seen)
    if prediction.by_model is None:
        return found
    # What the mean does not show, no model is asked for.
    left = {name: "not asked for" for name in CHAMBERS if getattr(found, name).status == REFUSED}
    if len(left) == len(CHAMBERS):
        return found

    def alone(labels: np.ndarray) -> Valves:
        return valves_of_labels(prediction.volume, labels, left, seen=seen, resamples=0, repeated=False)

    each = list(map_in_order(alone, prediction.by_model, WORKERS))
    return Valves(
        with_models(found.mitral, [one.mitral for one in each]),
        with_models(found.tricuspid, [one.tricuspid for one in each]),
        with_range(found.septal_offset_mm, [one.septal_offset_mm for one in each]),
    )


def valves_of_labels(
    volume: Volume,
    labels: np.ndarray,
    barred: dict[str, str] | None = None,
    doubts: dict[str, list[str]] | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    seen: tuple[slice, ...] | None = None,
    resamples: int = RESAMPLES,
    repeated: bool = True,
) -> Valves:
    """Return what labels show of both valves.

    Args:
      volume: the grid of the labels.
      labels: `[Z, Y, X]` uint8, of the heart's label set.
      barred: by valve, why it is refused whatever the labels show; '' where nothing bars it.
      doubts: by valve, what makes it uncertain beside what the labels show.
      tolerance_mm: of the contacts.
      seen: the part of the grid that was labelled; all of it where None.
      resamples: how many curves are drawn for intervals; 0 for none.
      repeated: whether a valve that other grids show elsewhere is refused.
    """
    aorta = _aorta(volume, labels)
    outflows = {MITRAL: aorta, TRICUSPID: None}
    rings = {
        valve: (barred or {}).get(valve, "")
        or _ring_or_reason(volume, labels, valve, tolerance_mm, seen, outflow, resamples)
        for valve, outflow in outflows.items()
    }
    stable, measured = dict(rings), {}
    for valve, ring in rings.items():
        if isinstance(ring, str):
            measured[valve] = ValveMeasurement(valve, REFUSED, ring)
            continue
        root = _aortic_root(volume, labels, aorta) if valve == MITRAL else None
        towards = _septum(volume, labels, rings[MITRAL]) if valve == TRICUSPID else root and root.centre
        unstable = repeated and instability(volume, labels, _pair(valve), ring, towards, outflows[valve])
        if unstable:
            stable[valve] = unstable
            measured[valve] = ValveMeasurement(valve, REFUSED, unstable)
            continue
        normal = root and root.normal
        measured[valve] = _measured(valve, volume, ring, towards, normal, (doubts or {}).get(valve, []))
    offset = _offset(volume, labels, stable[MITRAL], stable[TRICUSPID])
    return Valves(measured[MITRAL], measured[TRICUSPID], offset)


class _Root(NamedTuple):
    """The aortic root's centre `[3]` mm, and its valve's normal `[3]`, None where it shows no ring."""

    centre: np.ndarray
    normal: np.ndarray | None


def _barred(prediction: Prediction, chambers: Sequence[StructureMeasurement]) -> str:
    """Return why a valve between chambers is not measured at all; '' where nothing bars it."""
    for row in chambers:
        if row.withheld:
            return f"{row.name} cannot be trusted: {row.reason}"
        if row.status == ABSENT:
            return f"there is no {row.name}"
    if not prediction.intake.spacing_known:
        return "the spacing is unknown"
    return next((finding.seen for finding in prediction.findings if _bars(finding)), "")


def _coarse(prediction: Prediction) -> list[str]:
    """Return that the network saw too little detail for a valve; nothing where it saw enough."""
    if not prediction.intake.spacing_known:
        return []
    pixel_mm = seen_pixel_mm(prediction)
    if pixel_mm <= VALVE_SLICE_MM:
        return []
    return [f"the model sees pixels of {pixel_mm:.2g} mm, and places no border more finely"]


def _bars(finding: Finding) -> bool:
    """Whether a finding rules a valve's measurement out; slices that are coarse for it only make it uncertain."""
    return "valve" in EXCLUDES.get(finding.check, ()) and finding.check != "coarse_for_valve"


def _ring_or_reason(
    volume: Volume,
    labels: np.ndarray,
    valve: str,
    tolerance_mm: float,
    seen: tuple[slice, ...] | None,
    outflow: np.ndarray | None,
    resamples: int,
) -> Ring | str:
    try:
        check_grid(volume, labels)
        for name in CHAMBERS[valve]:
            if not (labels == LABEL[name]).any():
                return f"there is no {name}"
        return find_ring(volume, labels, _pair(valve), tolerance_mm, seen=seen, resamples=resamples, outflow=outflow)
    except NoContact as reason:
        return str(reason)


def _pair(valve: str) -> tuple[int, int]:
    """Return the labels of a valve's chambers, the one upstream first."""
    upstream, downstream = CHAMBERS[valve]
    return LABEL[upstream], LABEL[downstream]


def _measured(
    valve: str,
    volume: Volume,
    ring: Ring,
    towards: np.ndarray | None,
    aortic_normal: np.ndarray | None,
    doubts: Sequence[str],
) -> ValveMeasurement:
    values, resampled = (
        quantities(curves, ring.normal, towards, aortic_normal)
        for curves in (ring.annulus.curve[None], ring.annulus.resampled)
    )
    found = {name: with_intervals(values[name][0], resampled[name]) for name in values}
    every = [*doubts, *ring.doubts]
    area = found["area_cm2"]
    if area.high is not None and area.low is not None and area.high - area.low > WIDE_INTERVAL * area.value:
        every.append(f"the rim is uneven: resampled, its area is {area.low:.1f} to {area.high:.1f} cm2")
    if max(volume.spacing_mm) > VALVE_SLICE_MM:
        every.insert(0, f"voxels of up to {max(volume.spacing_mm):.3g} mm make its area wrong by up to about 10 %")
    return ValveMeasurement(
        valve=valve,
        status=UNCERTAIN if every else MEASURED,
        reason="; ".join(every),
        centre_mm=ring.centre,
        normal=ring.normal,
        septal=None if towards is None else frame_of(ring.normal, towards - ring.centre)[0],
        curve_mm=ring.annulus.curve,
        quantities=found,
    )


def _aorta(volume: Volume, labels: np.ndarray) -> np.ndarray | None:
    """Return the middle of the part of the ascending aorta that is nearest to the left ventricle; None without one."""
    aorta, left = (np.argwhere(labels == LABEL[name])[::5] for name in ("ascending_aorta", "left_ventricle"))
    if not len(aorta) or not len(left):
        return None
    places = places_of(volume, aorta)
    away, _ = cKDTree(places_of(volume, left)).query(places)
    return places[away < away.min() + NEAREST_MM].mean(axis=0)


def _aortic_root(volume: Volume, labels: np.ndarray, aorta: np.ndarray | None) -> _Root | None:
    """Return the aortic root: its valve's ring, or where it shows none, `aorta`."""
    if aorta is None:
        return None
    try:
        pair = (LABEL["left_ventricle"], LABEL["ascending_aorta"])
        aortic = find_ring(volume, labels, pair, TOLERANCE_MM, AORTIC_SHARE, resamples=0)
        return _Root(aortic.centre, aortic.normal)
    except NoContact:
        return _Root(aorta, None)


def _septum(volume: Volume, labels: np.ndarray, mitral: Ring | str) -> np.ndarray | None:
    """Return a place towards which the septum lies from the right side: the mitral valve, or the left ventricle."""
    if isinstance(mitral, Ring):
        return mitral.centre
    left = np.argwhere(labels == LABEL["left_ventricle"])
    return places_of(volume, left.mean(axis=0)[None])[0] if len(left) else None


def _offset(volume: Volume, labels: np.ndarray, mitral: Ring | str, tricuspid: Ring | str) -> Quantity | None:
    if isinstance(mitral, str) or isinstance(tricuspid, str):
        return None
    left = places_of(volume, np.argwhere(labels == LABEL["left_ventricle"])[::5])
    apex = apex_of(left, mitral.centre)
    value, resampled = (
        septal_offsets(one, other, apex)
        for one, other in (
            (mitral.annulus.curve[None], tricuspid.annulus.curve[None]),
            (mitral.annulus.resampled, tricuspid.annulus.resampled),
        )
    )
    return with_intervals(value[0], resampled)
