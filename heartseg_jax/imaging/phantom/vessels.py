"""Where a phantom patient's vessels and airways run: centrelines and radii in reference mm. No chambers, no voxels.

A path is rows of `(x, y, z, radius, weight)`: weight 1 moves with the heart's pose, 0 stays with the chest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging.phantom.shapes import curve, unit

MIDLINE = -25.0
"""x of the spine's and sternum's midline in reference mm."""

ARCH_STEPS = 5
"""Points of the aorta's curve between two rows of its path."""

ARCH_ENDS = (3, 9)
"""Rows of the aorta's path between which the arch lies: from the pulmonary bifurcation's level and back to it."""


@dataclass(frozen=True)
class Tube:
    """A vessel: a polyline `[n, 3]` in reference mm, and its radius at each point."""

    points: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True)
class Calibres:
    """Radii of a patient's vessels in reference mm, and the variants that move them."""

    ascending: float
    descending: float
    pulmonary: float
    superior_cava: float
    inferior_cava: float
    veins: tuple[float, float, float, float]
    arch_rise: float
    descending_at: tuple[float, float]
    right_arch: bool
    two_cavae: bool


def draw_calibres(rng: np.random.Generator, right_arch: bool, two_cavae: bool) -> Calibres:
    """Draw the calibres: sources of the ranges stand in docs/phantom.md."""
    u = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    return Calibres(
        ascending=u(13.5, 18),
        descending=u(10, 13.5),
        pulmonary=u(11, 15),
        superior_cava=u(8, 11),
        inferior_cava=u(10.5, 14),
        veins=(u(6, 8.4), u(6, 8.4), u(5.6, 7.8), u(5.6, 7.8)),
        arch_rise=u(-3, 5),
        descending_at=(u(-10, -2), u(58, 64)),
        right_arch=right_arch,
        two_cavae=two_cavae,
    )


def aorta(c: Calibres) -> list[tuple[float, ...]]:
    """The aorta's path, from the valve over the arch (left or right of the trachea) and down beside the spine."""
    a, d, m, up = c.ascending, c.descending, (c.ascending + c.descending) / 2, c.arch_rise
    x, y = c.descending_at
    side = (lambda v: 2 * MIDLINE - v) if c.right_arch else (lambda v: v)
    ascend: list[tuple[float, ...]] = [
        (-12, -19, 10, 0.86 * a, 1),
        (-22, -22, 20, 1.14 * a, 1),
        (-33, -24, 34, a, 1),
        (-39, -22, 50, 0.98 * a, 0.8),
        (-38, -14, 67 + up, 0.95 * a, 0.4),
    ]
    arch: list[tuple[float, float, float]]
    if c.right_arch:
        arch = [(-44, 2, 82), (-46, 24, 86), (-45, 44, 78), (-43, 56, 60 - up), (-41, 61, 40 - up)]
    else:
        arch = [(-27, 1, 83), (-14, 22, 86), (-5, 44, 79), (-2, 57, 60 - up), (x, y, 40 - up)]
    radii = (0.96 * m, 0.92 * m, 0.9 * m, d, d)
    over: list[tuple[float, ...]] = [(px, py, pz + up, r, 0) for (px, py, pz), r in zip(arch, radii, strict=True)]
    down = [(side(x), y, 10), (side(x - 3), y, -30), (side(x - 8), y - 2, -75), (side(x - 10), y - 4, -130)]
    return ascend + over + [(*p, d, 0) for p in down]


def paths(c: Calibres) -> dict[str, list[tuple[float, ...]]]:
    """Every vessel and airway but the lungs' own, by name."""
    p, s, i = c.pulmonary, c.superior_cava, c.inferior_cava
    up, mid = c.arch_rise, MIDLINE
    far = -10.0 if c.right_arch else 0.0
    side = (lambda v: 2 * MIDLINE - v) if c.right_arch else (lambda v: v)
    confluence = (-50 + far, -13, 104)
    table: dict[str, list[tuple[float, ...]]] = {
        "aorta": aorta(c),
        "lvot": [(10, -20, -3, 15, 1), (-1, -19, 4, 12, 1), (-13, -19, 11, 10.5, 1)],
        "conus": [(-3, -46, -12, 18, 1), (2, -47, 6, 17.5, 1), (-1, -45, 18, 15.5, 1), (-4, -36, 31, 12, 1)],
        "trunk": [
            (-4, -37, 29, 0.92 * p, 1),
            (-3, -29, 41, 1.08 * p, 1),
            (-2, -16, 50, p, 0.8),
            (2, 2, 55, 0.86 * p, 0.6),
            (10, 22, 54, 0.78 * p, 0.4),
            (16, 38, 49, 0.7 * p, 0.2),
            (20, 47, 40, 0.55 * p, 0.2),
        ],
        "right_pulmonary": [
            (-2, -10, 50, 0.8 * p, 0.7),
            (-12, 4, 48, 0.78 * p, 0.5),
            (-28, 11, 45, 0.74 * p, 0.4),
            (-46, 14, 42, 0.7 * p, 0.3),
            (-62, 17, 38, 0.62 * p, 0.2),
            (-72, 22, 30, 0.5 * p, 0.2),
        ],
        "svc": [
            (-50, -10, 10, 1.05 * s, 1),
            (-52, -8, 24, 1.1 * s, 1),
            (-53 + 0.4 * far, -6, 40, 1.05 * s, 0.6),
            (-51 + far, -6, 64, s, 0.2),
            (-50 + far, -10, 88, 0.95 * s, 0),
            (*confluence, 0.92 * s, 0),
        ],
        "ivc": [
            (-48, -8, -24, 1.05 * i, 1),
            (-49, 2, -42, i, 0.8),
            (-48, 12, -58, i, 0.4),
            (-47, 20, -90, i, 0.2),
            (-45, 24, -140, 0.95 * i, 0),
        ],
        "la_appendage": [(2, 10, 18, 8, 1), (12, 0, 25, 8.5, 1), (14, -12, 29, 7.5, 1), (9, -22, 31, 4.5, 1)],
        "ra_appendage": [(-47, -30, 8, 13, 1), (-43, -39, 17, 10.5, 1), (-36, -46, 24, 8, 1), (-28, -48, 27, 5, 1)],
        "trachea": [(mid, 36, 60, 8.5, 0), (mid, 32, 80, 8.5, 0), (mid, 27, 110, 8.5, 0), (mid, 22, 150, 8.5, 0)],
        "right_bronchus": [(mid, 36, 62, 8, 0), (-40, 36, 50, 6.5, 0), (-62, 34, 36, 5, 0.2)],
        "left_bronchus": [(mid, 36, 62, 8, 0), (-6, 38, 46, 6, 0), (22, 42, 32, 4.5, 0.2)],
        "oesophagus": [
            (-20, 46, 150, 6.5, 0),
            (-21, 48, 60, 6.5, 0),
            (-20, 49, 20, 6.5, 0),
            (-16, 50, -20, 6.5, 0.2),
            (-8, 46, -60, 6.5, 0),
            (-4, 40, -120, 6.5, 0),
        ],
        "azygos": [(-38, 66, 80, 3.5, 0), (-38, 68, 20, 3.5, 0), (-36, 68, -100, 3.5, 0)],
        "artery_innominate": [
            (side(-33), 4, 84 + up, 6.5, 0),
            (side(-37), 0, 108, 6, 0),
            (side(-43), 0, 150, 6, 0),
        ],
        "artery_carotid": [(side(-14), 18, 86 + up, 4.5, 0), (side(-8), 18, 110, 4, 0), (side(-4), 12, 150, 4, 0)],
        "artery_subclavian": [(side(-8), 32, 86 + up, 5, 0), (side(0), 34, 112, 5, 0), (side(8), 30, 150, 5, 0)],
        "vein_neck_right": [(*confluence, 0.9 * s, 0), (-54 + far, -16, 150, 7, 0)],
        "right_coronary": [
            (-24, -30, 20, 2, 1),
            (-31, -49, 2, 2, 1),
            (-34, -50, -20, 2, 1),
            (-24, -38, -38, 2, 1),
            (-8, -16, -34, 2, 1),
        ],
    }
    if c.two_cavae:
        table["left_svc"] = [
            (18, -2, 104, 7, 0),
            (22, 4, 70, 7, 0.2),
            (25, 8, 48, 7, 0.5),
            (24, 12, 28, 7, 0.8),
            (22, 16, 12, 6.5, 1),
            (12, 21, -8, 6, 1),
            (-6, 16, -20, 5.5, 1),
        ]
        table["vein_neck_left"] = [(18, -2, 104, 7, 0), (14, -6, 150, 7, 0)]
    else:
        table["vein_neck_left"] = [
            (*confluence, 7, 0),
            (-24, -20, 107, 6.5, 0),
            (4, -14, 116, 6.5, 0),
            (30, -8, 124, 6, 0),
        ]
    stems = (
        ("right_upper", [(-38, 14, 20), (-52, 11, 24), (-66, 8, 30), (-78, 6, 36)]),
        ("right_lower", [(-36, 22, 6), (-50, 28, 3), (-63, 34, -2), (-76, 40, -10)]),
        ("left_upper", [(6, 18, 24), (18, 21, 30), (30, 20, 36), (42, 14, 42)]),
        ("left_lower", [(4, 25, 10), (16, 32, 7), (26, 40, 2), (36, 48, -6)]),
    )
    for size, (name, points) in zip(c.veins, stems, strict=True):
        shape = zip(points, (1.15, 1.0, 0.8, 0.55), (1, 1, 0.8, 0.6), strict=True)
        table[f"lung_vein_{name}"] = [(*q, f * size, w) for q, f, w in shape]
    return table


def tubes(c: Calibres, place: Callable[[tuple[float, ...], float], np.ndarray]) -> dict[str, Tube]:
    """The vessels as curves; `place(point, weight)` puts a reference point in the patient's pose."""
    made = {}
    for name, rows in paths(c).items():
        steps = 3 if name.startswith("lung_vein") else ARCH_STEPS
        made[name] = Tube(*curve([place(r[:3], r[4]) for r in rows], [r[3] for r in rows], steps))
    return made


def arch_middle(tube: Tube) -> float:
    """Index along the aorta's curve of the arch's middle, by length."""
    start, stop = (row * ARCH_STEPS for row in ARCH_ENDS)
    step = np.diff(tube.points[start : stop + 1], axis=0)
    length = [math.sqrt(float(a * a + b * b + c * c)) for a, b, c in step]
    half, walked = sum(length) / 2, 0.0
    for i, piece in enumerate(length):
        if walked + piece >= half:
            return round(start + i + (half - walked) / piece, 4)
        walked += piece
    return float(stop)


def lung_vessels(rng: np.random.Generator, stems: dict[str, Tube]) -> list[tuple[Tube, bool]]:
    """Vessels from the hila into the lungs: `(tube, is_artery)`, thinning outwards."""
    vessels = []
    roots = [(stems["trunk"].points[-1], True), (stems["right_pulmonary"].points[-1], True)]
    roots += [(t.points[-1], False) for name, t in stems.items() if name.startswith("lung_vein_")]
    for root, artery in roots:
        outward = -1.0 if root[0] < MIDLINE else 1.0
        for _ in range(7):
            way = unit((outward * rng.uniform(0.2, 1.0), rng.uniform(-0.9, 0.9), rng.uniform(-1, 1)))
            length = float(rng.uniform(40, 75))
            wobble = [rng.uniform(-7, 7, 3) for _ in range(3)]
            points = [root] + [root + way * (length * (k + 1) / 3) + wobble[k] for k in range(3)]
            size = float(rng.uniform(2.2, 4.2))
            vessels.append((Tube(*curve(points, [size, 0.8 * size, 0.55 * size, 0.8], 2)), artery))
            for start in points[1:3]:
                aside = unit(rng.uniform(-1, 1, 3) + np.array([0.5 * outward, 0, 0]))
                twig = [start, start + aside * 16 + wobble[0] * 0.3, start + aside * 34]
                vessels.append((Tube(*curve(twig, [0.5 * size, 0.4 * size, 0.7], 1)), artery))
    # Small vessels everywhere else, pointing away from the hilum.
    for k in range(170):
        outward = -1.0 if k % 2 else 1.0
        start = np.array([MIDLINE + outward * rng.uniform(35, 120), rng.uniform(-50, 100), rng.uniform(-45, 110)])
        hilum = np.array([MIDLINE + outward * 45, 22.0, 35.0])
        way = unit(start - hilum + rng.uniform(-25, 25, 3))
        size = float(rng.uniform(1.2, 2.8))
        end = start + way * float(rng.uniform(12, 28))
        vessels.append((Tube(np.array([start, end]), np.array([size, 0.6 * size])), k % 3 > 0))
    return vessels
