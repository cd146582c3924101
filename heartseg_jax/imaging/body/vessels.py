"""The vessels that a heart's source lacks: the aorta's rest, venae cavae, pulmonary artery, and those of the lungs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.kit import ASCENDING, CAVA, DESCENDING, LEFT_ATRIUM, PULMONARY, RIGHT_ATRIUM
from heartseg_jax.imaging.body.thorax import SPACING, Thorax
from heartseg_jax.imaging.body.tubes import curve, paint_nodes, sweep, tree

LOOSE = (t.FAT, t.LUNG, t.MUSCLE, t.ORGAN, t.LIVER, t.LUNG_VESSEL)
WALL_MM = 1.2
WHOLE = 500
"""Points of a heart's descending aorta from which on it is more than a stump; a vena cava needs a fifth of them."""
Moved = Callable[[int], np.ndarray]
"""From a tissue's code to the positions of a heart's voxels, in mm of the thorax."""


def add_vessels(rng: np.random.Generator, codes: np.ndarray, thorax: Thorax, moved: Moved, shift: np.ndarray) -> None:
    """Paint what the heart's vessels lack into a thorax's codes, in place: up to the neck, down into the abdomen.

    `shift` `[3]` in mm is how far the heart lies from the place of the thorax's own.
    """
    up, down = moved(ASCENDING), moved(DESCENDING)
    if len(down) > WHOLE:
        _rest_of_aorta(codes, thorax, down)
    elif len(up):
        _arch(rng, codes, thorax, up)
    _cavae(rng, codes, thorax, moved(RIGHT_ATRIUM), moved(CAVA), shift)
    if rng.random() < 0.04:
        _second_cava(rng, codes, thorax, moved(LEFT_ATRIUM))


def end(points: np.ndarray, axis: int, sign: int, depth_mm: float) -> np.ndarray:
    """Return the centre `[3]` of the outermost `depth_mm` of points `[N, 3]` along an axis."""
    along = sign * points[:, axis]
    return np.asarray(points[along >= along.max() - depth_mm].mean(axis=0))


def _radius(points: np.ndarray, level: float) -> float:
    """Return the radius of a round vessel's section at a level, from the spread of its points."""
    near = points[np.abs(points[:, 2] - level) <= 3]
    spread = near[:, :2] - near[:, :2].mean(axis=0)
    return float(np.sqrt((spread**2).sum(axis=1).mean() * 2))


def _paint(codes: np.ndarray, line: np.ndarray, radius: np.ndarray | float, code: int) -> None:
    sweep(codes, SPACING, line, np.asarray(radius) + WALL_MM, t.MYOCARDIUM, LOOSE)
    sweep(codes, SPACING, line, radius, code, (*LOOSE, t.MYOCARDIUM, t.OTHER_ARTERY, t.OTHER_VEIN))


def _rest_of_aorta(codes: np.ndarray, thorax: Thorax, down: np.ndarray) -> None:
    low = end(down, 2, -1, 4)
    radius = np.clip(_radius(down, low[2] + 4), 5, 15)
    track = thorax.tracks["descending"]
    rest = track[track[:, 2] < low[2] - 30]
    if len(rest):
        line = curve([low + [0, 0, 5], low, *rest[::12]])
        _paint(codes, line, radius * np.linspace(1, 0.85, len(line)), DESCENDING)


def _arch(rng: np.random.Generator, codes: np.ndarray, thorax: Thorax, up: np.ndarray) -> None:
    """Make the arch and the descending aorta, which in some runs at the right of the spine."""
    track = thorax.tracks["descending"].copy()
    if rng.random() < 0.08:
        spine = np.argwhere(np.isin(thorax.codes[:, :, 40:120:20], (t.BONE, t.MARROW)))[:, 0].mean() * SPACING
        share = np.clip((track[:, 2] - track[-1, 2]) / 120, 0, 1)
        track[:, 0] += share * 2 * (spine - track[:, 0]) * rng.uniform(0.7, 1.0)
    head = end(up, 2, 1, 4)
    radius = np.clip(_radius(up, head[2] - 3), 8, 17)
    start = track[0] + [0, 0, 3]
    middle = 0.5 * (head + start)
    top = np.array([middle[0], middle[1], max(head[2], start[2]) + rng.uniform(2, 12)])
    line = curve([head - [0, 0, 6], head, 0.6 * head + 0.4 * top + [0, 0, 5], top, start, track[8]])
    radii = radius * np.linspace(1, rng.uniform(0.65, 0.85), len(line))
    half = int(np.argmin(np.linalg.norm(line - top, axis=1)))
    _paint(codes, line[half:], radii[half:], DESCENDING)
    _paint(codes, line[: half + 1], radii[: half + 1], ASCENDING)
    _paint(codes, curve(track[6::12]), radii[-1], DESCENDING)


def _cavae(
    rng: np.random.Generator,
    codes: np.ndarray,
    thorax: Thorax,
    atrium: np.ndarray,
    cava: np.ndarray,
    shift: np.ndarray,
) -> None:
    """Continue the superior vena cava to the veins of the neck, and the inferior one through the liver."""
    pool = atrium if len(atrium) else cava
    if not len(pool):
        return
    upper, lower = thorax.tracks["superior"].copy(), thorax.tracks["inferior"]
    # The heart takes its great vessels along, or the cava would run into the aorta; in the neck veins stay in place.
    fade = (upper[:1, 2] - upper[:, 2]) / max(float(np.ptp(upper[:, 2])), 1.0)
    upper[:, :2] += np.sqrt(fade)[:, None] * np.maximum(shift, [0, -np.inf, 0])[:2]
    high = cava[cava[:, 2] > pool[:, 2].mean()] if len(cava) else cava
    drawn = len(high) > WHOLE // 5
    head = end(high, 2, 1, 3) if drawn else end(pool, 2, 1, 5)
    radius = np.clip(_radius(high, head[2] - 3), 4.5, 10) if drawn else rng.uniform(6, 10)
    if head[2] < upper[0, 2] - 6:
        rest = upper[upper[:, 2] > head[2] + 12]
        line = curve([head - [0, 0, 5], head, *rest[::-8]] if len(rest) else [head, upper[0]])
        _paint(codes, line, radius * np.linspace(1, 0.9, len(line)), CAVA)
    foot = end(np.concatenate([pool, cava]), 2, -1, 6)
    rest = lower[lower[:, 2] < foot[2] - 12]
    if len(rest):
        _paint(codes, curve([foot + [0, 0, 5], foot, *rest[::8]]), rng.uniform(8, 13), CAVA)


def _second_cava(rng: np.random.Generator, codes: np.ndarray, thorax: Thorax, atrium: np.ndarray) -> None:
    """Make a left superior vena cava, which runs down in front of the left hilum to behind the left atrium."""
    if not len(atrium):
        return
    left = end(atrium, 0, -1, 12)
    start = thorax.tracks["descending"][0] + [-8, 30, 10]
    foot = np.array([left[0] + 12, atrium[:, 1].mean() - 4, atrium[:, 2].min()])
    line = curve([start + [0, 0, 25], start, 0.5 * (start + left) + [-6, 6, 0], left + [-6, 0, 0], foot])
    _paint(codes, line, rng.uniform(4, 7), CAVA)


def pulmonary_branches(rng: np.random.Generator, codes: np.ndarray, thorax: Thorax, root: np.ndarray) -> np.ndarray:
    """Make a pulmonary trunk that divides, from a source's root of it; return where its branches end, `[2, 3]`."""
    own = thorax.own.points(PULMONARY)
    head = end(root, 2, 1, 3)
    radius = rng.uniform(9, 15)
    fork = np.array([head[0] + 4, head[1] - rng.uniform(22, 32), head[2] + rng.uniform(12, 22)])
    _paint(codes, curve([head - [0, 0, 4], head + [0, -6, 9], fork]), radius, PULMONARY)
    ends = np.array([end(own, 0, sign, 6) + rng.normal(0, 3, 3) for sign in (-1, 1)])
    for hilum, rise in zip(ends, (4, -2), strict=True):
        line = curve([fork, 0.5 * (fork + hilum) + [0, -6, rise] + rng.normal(0, 3, 3), hilum])
        _paint(codes, line, radius * np.linspace(0.85, 0.5, len(line)), PULMONARY)
    return ends


def vessels_of_lungs(rng: np.random.Generator, codes: np.ndarray, pulmonary: np.ndarray, atrium: np.ndarray) -> None:
    """Grow arteries and veins into both lungs, in place. Near the heart they belong to its structures."""
    lung = np.argwhere(codes[::2, ::2, ::2] == t.LUNG) * (2 * SPACING)
    if not len(lung):
        return
    middle = lung[:, 0].mean()
    plenty = rng.uniform(0.6, 1.6)
    for points, code, leaves in ((pulmonary, PULMONARY, 340), (atrium, LEFT_ATRIUM, 260)):
        for sign in (-1, 1):
            side = lung[sign * (lung[:, 0] - middle) > 0]
            if not len(side):
                continue
            root = end(points, 0, sign, 5) if len(points) else side[np.argmin(np.abs(side[:, 0] - middle))]
            targets = side[rng.choice(len(side), int(leaves * plenty))] + rng.uniform(0, SPACING, 3)
            nodes, radii, along = tree(rng, root, targets, rng.uniform(4, 7), rng.uniform(0.55, 0.95))
            great = (along < rng.uniform(15, 35)) & (radii > 2)
            near = LOOSE if len(points) else (t.LUNG,)
            paint_nodes(codes, SPACING, nodes[~great], radii[~great], t.LUNG_VESSEL, (t.LUNG,))
            paint_nodes(codes, SPACING, nodes[great], radii[great], code if len(points) else t.LUNG_VESSEL, near)
