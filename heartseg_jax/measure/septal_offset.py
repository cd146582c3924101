"""How far the tricuspid annulus lies closer to the apex than the mitral one, where they are nearest: at the septum."""

from __future__ import annotations

import numpy as np

SPREAD_MM = 5.0
"""Points of a curve this much farther from the other than its nearest count for 1/e."""


def septal_offsets(mitral: np.ndarray, tricuspid: np.ndarray, apex: np.ndarray) -> np.ndarray:
    """Return the offsets `[B]` in mm of curves `[B, N, 3]`, along the line from the mitral valve's centre to the apex.

    Each annulus has its place at the septum: the mean of its points, each of which counts less the farther it is from
    the other annulus.

    Args:
      mitral: `[B, N, 3]` mm.
      tricuspid: `[B, N, 3]` mm.
      apex: `[3]` mm, of the left ventricle.
    """
    axis = apex - mitral.mean(axis=1)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    squares = (
        (mitral**2).sum(axis=2)[:, :, None]
        + (tricuspid**2).sum(axis=2)[:, None, :]
        - 2 * mitral @ tricuspid.transpose(0, 2, 1)
    )
    away = np.sqrt(np.maximum(squares, 0))
    places = []
    for curve, nearest in ((mitral, away.min(axis=2)), (tricuspid, away.min(axis=1))):
        weights = np.exp(-(((nearest - nearest.min(axis=1, keepdims=True)) / SPREAD_MM) ** 2))
        places.append((weights[..., None] * curve).sum(axis=1) / weights.sum(axis=1, keepdims=True))
    return ((places[1] - places[0]) * axis).sum(axis=1)


def apex_of(places: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the apex `[3]` of a ventricle: the mean of the hundredth of its places `[N, 3]` farthest from its base."""
    away = np.linalg.norm(places - base, axis=1)
    return places[away >= np.quantile(away, 0.99)].mean(axis=0)
