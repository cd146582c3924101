"""The rim of a contact: where two pools that touch part, looked for in half-planes around the valve's axis.

In each half-plane the line midway between the two pools is followed from the middle outwards. Within the valve the gap
between them is as wide as the leaflet, or nothing; from the rim on it opens like a wedge or a step. The rim is where
the two straight pieces meet that fit the gap best, so it hardly depends on the tolerance that found the contact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.measure.contact import Contact

RAYS = 72
STEP_MM, GRID_MM = 0.5, 1.0
BEYOND_MM, HEIGHT_MM, REACH_MM, SLOPE_MM = 12.0, 8.0, 6.0, 0.4
"""How far the distances are known beyond the contact, across its plane and along its axis; the longest distance; where
the slope is taken."""
STAYS = 10
"""Steps along the line after which a gap that opened stays open."""
OPEN_MM = 2.5
"""The gap has opened where it is this much wider than within the valve."""
BEFORE_MM = 7.0
"""How much of the line within the valve counts for the fit."""


class Rim(NamedTuple):
    """Points of the rim, one in each half-plane where there is one.

    Attributes:
      points: `[RAYS, 3]` mm; NaN where the pools do not part.
      found: `[RAYS]` bool.
    """

    points: np.ndarray
    found: np.ndarray


class Midway:
    """How much nearer a place is to the upstream pool than to the downstream one, and the gap between them there.

    Both in mm, on a grid that lies along a plane; linear between its points.
    """

    def __init__(self, contact: Contact) -> None:
        self.centre = contact.centre
        self.axes = frame_of(contact.normal)
        local = (contact.points - contact.centre) @ self.axes.T
        across = np.linalg.norm(local[:, :2], axis=1).max() + BEYOND_MM
        self.low = np.array([-across, -across, local[:, 2].min() - HEIGHT_MM])
        self.high = np.array([across, across, local[:, 2].max() + HEIGHT_MM])
        sides = [np.arange(a, b + GRID_MM, GRID_MM) for a, b in zip(self.low, self.high, strict=True)]
        grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
        places = (grid.reshape(-1, 3) @ self.axes) + self.centre
        one, other = (
            surface.distance(places, REACH_MM).reshape(grid.shape[:3])
            for surface in (contact.upstream, contact.downstream)
        )
        self._difference, self._gap = one - other, one + other

    def difference(self, places: np.ndarray) -> np.ndarray:
        """Return the distance to the upstream pool minus that to the downstream one at places `[..., 3]`."""
        return ndimage.map_coordinates(self._difference, self._index(places), order=1, mode="nearest")

    def gap(self, places: np.ndarray) -> np.ndarray:
        """Return the sum of both distances at places `[..., 3]`: on the midway line the width of the gap."""
        return ndimage.map_coordinates(self._gap, self._index(places), order=1, mode="nearest")

    def _index(self, places: np.ndarray) -> np.ndarray:
        return np.moveaxis(((places - self.centre) @ self.axes.T - self.low) / GRID_MM, -1, 0)


def frame_of(normal: np.ndarray, towards: np.ndarray | None = None) -> np.ndarray:
    """Return three orthogonal unit rows: two in the plane across `normal`, the first as near to `towards`, and it."""
    if towards is None:
        towards = np.eye(3)[np.abs(normal).argmin()]
    first = towards - (towards @ normal) * normal
    first = first / np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first), normal])


def find_rim(midway: Midway, centre: np.ndarray, axes: np.ndarray, opened_mm: float) -> Rim:
    """Return the rim as seen from an axis.

    Args:
      midway: between the two pools.
      centre: `[3]` mm, a point on the axis.
      axes: `[3, 3]`, rows as of `frame_of`; the half-planes begin at the first and turn towards the second.
      opened_mm: the gap has opened where it is wider than this.
    """
    angles = 2 * np.pi * np.arange(RAYS) / RAYS
    out = np.cos(angles)[:, None] * axes[0] + np.sin(angles)[:, None] * axes[1]
    lines = _followed(midway, centre, out, axes[2])
    return _parted(lines, midway.gap(lines), opened_mm)


def _followed(midway: Midway, centre: np.ndarray, out: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the midway lines `[RAYS, S, 3]` mm from the axis outwards in steps of STEP_MM."""
    heights = np.arange(midway.low[2], midway.high[2], STEP_MM)
    along_axis = midway.difference(centre + heights[:, None] * normal)
    crossing = np.flatnonzero((along_axis[:-1] < 0) & (along_axis[1:] >= 0))
    start = heights[crossing[np.abs(heights[crossing]).argmin()]] if len(crossing) else 0.0
    place = centre + np.full((len(out), 1), start) * normal
    way, lines = out, []
    around = SLOPE_MM * np.stack([0 * out, out, -out, 0 * out + normal, 0 * out - normal])
    for step in range(int(1.4 * midway.high[0] / STEP_MM)):
        if step:
            place = place + STEP_MM * way
        for _ in range(2):
            value, right, left, above, below = midway.difference(place + around)
            slope = ((right - left)[:, None] * out + (above - below)[:, None] * normal) / (2 * SLOPE_MM)
            steep = np.maximum((slope**2).sum(axis=1), 0.5)
            place = place + np.clip(-value / steep, -1.0, 1.0)[:, None] * slope
        lines.append(place)
        # Along the line: across the slope, in the half-plane.
        turned = (slope @ normal)[:, None] * out - (slope * out).sum(axis=1, keepdims=True) * normal
        turned *= np.sign((turned * way).sum(axis=1, keepdims=True)) / np.sqrt(steep)[:, None]
        way = way + turned
        way = way / (np.linalg.norm(way, axis=1, keepdims=True) + 1e-9)
    return np.stack(lines, axis=1)


def _parted(lines: np.ndarray, gaps: np.ndarray, opened_mm: float) -> Rim:
    """Return where along each line the gap begins to open."""
    points, found = np.full((len(lines), 3), np.nan), np.zeros(len(lines), bool)
    for ray, (line, gap) in enumerate(zip(lines, gaps, strict=True)):
        # Wide for a little while may be a hole in a leaflet: it must stay open.
        narrow = np.flatnonzero(gap <= opened_mm)
        if not len(narrow):
            continue
        ends = np.flatnonzero(np.diff(np.append(narrow, len(gap) + STAYS)) > STAYS)
        first = int(narrow[ends[0]]) + 1
        if first >= len(gap) - 2:
            continue
        begin = max(0, first - int(BEFORE_MM / STEP_MM))
        window = gap[begin : first + 5]
        window = window[: int(np.argmax(np.r_[window > opened_mm + 2.0, True]))]
        along = np.arange(len(window)) * STEP_MM
        corners = np.arange(0, along[-1], 0.1)
        ramp = np.maximum(along[None, :] - corners[:, None], 0)
        centred, flat = ramp - ramp.mean(axis=1, keepdims=True), window - window.mean()
        steepness = (centred * flat).sum(axis=1) / ((centred**2).sum(axis=1) + 1e-9)
        error = ((flat - steepness[:, None] * centred) ** 2).sum(axis=1)
        place = begin + corners[error.argmin()] / STEP_MM
        low = int(place)
        points[ray] = line[low] + (place - low) * (line[min(low + 1, len(line) - 1)] - line[low])
        found[ray] = True
    return Rim(points, found)
