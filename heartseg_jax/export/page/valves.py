"""What the review page draws of each valve: annulus and plane, in NIfTI's axes, and as tubes for the 3D view."""

from __future__ import annotations

from typing import Any

import numpy as np

from heartseg_jax.export.markups import COLOURS
from heartseg_jax.export.page.surfaces import mz3
from heartseg_jax.measure.region import axes_of, side_mm
from heartseg_jax.measure.results import REFUSED, Measurements, ValveMeasurement

ANNULUS_MM, PLANE_MM = 1.0, 0.4
"""Radii of the tubes."""
SIDES = 10
"""Of a tube."""
TO_RAS = np.array([-1.0, -1.0, 1.0])


def drawn(measurements: Measurements) -> list[dict[str, Any]]:
    """Return colour, centre, annulus and the plane's corners of each valve that was measured: mm to R, A, S."""
    return [
        {
            "name": valve.valve,
            "rgb": list(COLOURS[valve.valve]),
            "centre_mm": _rounded(valve.centre_mm),
            "curve_mm": _rounded(valve.curve_mm),
            "square_mm": _rounded(square(valve)),
        }
        for valve in _measured(measurements)
    ]


def packed_tubes(measurements: Measurements) -> dict[str, bytes]:
    """Return a compressed MZ3 file for each valve that was measured: its annulus, and the frame of its plane."""
    found = {}
    for valve in _measured(measurements):
        assert valve.curve_mm is not None
        assert valve.normal is not None
        points, faces = tube(valve.curve_mm, valve.normal, ANNULUS_MM)
        more, others = tube(square(valve), valve.normal, PLANE_MM)
        both = np.concatenate([points, more]) * TO_RAS
        found[valve.valve] = mz3(both, np.concatenate([faces, others + len(points)]))
    return found


def square(valve: ValveMeasurement) -> np.ndarray:
    """Return the corners `[4, 3]` of the plane's square, in LPS."""
    x, y, _ = side_mm(valve) / 2 * axes_of(valve)
    return np.asarray(valve.centre_mm) + np.array([-x - y, x - y, x + y, y - x])


def tube(points: np.ndarray, normal: np.ndarray, radius_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices `[N * SIDES, 3]` and faces of a tube along the closed line through `points [N, 3]`.

    The line runs nowhere along the normal. Seen from outside, faces turn counter-clockwise.
    """
    along = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    out = np.cross(along, normal)
    up = np.cross(out, along)
    out, up = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (out, up))
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    rings = points[:, None] + radius_mm * (out[:, None] * np.cos(angle)[:, None] + up[:, None] * np.sin(angle)[:, None])
    here = np.arange(len(points))[:, None] * SIDES + np.arange(SIDES)
    next_side, next_ring = np.roll(here, -1, 1), np.roll(here, -1, 0)
    beyond = np.roll(next_ring, -1, 1)
    faces = np.concatenate([np.stack([here, next_ring, next_side], -1), np.stack([next_side, next_ring, beyond], -1)])
    return rings.reshape(-1, 3), faces.reshape(-1, 3)


def _measured(measurements: Measurements) -> list[ValveMeasurement]:
    valves = (measurements.mitral, measurements.tricuspid)
    return [valve for valve in valves if valve is not None and valve.status != REFUSED]


def _rounded(points: np.ndarray | None) -> Any:
    return np.round(np.asarray(points) * TO_RAS, 3).tolist()
