"""A valve's annulus as a closed smooth curve through the points of its rim, and what is measured of it.

Arrays of curves `[B, N, 3]` are handled at once, so that resamples cost little. All in mm.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heartseg_jax.measure.results import Quantity
from heartseg_jax.measure.rim import frame_of

HARMONICS, POINTS = 6, 120
STIFFNESS = 2e-4
"""Weight of the squared second derivative beside that of the distance from the rim, per point of it."""
SECTORS, RESAMPLES, SEED = 24, 200, 13
SHORTEST_MM = 0.5
"""Least spread of the rim about the curve beyond which points count less."""


class Annulus(NamedTuple):
    """Closed curves through a rim.

    Attributes:
      curve: `[N, 3]` mm, at equal distances.
      resampled: `[RESAMPLES, N, 3]`, the same of rims whose sectors were drawn with replacement.
      spread_mm: median distance of the rim's points from the curve.
    """

    curve: np.ndarray
    resampled: np.ndarray
    spread_mm: float


def fitted_plane(points: np.ndarray, downstream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centre `[3]` and unit normal `[3]` (downstream) of the plane nearest to points; outliers count less."""
    weights = np.ones(len(points))
    for _ in range(8):
        centre = np.average(points, axis=0, weights=weights)
        away = points - centre
        normal = np.linalg.eigh((away * weights[:, None]).T @ away)[1][:, 0]
        weights = _robust(away @ normal) + 1e-6
    return centre, normal if normal @ downstream >= 0 else -normal


def closed_curve(points: np.ndarray, centre: np.ndarray, normal: np.ndarray, resamples: int = 0) -> Annulus:
    """Return the smooth closed curve that is nearest to points `[N, 3]` around an axis; outliers count less.

    Distance from the axis and height along it are periodic in the angle, each a Fourier series with a penalty on its
    bending: a periodic smoothing spline.
    """
    axes = frame_of(normal)
    local = (points - centre) @ axes.T
    angles, values = np.arctan2(local[:, 1], local[:, 0]), np.stack([np.hypot(*local[:, :2].T), local[:, 2]], axis=1)
    basis, penalty = _basis(angles), _penalty(len(points))
    weights = np.ones(len(points))
    for _ in range(10):
        factors = _solved(basis, weights[None], values, penalty)[0]
        left = values - basis @ factors
        weights = np.minimum(_robust(left[:, 0]), _robust(left[:, 1])) + 1e-6
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(SECTORS, np.full(SECTORS, 1 / SECTORS), resamples)
    sector = np.floor((angles / (2 * np.pi) % 1) * SECTORS).astype(int) % SECTORS
    everyone = np.concatenate([weights[None], weights * drawn[:, sector]])
    series = _solved(basis, everyone, values, penalty)
    around = 2 * np.pi * np.arange(POINTS) / POINTS
    radius, height = np.moveaxis(_basis(around) @ series, -1, 0)
    curves = (
        centre
        + radius[..., None] * (np.cos(around)[:, None] * axes[0] + np.sin(around)[:, None] * axes[1])
        + height[..., None] * axes[2]
    )
    spread = float(np.median(np.linalg.norm(left, axis=1)))
    return Annulus(_evenly(curves[0]), curves[1:], spread)


def quantities(
    curves: np.ndarray, downstream: np.ndarray, septal: np.ndarray | None, aortic_normal: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return what is measured of curves `[B, N, 3]`: arrays `[B]` by name, each with its unit.

    Args:
      curves: in mm.
      downstream: `[3]`, about along their planes' normals.
      septal: `[3]` mm, a place towards which the septolateral diameter points; None where it is not known.
      aortic_normal: `[3]`, of the aortic valve's plane; None where it is not known.
    """
    steps = np.roll(curves, -1, axis=1) - curves
    lengths = np.linalg.norm(steps, axis=2)
    centres, normals = planes(curves, downstream)
    local = curves - centres[:, None]
    heights = np.einsum("bnk,bk->bn", local, normals)
    flat = local - heights[..., None] * normals[:, None]
    area = 0.5 * np.abs(np.einsum("bnk,bk->b", np.cross(flat, np.roll(flat, -1, axis=1)), normals))
    widths = _widths(flat, normals)
    major, minor = widths.max(axis=1), widths.min(axis=1)
    found = {"area_cm2": area / 100, "perimeter_mm": lengths.sum(axis=1)}
    if septal is None:
        found |= {"major_mm": major, "minor_mm": minor}
    else:
        towards = frame_of(normals, septal - centres)[:, 0]
        along, across = (np.einsum("bnk,bk->bn", flat, way) for way in (towards, np.cross(normals, towards)))
        found |= {"intercommissural_mm": np.ptp(across, axis=1), "septolateral_mm": np.ptp(along, axis=1)}
    found |= {"height_mm": np.ptp(heights, axis=1), "eccentricity": np.sqrt(1 - (minor / major) ** 2)}
    if aortic_normal is not None:
        found["angle_to_aortic_valve_degrees"] = np.degrees(np.arccos(np.clip(normals @ aortic_normal, -1, 1)))
    return found


def with_intervals(values: np.ndarray, resampled: np.ndarray) -> Quantity:
    """Return a value with the interval in which 95 % of its resamples lie; without one where there are none."""
    if not len(resampled):
        return Quantity(float(values))
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Quantity(float(values), float(min(low, values)), float(max(high, values)))


def planes(curves: np.ndarray, downstream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centres and normals `[B, 3]` of the planes nearest to curves `[B, N, 3]`; each mm counts equally."""
    steps = np.linalg.norm(np.roll(curves, -1, axis=1) - curves, axis=2)
    weights = (steps + np.roll(steps, 1, axis=1)) / (2 * steps.sum(axis=1, keepdims=True))
    centres = np.einsum("bn,bnk->bk", weights, curves)
    local = curves - centres[:, None]
    normals = np.linalg.eigh(np.einsum("bn,bnj,bnk->bjk", weights, local, local))[1][:, :, 0]
    return centres, normals * np.where(normals @ downstream < 0, -1, 1)[:, None]


def _widths(flat: np.ndarray, normals: np.ndarray, count: int = 60) -> np.ndarray:
    """Return how wide flat curves `[B, N, 3]` are in `count` directions over half a turn: `[B, count]`."""
    angles = np.pi * np.arange(count) / count
    frames = frame_of(normals)
    ways = np.cos(angles)[None, :, None] * frames[:, :1] + np.sin(angles)[None, :, None] * frames[:, 1:2]
    return np.ptp(flat @ ways.transpose(0, 2, 1), axis=1)


def _basis(angles: np.ndarray) -> np.ndarray:
    """Return the Fourier basis `[N, 1 + 2 HARMONICS]` at angles `[N]`."""
    turns = np.arange(1, HARMONICS + 1) * angles[:, None]
    return np.concatenate([np.ones((len(angles), 1)), np.cos(turns), np.sin(turns)], axis=1)


def _penalty(count: int) -> np.ndarray:
    orders = np.concatenate([[0], np.arange(1, HARMONICS + 1), np.arange(1, HARMONICS + 1)])
    return np.diag(STIFFNESS * count * orders.astype(float) ** 4)


def _solved(basis: np.ndarray, weights: np.ndarray, values: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Return the factors `[B, K, V]` for weights `[B, N]` of values `[N, V]`."""
    weighted = weights[:, None, :] * basis.T
    return np.linalg.solve(weighted @ basis + penalty + 1e-9 * np.eye(len(penalty)), weighted @ values)


def _robust(left: np.ndarray) -> np.ndarray:
    """Return Tukey's biweight of residuals, by their median absolute deviation."""
    scale = max(1.4826 * float(np.median(np.abs(left - np.median(left)))), SHORTEST_MM / 2)
    return np.clip(1 - (left / (4.685 * scale)) ** 2, 0, 1) ** 2


def _evenly(curve: np.ndarray) -> np.ndarray:
    """Return a closed curve's points `[N, 3]` at equal distances along it."""
    closed = np.concatenate([curve, curve[:1]])
    walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = walked[-1] * np.arange(len(curve)) / len(curve)
    return np.stack([np.interp(places, walked, closed[:, k]) for k in range(3)], axis=1)
