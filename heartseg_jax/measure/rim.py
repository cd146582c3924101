"""The rim of a contact: where two pools that touch part, looked for in half-planes around the valve's axis.

In each half-plane the line midway between the two pools is followed from the middle outwards. Within the valve the gap
between them is as wide as the leaflet, or nothing; from the rim on it opens like a wedge or a step. The rim is where
the opening begins (`opening.py`): so it hardly depends on the tolerance that found the contact.
Towards the aortic root the ventricle's outflow tract may run up along the atrium without a gap: there the rim is where
the line turns up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.measure.contact import Contact, Surface
from heartseg_jax.measure.opening import Openings, openings

RAYS = 72
STEP_MM, GRID_MM = 0.5, 1.0
BEYOND_MM, HEIGHT_MM, REACH_MM, SLOPE_MM = 12.0, 8.0, 6.0, 0.4
"""How far the distances are known beyond the contact, across its plane and along its axis; the longest distance; where
the slope is taken."""
STAYS = 10
"""Steps along the line after which a gap that opened stays open."""
OPEN_MM = 2.5
"""The gap has opened where it is this much wider than within the valve."""
RISE_MM = 1.0
"""Above the gap within the valve, a level that a gap which opens has passed, and that no thin wall is below."""
WITHIN, SLACK_MM, PASSES = (14, 4), 0.5, 3
"""Steps before that level that are within the valve; how far their gap may exceed the contact's; how often the two are
found from each other."""
OUTFLOW_ANGLE, STEEP, LEAST_STEEP, LEVEL_AGAIN = np.radians(75), np.radians(60), 3, 5
"""Within the first of the outflow tract, the rim is where the line turns up by the second for so many steps, and then
opens within so many."""

BY_RIM_MM, WIDER_MM = (1.5, 4.5), 0.5
"""How far inside the rim the gap is compared with the middle's, and by how much a wall's is wider."""


class Rim(NamedTuple):
    """Where the pools part in the half-planes.

    Attributes:
      points: `[N, 3]` mm, one in each half-plane in which they part, looked at by itself.
      rays: `[N]`, the half-planes' numbers.
      centre: `[3]` mm, a point on their axis.
      axes: `[3, 3]`, rows as of `frame_of`.
      lines: `[N, S, 3]` mm, the lines midway between the pools.
      walked_mm: `[N, S]`, their lengths up to each point.
      steep: `[N, S]` bool, where they run up.
      openings: where along them the gap may begin to open.
      gaps: `[N, S]` mm, its width along them.
    """

    points: np.ndarray
    rays: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    lines: np.ndarray
    walked_mm: np.ndarray
    steep: np.ndarray
    openings: Openings
    gaps: np.ndarray

    @property
    def share(self) -> float:
        """Share of the half-planes in which the pools part."""
        return len(self.rays) / RAYS

    def walled_share(self) -> float:
        """Return the share of these half-planes in which the gap is wider by the rim than in the middle.

        So it is where the rim is the outer end of a wall that is as thin as leaflets.
        """
        found = []
        for point, line, walked, gap in zip(self.points, self.lines, self.walked_mm, self.gaps, strict=True):
            end = walked[np.linalg.norm(line - point, axis=1).argmin()]
            by, middle = (walked >= end - BY_RIM_MM[1]) & (walked <= end - BY_RIM_MM[0]), walked <= end / 2
            found.append(by.any() and np.median(gap[by]) - np.median(gap[middle]) > WIDER_MM)
        return float(np.mean(found))

    def beside(self, curve: np.ndarray) -> np.ndarray:
        """Return points `[N, 3]` of the rim that agree with a closed curve `[M, 3]` mm around the axis.

        Where the gap may as well begin to open at one place as at another, the curve, and so the half-planes around,
        decide.
        """
        crossings = _crossings((curve - self.centre) @ self.axes.T, 2 * np.pi * self.rays / RAYS)
        expected = crossings @ self.axes + self.centre
        lines = zip(self.lines, self.walked_mm, self.openings.places_mm, strict=True)
        places = np.stack([_at(line, walked, mm) for line, walked, mm in lines])
        away = ((places - expected[:, None]) ** 2).sum(axis=2)
        return _rim_points(self.lines, self.walked_mm, self.steep, self.openings.beginnings(away))


class Midway:
    """How much nearer a place is to the upstream pool than to the downstream one, and the gap between them there.

    Both in mm; the former on a grid that lies along a plane, linear between its points.
    """

    def __init__(self, contact: Contact) -> None:
        self.centre = contact.centre
        self.axes = frame_of(contact.normal)
        local = (contact.points - contact.centre) @ self.axes.T
        across = np.linalg.norm(local[:, :2], axis=1).max() + BEYOND_MM
        self.low = np.array([-across, -across, local[:, 2].min() - HEIGHT_MM])
        self.high = np.array([across, across, local[:, 2].max() + HEIGHT_MM])
        counts = np.ceil((self.high - self.low) / GRID_MM).astype(int) + 1
        index = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1)
        # Exactly where the midway line may run, in between elsewhere.
        coarse = index[::2, ::2, ::2]
        rough = [self._distance(surface, coarse) for surface in (contact.upstream, contact.downstream)]
        halved = index.transpose(3, 0, 1, 2) / 2
        one, other = (ndimage.map_coordinates(field, halved, order=1, mode="nearest") for field in rough)
        near = (np.abs(one - other) < 4.0) & (one + other < REACH_MM + 2)
        one[near], other[near] = (self._distance(s, index[near]) for s in (contact.upstream, contact.downstream))
        self._difference = one - other
        self._surfaces = contact.upstream, contact.downstream

    def _distance(self, surface: Surface, index: np.ndarray) -> np.ndarray:
        places = (index.reshape(-1, 3) * GRID_MM + self.low) @ self.axes + self.centre
        return surface.distance(places, REACH_MM).reshape(index.shape[:-1])

    def difference(self, places: np.ndarray) -> np.ndarray:
        """Return the distance to the upstream pool minus that to the downstream one at places `[..., 3]`."""
        return ndimage.map_coordinates(self._difference, self._index(places), order=1, mode="nearest")

    def gap(self, places: np.ndarray) -> np.ndarray:
        """Return the sum of both distances at places `[..., 3]`: on the midway line the width of the gap.

        Exact, for beside the line it opens farther inside: a mean over the grid's cells would do so on the line too.
        """
        flat = places.reshape(-1, 3)
        one, other = (surface.distance(flat, REACH_MM) for surface in self._surfaces)
        return (one + other).reshape(places.shape[:-1])

    def blur(self, ways: np.ndarray) -> np.ndarray:
        """Return by how many mm (a standard deviation) the gap is blurred along unit vectors `[N, 3]`: `[N]`."""
        blur = (self._surfaces[0].blur + self._surfaces[1].blur) / 2
        return np.sqrt(np.einsum("nj,jk,nk->n", ways, blur, ways))

    def _index(self, places: np.ndarray) -> np.ndarray:
        return np.moveaxis(((places - self.centre) @ self.axes.T - self.low) / GRID_MM, -1, 0)


def frame_of(normal: np.ndarray, towards: np.ndarray | None = None) -> np.ndarray:
    """Return three orthogonal unit rows `[..., 3, 3]`: two in the plane across `normal [..., 3]`, and it.

    The first is as near to `towards [..., 3]` as can be.
    """
    if towards is None:
        towards = np.eye(3)[np.abs(normal).argmin(axis=-1)]
    first = towards - (towards * normal).sum(axis=-1, keepdims=True) * normal
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, np.cross(normal, first), normal], axis=-2)


def find_rim(
    midway: Midway, centre: np.ndarray, axes: np.ndarray, base_mm: float, outflow: np.ndarray | None = None
) -> Rim:
    """Return the rim as seen from an axis.

    Args:
      midway: between the two pools.
      centre: `[3]` mm, a point on the axis.
      axes: `[3, 3]`, rows as of `frame_of`; the half-planes begin at the first and turn towards the second.
      base_mm: width of the gap within the valve.
      outflow: `[3]` mm, a place in whose direction the downstream pool runs up along the upstream one; None where none
        does.
    """
    angles = 2 * np.pi * np.arange(RAYS) / RAYS
    out = np.cos(angles)[:, None] * axes[0] + np.sin(angles)[:, None] * axes[1]
    lines = _followed(midway, centre, out, axes[2])
    steep = np.zeros(lines.shape[:2], bool)
    if outflow is not None:
        towards = frame_of(axes[2], outflow - centre)[0]
        steep[:, 1:] = _steep(lines, out, axes[2]) & (out @ towards > np.cos(OUTFLOW_ANGLE))[:, None]
    gaps = midway.gap(lines)
    levels = [_passed_of(gap, base_mm) for gap in gaps]
    rays = np.array([ray for ray, level in enumerate(levels) if level is not None], int)
    passed, within = np.array([level for level in levels if level is not None]).reshape(-1, 2).T
    lines, steep = lines[rays], steep[rays]
    steps = np.linalg.norm(np.diff(lines, axis=1), axis=2)
    walked = np.concatenate([np.zeros((len(rays), 1)), np.cumsum(steps, axis=1)], axis=1)
    index = np.arange(lines.shape[1])
    passed_mm = np.array([np.interp(at, index, way) for at, way in zip(passed, walked, strict=True)])
    found = openings(gaps[rays] - within[:, None], walked, passed_mm, midway.blur(out[rays]))
    points = _rim_points(lines, walked, steep, found.beginnings())
    return Rim(points, rays, centre, axes, lines, walked, steep, found, gaps[rays])


def _steep(lines: np.ndarray, out: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return where lines `[RAYS, S, 3]` run up along the upstream pool's side: `[RAYS, S - 1]` bool, by step."""
    steps = np.diff(lines, axis=1)
    return -steps @ normal > np.tan(STEEP) * np.einsum("rsk,rk->rs", steps, out)


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


def _rim_points(lines: np.ndarray, walked_mm: np.ndarray, steep: np.ndarray, begins_mm: np.ndarray) -> np.ndarray:
    """Return where along each line the gap begins to open, or where the piece begins that is steep up to there."""
    index = np.arange(lines.shape[1])
    points = np.empty((len(lines), 3))
    for k, (line, walked, mm) in enumerate(zip(lines, walked_mm, begins_mm, strict=True)):
        turned = _turned_up(steep[k, : int(np.interp(mm, walked, index)) + 1])
        points[k] = _at(line, walked, mm) if turned is None else line[turned]
    return points


def _at(line: np.ndarray, walked_mm: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """Return the points `[..., 3]` of a line `[S, 3]` after lengths `mm [...]` of it."""
    return np.stack([np.interp(mm, walked_mm, line[:, k]) for k in range(3)], axis=-1)


def _crossings(curve: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return where a closed curve `[M, 3]`, of coordinates about an axis, passes half-planes at angles: `[N, 3]`."""
    around = np.arctan2(curve[:, 1], curve[:, 0])
    order = np.argsort(around)
    away, height = (
        np.interp(angles, around[order], values[order], period=2 * np.pi)
        for values in (np.hypot(curve[:, 0], curve[:, 1]), curve[:, 2])
    )
    return np.stack([away * np.cos(angles), away * np.sin(angles), height], axis=1)


def _passed_of(gap: np.ndarray, base_mm: float) -> tuple[float, float] | None:
    """Return the index, between samples, at which a gap passed the level above that within the valve, and the latter.

    None where it stays narrow.
    """
    narrow = np.flatnonzero(gap <= base_mm + OPEN_MM)
    if not len(narrow):
        return None
    # Wide for a little while may be a hole in a leaflet: it must stay open.
    ends = np.flatnonzero(np.diff(np.append(narrow, len(gap) + STAYS)) > STAYS)
    first = int(narrow[ends[0]]) + 1
    if first >= len(gap) - 2:
        return None
    place, within = float(first), base_mm
    for _ in range(PASSES):
        # Beside a thin wall the gap is narrow well beyond the valve.
        near = int(place)
        within = float(np.median(gap[max(near - WITHIN[0], 0) : max(near - WITHIN[1], 1)]))
        within = min(within, base_mm + SLACK_MM)
        place = _passed(gap, first, within + RISE_MM)
    return place, within


def _turned_up(steep: np.ndarray) -> int | None:
    """Return the index at which a line turned up for its last piece, of steps that are steep; None where it did not."""
    places = np.flatnonzero(steep)
    if not len(places) or len(steep) - 1 - places[-1] > LEVEL_AGAIN:
        return None
    parts = np.split(places, np.flatnonzero(np.diff(places) > 2) + 1)
    return int(parts[-1][0]) - 1 if len(parts[-1]) >= LEAST_STEEP else None


def _passed(gap: np.ndarray, first: int, level: float) -> float:
    """Return the index, between samples, at which a gap that is open at `first` passed a level."""
    place = min(first, len(gap) - 1)
    while place > 0 and gap[place - 1] > level:
        place -= 1
    while place < len(gap) - 1 and gap[place] <= level:
        place += 1
    if place == 0:
        return 0.0
    return place - 1 + float(np.clip((level - gap[place - 1]) / (gap[place] - gap[place - 1] + 1e-9), 0, 1))
