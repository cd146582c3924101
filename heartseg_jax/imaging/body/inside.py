"""What sources smooth away in a heart: muscle that juts into the ventricles, and coronary arteries."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.kit import (
    LEFT_ATRIUM,
    LEFT_VENTRICLE,
    RIGHT_ATRIUM,
    RIGHT_VENTRICLE,
)
from heartseg_jax.imaging.body.tubes import curve, sweep

GROOVES = ((RIGHT_ATRIUM, RIGHT_VENTRICLE), (LEFT_ATRIUM, LEFT_VENTRICLE), (LEFT_VENTRICLE, RIGHT_VENTRICLE))
"""Pairs of chambers with a coronary artery between them."""


def _box(codes: np.ndarray, code: int, room: int) -> tuple[slice, ...]:
    """Return where a code is, found on every fourth voxel, or () where it is not."""
    found = ndimage.find_objects((codes[::4, ::4, ::4] == code).view(np.uint8))
    return tuple(slice(max(0, 4 * s.start - room), 4 * s.stop + room) for s in found[0]) if found else ()


def add_trabeculae(rng: np.random.Generator, codes: np.ndarray, spacing: float) -> None:
    """Paint papillary muscles and trabeculae into the ventricles' blood, in place; some hearts have none."""
    for ventricle, base, most in ((LEFT_VENTRICLE, LEFT_ATRIUM, 22), (RIGHT_VENTRICLE, RIGHT_ATRIUM, 26)):
        box = _box(codes, ventricle, 5)
        if not box or rng.random() < 0.2:
            continue
        part = codes[box]
        blood = part == ventricle
        points = np.argwhere(blood & ~ndimage.binary_erosion(blood)) * spacing
        inside = np.argwhere(blood)[::7] * spacing
        atrium = np.argwhere(codes[::4, ::4, ::4] == base) * 4
        start = np.array([s.start for s in box])
        middle = inside.mean(axis=0)
        up = (atrium.mean(axis=0) - start) * spacing - middle if len(atrium) else np.array([0.5, 0, 0.5])
        up = up / max(float(np.linalg.norm(up)), 1e-6)
        if ventricle == LEFT_VENTRICLE:
            _papillary(rng, part, spacing, points, middle, up)
        # Bands between places of the wall that are near each other, more of them far from the valve.
        depth = -(points - middle) @ up
        wall = points[depth > np.quantile(depth, rng.uniform(0.3, 0.6))]
        for _ in range(int(rng.integers(0, most))):
            one = wall[rng.integers(len(wall))]
            far = np.linalg.norm(wall - one, axis=1)
            others = wall[(far > 5) & (far < 20)]
            if len(others):
                other = others[rng.integers(len(others))]
                sweep(part, spacing, curve([one, other]), rng.uniform(0.8, 1.9), t.MYOCARDIUM, (ventricle,))


def _papillary(
    rng: np.random.Generator,
    part: np.ndarray,
    spacing: float,
    wall: np.ndarray,
    middle: np.ndarray,
    up: np.ndarray,
) -> None:
    side = np.cross(up, rng.normal(size=3))
    side /= np.linalg.norm(side)
    other = np.cross(up, side)
    turn = rng.uniform(0, 2 * np.pi)
    for angle in (turn, turn + rng.uniform(1.6, 2.8)):
        out = np.cos(angle) * side + np.sin(angle) * other
        towards = (wall - middle) @ (out - 0.8 * up)
        foot = wall[np.argmax(towards)]
        tip = middle + 0.45 * ((foot - middle) - ((foot - middle) @ up) * up) + rng.uniform(-4, 10) * up
        line = curve([foot, 0.5 * (foot + tip) + 2 * out, tip])
        sweep(part, spacing, line, np.linspace(rng.uniform(3.5, 6), 2.0, len(line)), t.MYOCARDIUM, (LEFT_VENTRICLE,))


def add_coronaries(rng: np.random.Generator, codes: np.ndarray, spacing: float) -> None:
    """Paint coronary arteries into the fat of the grooves between the chambers, in place; many are not seen in CT."""
    step = max(1, round(2.0 / spacing))
    coarse = codes[::step, ::step, ::step]
    reach = max(1, round(9 / (spacing * step)))
    for pair in GROOVES:
        if rng.random() < 0.35:
            continue
        near = [ndimage.binary_dilation(coarse == code, iterations=reach) for code in pair]
        groove = np.argwhere(near[0] & near[1] & (coarse == t.FAT)) * (step * spacing)
        if len(groove) < 30:
            continue
        middle = groove.mean(axis=0)
        axes = np.linalg.svd(groove - middle, full_matrices=False)[2]
        flat = (groove - middle) @ axes[:2].T
        angle = np.arctan2(flat[:, 1], flat[:, 0])
        points = [groove[i] for i in np.argsort(angle)[:: max(1, len(angle) // 9)]]
        sweep(codes, spacing, curve(points), rng.uniform(1.0, 2.2), t.OTHER_ARTERY, (t.FAT,))
