"""Closed polygons -> the pixels inside. A pixel is inside where its centre is, or where its centre is on a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ON_LINE = 0.01
"""A centre this near to a polygon's line, in pixels, is on it: rounding of decimal strings is less."""


class Filled(NamedTuple):
    """What the polygons of one structure in one slice enclose.

    Attributes:
      inside: bool `[H, W]`.
      ambiguous: bool `[H, W]`: where two polygons overlap and neither lies in the other.
      copies: polygons left out, since another one encloses the same pixels.
    """

    inside: np.ndarray
    ambiguous: np.ndarray
    copies: int


def fill(polygons: Sequence[np.ndarray], shape: tuple[int, int], *, exclusive: bool = False) -> Filled:
    """Return the pixels inside polygons `[N, 2]` of (row, column), where pixel centres are whole numbers.

    Polygons inside of others are holes, and those inside of holes are filled again (exclusive or). A line that leads to
    a hole and back by the same way (a keyhole) encloses nothing. Centres on a line are inside, of holes' lines as well:
    programs that draw along the centres of the outermost pixels mean these. With `exclusive`, overlaps of polygons are
    outside, as the file says; else they are ambiguous.
    """
    inside, ambiguous = np.zeros(shape, bool), np.zeros(shape, bool)
    points = np.concatenate(polygons)
    low = np.clip(np.floor(points.min(axis=0)).astype(int), 0, np.array(shape) - 1)
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, low + 1, shape)
    window = tuple(slice(*span) for span in zip(low, high, strict=True))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    lines, copies = np.zeros(size, bool), 0
    kept: list[np.ndarray] = []
    for polygon in polygons:
        own = _interior(polygon - low, size)
        lines |= _line(polygon - low, size)
        if any(own.any() and np.array_equal(own, other) for other in kept):
            copies += 1
            continue
        for other in kept:
            both = own & other
            if not exclusive and both.any() and (both != own).any() and (both != other).any():
                ambiguous[window] |= both
        inside[window] ^= own
        kept.append(own)
    inside[window] |= lines
    return Filled(inside, ambiguous, copies)


def _edges(polygon: np.ndarray) -> np.ndarray:
    """Return the edges `[E, 4]`, each with its lower end first; those walked an even number of times cancel."""
    ends = np.round(np.concatenate([polygon, np.roll(polygon, -1, axis=0)], axis=1), 6)
    swap = (ends[:, 0] > ends[:, 2]) | ((ends[:, 0] == ends[:, 2]) & (ends[:, 1] > ends[:, 3]))
    ends[swap] = ends[swap][:, [2, 3, 0, 1]]
    ends, counts = np.unique(ends, axis=0, return_counts=True)
    return ends[counts % 2 == 1]


def _crossings(start: np.ndarray, stop: np.ndarray, first: np.ndarray, last: np.ndarray, most: int):
    """Return (edge, n, value): edges cross each whole number n, first <= n < last, within 0 <= n < most."""
    first, last = np.clip(first, 0, most).astype(int), np.clip(last, 0, most).astype(int)
    counts = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(counts)), counts)
    n = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    along = (n - start[edge, 0]) / (stop[edge, 0] - start[edge, 0])
    return n, start[edge, 1] + along * (stop[edge, 1] - start[edge, 1])


def _interior(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return bool `[H, W]`: centres with an odd number of edges at or before them in their row."""
    edges = _edges(polygon)
    edges = edges[edges[:, 0] < edges[:, 2]]
    rows, columns = _crossings(edges[:, :2], edges[:, 2:], np.ceil(edges[:, 0]), np.ceil(edges[:, 2]), size[0])
    toggles = np.zeros((size[0], size[1] + 1), np.int32)
    np.add.at(toggles, (rows, np.clip(np.ceil(columns), 0, size[1]).astype(int)), 1)
    return toggles[:, :-1].cumsum(axis=1) % 2 == 1


def _line(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return bool `[H, W]`: centres that are on the polygon's line."""
    marked = np.zeros(size, bool)
    edges = _edges(polygon)
    found = [polygon]
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        turned = edges[:, order]
        turned = np.where((turned[:, 0] > turned[:, 2])[:, None], turned[:, [2, 3, 0, 1]], turned)
        turned = turned[turned[:, 0] < turned[:, 2]]
        most = size[order[0]]
        n, value = _crossings(turned[:, :2], turned[:, 2:], np.ceil(turned[:, 0]), np.floor(turned[:, 2]) + 1, most)
        found.append(np.stack([n, value] if order[0] == 0 else [value, n], axis=1))
    points = np.concatenate(found)
    nearest = np.rint(points)
    on = (np.abs(points - nearest).max(axis=1) <= ON_LINE) & (nearest >= 0).all(axis=1) & (nearest < size).all(axis=1)
    marked[tuple(nearest[on].astype(int).T)] = True
    return marked
