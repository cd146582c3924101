"""Where a gap begins to open, from its width along lines that labels blur: a ramp, as blurred as labels are, is fitted.

Voxels round the beginning of an opening off, and where the wall beyond is thin the gap is as wide as the wall before
the rounding ends: then nowhere is it straight, and a line taken back would begin too far inside.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr

BACK_MM, AHEAD_MM, SAMPLE_MM = 2.5, 2.0, 0.25
"""How much of a line is looked at before and beyond the place at which it passed a level, and how finely."""
LATEST_MM, BEGINS_MM = 0.5, 0.1
"""How far beyond that place the ramp may begin, and how finely its beginnings are tried; the first is at `BACK_MM`."""
SLOPES = np.arange(0.5, 2.05, 0.125)
"""Width per mm: two surfaces part by 2 at most, where they leave each other at right angles to the line."""
WALLS_MM = np.array([1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 9.0])
"""How wide a gap is that opens no further; the last is beyond what is looked at."""
BLUR_STEP_MM = 0.05


def beginnings(widths: np.ndarray, places_mm: np.ndarray, passed_mm: np.ndarray, blur_mm: np.ndarray) -> np.ndarray:
    """Return where gaps begin to open, `[N]` in mm along their lines.

    Args:
      widths: `[N, S]` mm, of the gaps beyond their width within the valve.
      places_mm: `[N, S]`, of the samples along the lines, increasing.
      passed_mm: `[N]`, a place on each line at which the gap has begun to open, by no more than the ramp's wall.
      blur_mm: `[N]`, standard deviation of the labels' blur along each line.
    """
    found = np.empty(len(widths))
    steps = np.maximum(np.rint(blur_mm / BLUR_STEP_MM).astype(int), 1)
    for step in np.unique(steps):
        at, begins, ramps = _ramps(int(step))
        rows = np.flatnonzero(steps == step)
        seen = np.stack([np.interp(passed_mm[row] + at, places_mm[row], widths[row]) for row in rows])
        errors = (ramps**2).sum(axis=1) - 2 * seen @ ramps.T
        found[rows] = passed_mm[rows] + begins[errors.argmin(axis=1)]
    return found


@lru_cache(maxsize=64)
def _ramps(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places `[S]`, and of every ramp where it begins `[K]` and how wide it is at each place `[K, S]`."""
    blur = step * BLUR_STEP_MM
    at = np.arange(-BACK_MM, AHEAD_MM + SAMPLE_MM / 2, SAMPLE_MM)
    starts = np.arange(-BACK_MM, LATEST_MM + BEGINS_MM / 2, BEGINS_MM)
    begins, slopes, walls = (part.ravel() for part in np.meshgrid(starts, SLOPES, WALLS_MM, indexing="ij"))
    beyond = at - begins[:, None]
    widths = slopes[:, None] * (_corner(beyond, blur) - _corner(beyond - (walls / slopes)[:, None], blur))
    return at, begins, widths


def _corner(beyond: np.ndarray, blur: float) -> np.ndarray:
    """Return max(0, x) as a Gaussian blurs it."""
    share = beyond / blur
    return beyond * ndtr(share) + blur / np.sqrt(2 * np.pi) * np.exp(-(share**2) / 2)
