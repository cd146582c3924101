"""Where a gap begins to open, from its width along lines that labels blur: a ramp, as blurred as labels are, is fitted.

Voxels round the beginning of an opening off, and where the wall beyond is thin the gap is as wide as the wall before
the rounding ends: then nowhere is it straight, and a line taken back would begin too far inside.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

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
ERROR_MM2, EXPECTED_MM = 2.0, 0.7
"""A fit that is worse by the first weighs as much as a place that lies the second away from where one is expected."""


class Openings(NamedTuple):
    """Places at which gaps may begin to open.

    Attributes:
      places_mm: `[N, K]`, along their lines.
      errors_mm2: `[N, K]`, of the ramp that fits best of those that begin there: the sum of its squared differences
        from the gap, less what all places of a line share.
    """

    places_mm: np.ndarray
    errors_mm2: np.ndarray

    def beginnings(self, away_mm2: np.ndarray | float = 0.0) -> np.ndarray:
        """Return where the gaps begin to open, `[N]` in mm along their lines.

        Args:
          away_mm2: `[N, K]`, squared distances from where they are expected to; 0 where nothing is expected.
        """
        costs = self.errors_mm2 / ERROR_MM2 + away_mm2 / EXPECTED_MM**2
        return np.take_along_axis(self.places_mm, costs.argmin(axis=1)[:, None], axis=1)[:, 0]


def openings(widths: np.ndarray, places_mm: np.ndarray, passed_mm: np.ndarray, blur_mm: np.ndarray) -> Openings:
    """Return where gaps may begin to open, and how well a ramp from there fits.

    Args:
      widths: `[N, S]` mm, of the gaps beyond their width within the valve.
      places_mm: `[N, S]`, of the samples along the lines, increasing.
      passed_mm: `[N]`, a place on each line at which the gap has begun to open, by no more than the ramp's wall.
      blur_mm: `[N]`, standard deviation of the labels' blur along each line.
    """
    starts = _starts()
    errors = np.empty((len(widths), len(starts)))
    steps = np.maximum(np.rint(blur_mm / BLUR_STEP_MM).astype(int), 1)
    for step in np.unique(steps):
        at, ramps = _ramps(int(step))
        rows = np.flatnonzero(steps == step)
        seen = np.stack([np.interp(passed_mm[row] + at, places_mm[row], widths[row]) for row in rows])
        each = (ramps**2).sum(axis=1) - 2 * seen @ ramps.T
        errors[rows] = each.reshape(len(rows), len(starts), -1).min(axis=2)
    return Openings(passed_mm[:, None] + starts, errors)


def _starts() -> np.ndarray:
    return np.arange(-BACK_MM, LATEST_MM + BEGINS_MM / 2, BEGINS_MM)


@lru_cache(maxsize=64)
def _ramps(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places `[S]`, and how wide every ramp is at each of them `[R, S]`, those of a beginning in succession."""
    blur = step * BLUR_STEP_MM
    at = np.arange(-BACK_MM, AHEAD_MM + SAMPLE_MM / 2, SAMPLE_MM)
    begins, slopes, walls = (part.ravel() for part in np.meshgrid(_starts(), SLOPES, WALLS_MM, indexing="ij"))
    beyond = at - begins[:, None]
    widths = slopes[:, None] * (_corner(beyond, blur) - _corner(beyond - (walls / slopes)[:, None], blur))
    return at, widths


def _corner(beyond: np.ndarray, blur: float) -> np.ndarray:
    """Return max(0, x) as a Gaussian blurs it."""
    share = beyond / blur
    return beyond * ndtr(share) + blur / np.sqrt(2 * np.pi) * np.exp(-(share**2) / 2)
