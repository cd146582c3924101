"""Who a phantom patient is: age, proportions, pose and variants, as points and radii in reference mm.

Reference coordinates: LPS, the mitral valve's centre at 0, an adult of usual size. The arrangement follows
a manual whole-heart label map of a real CT (MM-WHS, see docs/phantom.md). No voxels here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging.phantom_shapes import Frame, curve, product, rotation, turned, unit

CHILD, RIGHT_ARCH, TWO_CAVAE = 0.22, 0.08, 0.08
"""Probability of a child, of a right-sided arch, and of two superior venae cavae (rarer in life: here to be learnt)."""

MIDLINE = -25.0
"""x of the spine's and sternum's midline in reference mm."""

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
class Tube:
    """A vessel: a polyline `[n, 3]` in reference mm, and its radius at each point."""

    points: np.ndarray
    radii: np.ndarray


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


def _middle(tube: Tube, start: int, stop: int) -> float:
    """Index along a tube, halfway by length between two of its points."""
    step = np.diff(tube.points[start : stop + 1], axis=0)
    length = [math.sqrt(float(a * a + b * b + c * c)) for a, b, c in step]
    walked = 0.0
    for i, piece in enumerate(length):
        if walked + piece >= sum(length) / 2:
            return round(start + i + (sum(length) / 2 - walked) / piece, 4)
        walked += piece
    return float(stop)


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient: size, pose, proportions, variants."""
    u = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    child = u(0, 1) < CHILD
    scale = u(0.6, 0.84) if child else min(max(1.0 + 0.08 * float(rng.standard_normal()), 0.84), 1.16)
    right_arch, two_cavae = u(0, 1) < RIGHT_ARCH, u(0, 1) < TWO_CAVAE

    body = rotation(u(-6, 6), u(-6, 6), u(-18, 18))
    heart_turn = product(rotation(u(-13, 13), u(-13, 13), u(-14, 24)), np.eye(3))
    heart_shift = np.array([u(-7, 7), u(-6, 4), u(-6, 6)])
    centre = np.array([u(-34, 2), u(-14, 24), u(12, 28)])
    frame = Frame(body, round(scale, 6), tuple(-scale * turned(body, centre)))

    def place(point, weight: float = 1.0) -> np.ndarray:
        """A reference point in the heart's pose (weight 1), the chest's (0), or between."""
        p = np.asarray(point, np.float64)
        posed = turned(heart_turn, p - PIVOT) + PIVOT + heart_shift
        return np.round(weight * posed + (1 - weight) * p, 5)

    def aim(vector) -> np.ndarray:
        return unit(turned(heart_turn, unit(vector)))

    def tube(points, radii, weights, steps=5) -> Tube:
        return Tube(*curve([place(p, w) for p, w in zip(points, weights, strict=True)], radii, steps))

    # Proportions: each structure has its own factor, so that no size is told by another.
    lv_long, lv_short = u(74, 94), u(21, 27)
    la_size, ra_size, rv_size = u(0.88, 1.16), u(0.86, 1.14), u(0.88, 1.12)
    aa_radius, da_radius, pa_radius = u(13.5, 18), u(10, 13.5), u(11, 15)
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
        "lv": Blob(place(base + apex_way * 0.36 * lv_long), long_axes, (0.64 * lv_long, lv_short, lv_short * u(0.9, 1.0))),
        "papillary_front": Blob(
            place(base + apex_way * 0.50 * lv_long + np.array([5.0, -2.0, 6.0]) * (lv_short / 13)),
            long_axes, (14, u(3.0, 4.5), u(3.0, 4.5)),
        ),
        "papillary_back": Blob(
            place(base + apex_way * 0.50 * lv_long + np.array([4.0, 5.0, -5.0]) * (lv_short / 13)),
            long_axes, (14, u(3.0, 4.5), u(3.0, 4.5)),
        ),
        "la": Blob(
            place((-16, 16.5 + 2 * (la_size - 1), 12)),
            _axes(heart_turn, (1, -0.1, 0.02), (0, 1, -0.1)),
            (31 * la_size, 19.5 * la_size, 24 * la_size),
        ),
        "la_floor": Blob(
            place((-6, 9, 2)), _axes(heart_turn, (0.6, -0.74, -0.3), (0, 0, 1)), (15 * la_size, 18.0, 18.0)
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
            place((-14, -40, -17)), _axes(heart_turn, (0.8, -0.54, -0.2), (0, 0, 1)), (21 * rv_size, 23 * rv_size, 21 * rv_size)
        ),
    }

    side = (lambda x: 2 * MIDLINE - x) if right_arch else (lambda x: x)
    top = u(-3, 5)
    da_x, da_y = u(-10, -2), u(58, 64)
    ascend = [(-12, -19, 10), (-22, -22, 20), (-33, -24, 34), (-39, -22, 50), (-38, -14, 67 + top)]
    if right_arch:
        arch = [(-44, 2, 82 + top), (-46, 24, 86 + top), (-45, 44, 78 + top), (-43, 56, 60), (-41, 61, 40)]
    else:
        arch = [(-27, 1, 83 + top), (-14, 22, 86 + top), (-5, 44, 79 + top), (-2, 57, 60), (da_x, da_y, 40)]
    descend = [(side(da_x), da_y, 10), (side(da_x - 3), da_y, -30), (side(da_x - 8), da_y - 2, -75), (side(da_x - 10), da_y - 4, -130)]
    aorta_radii = [aa_radius * f for f in (0.86, 1.14, 1.0, 0.98, 0.95)] + [
        0.5 * (aa_radius + da_radius) * f for f in (0.96, 0.92, 0.9)
    ] + [da_radius] * 6
    weights = [1, 1, 1, 0.8, 0.4] + [0.0] * 9
    branch = MIDLINE + (8 if right_arch else -8)
    svc, ivc = u(8, 11), u(10.5, 14)
    far_right = -10.0 if right_arch else 0.0
    tubes = {
        "aorta": tube(ascend + arch + descend, aorta_radii, weights),
        "lvot": tube([(10, -20, -3), (-1, -19, 4), (-13, -19, 11)], [15, 12, 10.5], [1, 1, 1], 4),
        "conus": tube([(-3, -46, -12), (2, -47, 6), (-1, -45, 18), (-4, -36, 31)], [18, 17.5, 15.5, 12], [1] * 4, 4),
        "trunk": tube(
            [(-4, -37, 29), (-3, -29, 41), (-2, -16, 50), (2, 2, 55), (10, 22, 54), (16, 38, 49), (20, 47, 40)],
            [pa_radius * f for f in (0.92, 1.08, 1.0, 0.86, 0.78, 0.7, 0.55)],
            [1, 1, 0.8, 0.6, 0.4, 0.2, 0.2],
        ),
        "right_pulmonary": tube(
            [(-2, -10, 50), (-12, 4, 48), (-28, 11, 45), (-46, 14, 42), (-62, 17, 38), (-72, 22, 30)],
            [pa_radius * f for f in (0.8, 0.78, 0.74, 0.7, 0.62, 0.5)],
            [0.7, 0.5, 0.4, 0.3, 0.2, 0.2],
        ),
        "svc": tube(
            [(-50, -10, 10), (-52, -8, 24), (-53 + 0.4 * far_right, -6, 40), (-51 + far_right, -6, 64),
             (-50 + far_right, -10, 88), (-50 + far_right, -14, 112), (-50 + far_right, -16, 150)],
            [svc * f for f in (1.05, 1.1, 1.05, 1.0, 0.95, 0.9, 0.9)], [1, 1, 0.6, 0.2, 0, 0, 0],
        ),
        "ivc": tube(
            [(-48, -8, -24), (-49, 2, -42), (-48, 12, -58), (-47, 20, -90), (-45, 24, -140)],
            [ivc * f for f in (1.05, 1.0, 1.0, 1.0, 0.95)], [1, 0.8, 0.4, 0.2, 0],
        ),
        "la_appendage": tube(
            [(2, 10, 18), (12, 0, 25), (14, -12, 29), (9, -22, 31)], [8, 8.5, 7.5, 4.5], [1, 1, 1, 1], 4
        ),
        "ra_appendage": tube(
            [(-47, -30, 8), (-43, -39, 17), (-36, -46, 24), (-28, -48, 27)], [13, 10.5, 8, 5], [1, 1, 1, 1], 4
        ),
        "trachea": tube(
            [(MIDLINE, 36, 60), (MIDLINE, 32, 80), (MIDLINE, 27, 110), (MIDLINE, 22, 150)], [8.5] * 4, [0] * 4, 3
        ),
        "right_bronchus": tube([(MIDLINE, 36, 62), (-40, 36, 50), (-62, 34, 36)], [8, 6.5, 5], [0, 0, 0.2], 3),
        "left_bronchus": tube([(MIDLINE, 36, 62), (-6, 38, 46), (22, 42, 32)], [8, 6, 4.5], [0, 0, 0.2], 3),
        "oesophagus": tube(
            [(-20, 46, 150), (-21, 48, 60), (-20, 49, 20), (-16, 50, -20), (-8, 46, -60), (-4, 40, -120)],
            [6.5] * 6, [0, 0, 0, 0.2, 0, 0], 3,
        ),
        "azygos": tube([(-38, 66, 80), (-38, 68, 20), (-36, 68, -100)], [3.5] * 3, [0] * 3, 2),
        "innominate_artery": tube([(branch, 4, 84 + top), (branch - 4, 0, 108), (branch - 10, 0, 150)], [6.5, 6, 6], [0] * 3, 3),
        "left_carotid": tube([(-14, 18, 86 + top), (-8, 18, 110), (-4, 12, 150)], [4.5, 4, 4], [0] * 3, 3),
        "left_subclavian": tube([(-8, 32, 86 + top), (0, 34, 112), (8, 30, 150)], [5, 5, 5], [0] * 3, 3),
        "innominate_vein": tube([(-48 + far_right, -14, 100), (-24, -20, 106), (4, -14, 116), (30, -8, 124)], [7, 6.5, 6.5, 6], [0] * 4, 3),
        "right_coronary": tube(
            [(-24, -30, 20), (-31, -49, 2), (-34, -50, -20), (-24, -38, -38), (-8, -16, -34)], [2.0] * 5, [1] * 5, 4
        ),
    }
    if two_cavae:
        tubes["left_svc"] = tube(
            [(16, -4, 150), (18, -2, 100), (22, 4, 70), (25, 8, 48), (24, 12, 28), (22, 16, 12), (12, 21, -8), (-6, 16, -20)],
            [7, 7, 7, 7, 7, 6.5, 6, 5.5], [0, 0, 0.2, 0.5, 0.8, 1, 1, 1],
        )
    for name, points, radius in (
        ("right_upper", [(-38, 14, 20), (-52, 11, 24), (-66, 8, 30), (-78, 6, 36)], 7.5),
        ("right_lower", [(-36, 22, 6), (-50, 28, 3), (-63, 34, -2), (-76, 40, -10)], 7.5),
        ("left_upper", [(6, 18, 24), (18, 21, 30), (30, 20, 36), (42, 14, 42)], 7.0),
        ("left_lower", [(4, 25, 10), (16, 32, 7), (26, 40, 2), (36, 48, -6)], 7.0),
    ):
        size = radius * u(0.8, 1.12)
        tubes[f"vein_{name}"] = tube(points, [size * 1.15, size, 0.8 * size, 0.55 * size], [1, 1, 0.8, 0.6], 3)

    chest = {
        "x": MIDLINE + u(-2, 2), "y": 20.0, "half_x": u(106, 136), "half_y": u(78, 92),
        "right_dome": u(-36, -20), "left_dome": u(-46, -32), "fat": u(6, 26), "rib_phase": u(0, 1),
        "disc_phase": u(0, 1), "table_y": u(6, 14), "back": 0.0,
    }
    # The chest is made for the heart that it holds.
    apex = blobs["lv"].centre + blobs["lv"].axes[0] * (blobs["lv"].radii[0] + left_wall + 3)
    tight = math.hypot((apex[0] - chest["x"]) / chest["half_x"], (apex[1] - chest["y"]) / chest["half_y"])
    front = chest["y"] - (blobs["rv"].centre[1] - 28 * rv_size)
    chest["half_y"] = max(chest["half_y"], 0.97 * front)
    chest["half_x"] = round(chest["half_x"] * max(1.0, tight), 5)
    chest["half_y"] = round(chest["half_y"] * math.sqrt(max(1.0, tight)), 5)
    description = {
        "age_group": "child" if child else "adult", "scale": round(scale, 4),
        "right_arch": bool(right_arch), "two_svc": bool(two_cavae),
    }
    return Patient(
        frame, description, valves, blobs, tubes, left_wall,
        u(2.5, 4.0), u(2.2, 3.6), u(3.0, 8.0), chest, _middle(tubes["aorta"], 15, 45),
    )


def draw_lung_vessels(rng: np.random.Generator, patient: Patient) -> list[tuple[Tube, bool]]:
    """Vessels from the hila into the lungs: `(tube, is_artery)`, thinning outwards."""
    vessels = []
    ends = [(patient.tubes["trunk"].points[-1], True), (patient.tubes["right_pulmonary"].points[-1], True)]
    ends += [(t.points[-1], False) for name, t in patient.tubes.items() if name.startswith("vein_")]
    for root, artery in ends:
        outward = -1.0 if root[0] < MIDLINE else 1.0
        for _ in range(7):
            way = unit((outward * rng.uniform(0.2, 1.0), rng.uniform(-0.9, 0.9), rng.uniform(-1, 1)))
            length = float(rng.uniform(40, 75))
            wobble = [rng.uniform(-7, 7, 3) for _ in range(3)]
            points = [root] + [root + way * (length * (k + 1) / 3) + wobble[k] for k in range(3)]
            size = float(rng.uniform(2.2, 4.2))
            vessels.append((Tube(*curve(points, [size, 0.8 * size, 0.55 * size, 0.8], 2)), artery))
            for k in (1, 2):
                side = unit(rng.uniform(-1, 1, 3) + np.array([0.5 * outward, 0, 0]))
                start = points[k]
                twig = [start, start + side * 16 + wobble[0] * 0.3, start + side * 34]
                vessels.append((Tube(*curve(twig, [0.5 * size, 0.4 * size, 0.7], 1)), artery))
    # Small vessels everywhere else, pointing away from the hilum.
    for k in range(170):
        outward = -1.0 if k % 2 else 1.0
        start = np.array([MIDLINE + outward * rng.uniform(35, 120), rng.uniform(-50, 100), rng.uniform(-45, 110)])
        hilum = np.array([MIDLINE + outward * 45, 22.0, 35.0])
        way = unit(start - hilum + rng.uniform(-25, 25, 3))
        size = float(rng.uniform(1.2, 2.8))
        ends_at = start + way * float(rng.uniform(12, 28))
        vessels.append((Tube(np.array([start, ends_at]), np.array([size, 0.6 * size])), k % 3 > 0))
    return vessels
