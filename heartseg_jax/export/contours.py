"""Closed polygons around a structure in a slice, holes and all, as radiotherapy draws them. Pixels here; no DICOM."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label as label_pieces
from scipy.spatial import cKDTree
from skimage.measure import find_contours


def outlines(plane: np.ndarray, label: int) -> list[np.ndarray]:
    """Return polygons `[N, 2]` of (row, column) around the pixels of `plane [H, W]` that have a label.

    Pixel centres are whole numbers, and polygons pass halfway between the centres inside and those outside, so that the
    pixels whose centre is inside a polygon are those of the label. Pixels that touch by a corner only are not joined. A
    polygon with holes is one line: a channel of no width leads to each hole and back (the keyhole of PS3.3, C.8.8.6.3),
    which reads the same whether polygons of a slice are joined or combined by exclusive or. The last point is not
    the first again.
    """
    inside = plane == label
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return []
    inside = np.pad(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for line in find_contours(inside.view(np.uint8), 0.5):
        (outer if _area(line) > 0 else holes).append(line[:-1])
    inner: dict[int, list[np.ndarray]] = {}
    if holes:
        pieces, _ = label_pieces(inside)
        for hole in holes:
            inner.setdefault(_piece_at(hole[0], pieces), []).append(hole)
        outer = [keyholed(polygon, inner.get(_piece_at(polygon[0], pieces), [])) for polygon in outer]
    shift = np.array([rows[0] - 1, columns[0] - 1])
    return [corners(polygon) + shift for polygon in outer]


def corners(polygon: np.ndarray) -> np.ndarray:
    """Return a closed polygon `[N, 2]` of half-integer points without those on straight lines between others."""
    step = 2 * (np.roll(polygon, -1, 0) - polygon)
    before = np.roll(step, 1, 0)
    return polygon[before[:, 0] * step[:, 1] != before[:, 1] * step[:, 0]]


def keyholed(polygon: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Return one closed line `[N, 2]` around `polygon` and its holes, each joined to it where it is nearest.

    The nearest hole is joined first, so that no channel crosses another hole, where points lie close.
    """
    holes = list(holes)
    while holes:
        tree = cKDTree(polygon)
        distances, places = zip(*(tree.query(hole) for hole in holes), strict=True)
        nearest = min(range(len(holes)), key=lambda k: distances[k].min())
        start = int(distances[nearest].argmin())
        place = int(places[nearest][start])
        hole = np.roll(holes.pop(nearest), -start, 0)
        polygon = np.concatenate([polygon[: place + 1], hole, hole[:1], polygon[place:]])
    return polygon


def _area(polygon: np.ndarray) -> float:
    """Return a polygon's area in square pixels, negative for the line around a hole as `find_contours` draws it."""
    y, x = polygon.T
    return float((np.roll(y, -1) * x - y * np.roll(x, -1)).sum() / 2)


def _piece_at(point: np.ndarray, pieces: np.ndarray) -> int:
    """Return the piece `[H, W]` that a point of a line is at: halfway between one of its pixels and one outside (0)."""
    return int(max(pieces[tuple(way(point).astype(int))] for way in (np.floor, np.ceil)))
