"""Who a phantom patient is: age, proportions, pose and variants, as points and radii in reference mm.

Reference coordinates: LPS, the mitral valve's centre at 0, an adult of usual size. The arrangement follows
a manual whole-heart label map of a real CT (MM-WHS, see docs/phantom.md). No voxels here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging.phantom.shapes import Frame, product, rotation, turned, unit
from heartseg_jax.imaging.phantom.vessels import MIDLINE, Tube, arch_middle, draw_calibres, tubes

CHILD, RIGHT_ARCH, TWO_CAVAE, DILATED = 0.22, 0.08, 0.08, 0.2
"""Probability of a child, a right-sided arch, two superior cavae, a dilated right heart (rarer in life)."""

PIVOT = (-20.0, -8.0, 8.0)
"""The point about which the heart turns within the chest."""


@dataclass(frozen=True)
class Valve:
    """A valve: centre and radius in reference mm, flow direction, and how far its leaflets bulge downstream."""

    centre: np.ndarray
    flow: np.ndarray
    radius: float
    tent: float


@dataclass(frozen=True)
class Blob:
    """An ellipsoid: centre, rows of unit axes, radii in reference mm."""

    centre: np.ndarray
    axes: np.ndarray
    radii: tuple[float, float, float]


@dataclass(frozen=True)
class Patient:
    """Everything that the drawing of one patient needs."""

    frame: Frame
    description: dict
    valves: dict[str, Valve]
    blobs: dict[str, Blob]
    tubes: dict[str, Tube]
    left_wall: float
    right_wall: float
    septum: float
    fat: float
    chest: dict[str, float]
    arch_middle: float


def _axes(matrix: np.ndarray, first, second) -> np.ndarray:
    """Three orthogonal rows: the first along `first`, the second as near `second` as can be, turned by `matrix`."""
    a = unit(first)
    b = np.asarray(second, np.float64)
    dot = float(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])
    b = unit(b - dot * a)
    c = np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
    return np.array([turned(matrix, v) for v in (a, b, c)])


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: size, pose, proportions, variants."""
    u = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    child = u(0, 1) < CHILD
    scale = u(0.6, 0.84) if child else min(max(1.0 + 0.08 * float(rng.standard_normal()), 0.84), 1.16)
    right_arch, two_cavae = u(0, 1) < RIGHT_ARCH, u(0, 1) < TWO_CAVAE

    body = rotation(u(-6, 6), u(-6, 6), u(-18, 18))
    heart_turn = product(rotation(u(-13, 13), u(-13, 13), u(-14, 24)), np.eye(3))
    heart_shift = np.array([u(-7, 7), u(-6, 4), u(-6, 6)])
    centre = np.array([u(-34, 2), u(-14, 24), u(17, 31)])
    frame = Frame(body, round(scale, 6), tuple(-scale * turned(body, centre)))

    def place(point, weight: float = 1.0) -> np.ndarray:
        """A reference point in the heart's pose (weight 1), the chest's (0), or between."""
        p = np.asarray(point, np.float64)
        posed = turned(heart_turn, p - PIVOT) + PIVOT + heart_shift
        return np.round(weight * posed + (1 - weight) * p, 5)

    def aim(vector) -> np.ndarray:
        return unit(turned(heart_turn, unit(vector)))

    # Proportions: each structure has its own factor, so that no size can be derived from another.
    lv_long, lv_short = u(74, 94), u(21, 27)
    la_size, ra_size, rv_size = u(0.88, 1.16), u(0.88, 1.14), u(0.9, 1.1)
    right_dilated = u(0, 1) < DILATED
    if right_dilated:
        ra_size, rv_size = ra_size * u(1.08, 1.2), rv_size * u(1.06, 1.16)
    left_wall = u(7.5, 11.5)

    valves = {
        "mitral": Valve(place((0, 0, 0)), aim((0.60, -0.74, -0.30)), u(13.5, 17), u(3, 6)),
        "tricuspid": Valve(place((-25, -31, -17)), aim((0.80, -0.54, -0.20)), u(14, 18), u(2, 5)),
        "aortic": Valve(place((-12, -19, 10)), aim((-0.62, -0.22, 0.75)), u(10.5, 12.5), u(0.5, 2)),
        "pulmonary": Valve(place((-4, -37, 29)), aim((0.0, 0.42, 0.9)), u(10.5, 13), u(0.5, 2)),
    }

    apex_way = unit((0.655 + u(-0.06, 0.06), -0.585 + u(-0.06, 0.06), -0.48 + u(-0.06, 0.06)))
    base = np.array([2.0, -7.0, 0.0])
    long_axes = _axes(heart_turn, apex_way, (0.0, -0.6, 0.8))
    blobs = {
        "lv": Blob(
            place(base + apex_way * 0.36 * lv_long), long_axes, (0.64 * lv_long, lv_short, lv_short * u(0.9, 1.0))
        ),
        "papillary_front": Blob(
            place(base + apex_way * 0.50 * lv_long + np.array([5.0, -2.0, 6.0]) * (lv_short / 13)),
            long_axes,
            (14.0, u(3.0, 4.5), u(3.0, 4.5)),
        ),
        "papillary_back": Blob(
            place(base + apex_way * 0.50 * lv_long + np.array([4.0, 5.0, -5.0]) * (lv_short / 13)),
            long_axes,
            (14.0, u(3.0, 4.5), u(3.0, 4.5)),
        ),
        "la": Blob(
            place((-16, 16.5 + 2 * (la_size - 1), 12)),
            _axes(heart_turn, (1, -0.1, 0.02), (0, 1, -0.1)),
            (31 * la_size, 19.5 * la_size, 24 * la_size),
        ),
        "la_floor": Blob(
            place((-6, 9, 2)), _axes(heart_turn, (0.6, -0.74, -0.3), (0, 0, 1)), (15.0 * la_size, 18.0, 18.0)
        ),
        "ra": Blob(
            place((-47, -20, -9)),
            _axes(heart_turn, (0.25, 0.40, -0.88), (0.46, -0.81, -0.30)),
            (35 * ra_size, 28 * ra_size, 21 * ra_size),
        ),
        "rv": Blob(
            place((5, -42, -19)),
            _axes(heart_turn, (0.78, -0.48, -0.36), (-0.2, -0.1, 0.95)),
            (51 * rv_size, 30 * rv_size, 28 * rv_size),
        ),
        "rv_inlet": Blob(
            place((-14, -40, -17)),
            _axes(heart_turn, (0.8, -0.54, -0.2), (0, 0, 1)),
            (21 * rv_size, 23 * rv_size, 21 * rv_size),
        ),
    }

    calibres = draw_calibres(rng, right_arch, two_cavae)
    vessels = tubes(calibres, place)

    chest = {
        "x": MIDLINE + u(-2, 2),
        "y": 20.0,
        "half_x": u(98, 120) if child else u(108, 136),
        "half_y": u(74, 86) if child else u(78, 92),
        "right_dome": u(-36, -20),
        "left_dome": u(-46, -32),
        "fat": u(6, 26),
        "rib_phase": u(0, 1),
        "disc_phase": u(0, 1),
        "table_y": u(6, 14),
        "back": 0.0,
    }
    # The chest is made for the heart that it holds.
    apex = blobs["lv"].centre + blobs["lv"].axes[0] * (blobs["lv"].radii[0] + left_wall + 3)
    tight = math.hypot((apex[0] - chest["x"]) / chest["half_x"], (apex[1] - chest["y"]) / chest["half_y"])
    front = chest["y"] - (blobs["rv"].centre[1] - 28 * rv_size)
    chest["half_y"] = max(chest["half_y"], 0.97 * front)
    chest["half_x"] = round(chest["half_x"] * max(1.0, tight), 5)
    chest["half_y"] = round(chest["half_y"] * math.sqrt(max(1.0, tight)), 5)
    description = {
        "age_group": "child" if child else "adult",
        "scale": round(scale, 4),
        "right_arch": bool(right_arch),
        "right_dilated": bool(right_dilated),
        "two_svc": bool(two_cavae),
    }
    return Patient(
        frame,
        description,
        valves,
        blobs,
        vessels,
        left_wall,
        u(2.5, 4.0),
        u(2.2, 3.6),
        u(3.0, 8.0),
        chest,
        arch_middle(vessels["aorta"]),
    )
