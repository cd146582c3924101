"""Vessels swept along curves, and trees of vessels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy.interpolate import CubicSpline


def curve(points: np.ndarray | Sequence[np.ndarray], step_mm: float = 1.0) -> np.ndarray:
    """Return a smooth curve `[N, 3]` through a few points `[P, 3]`, about `step_mm` apart."""
    at = np.asarray(points, float)
    at = at[np.concatenate([[True], np.linalg.norm(np.diff(at, axis=0), axis=1) > 1e-6])]
    if len(at) < 2:
        return at
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(at, axis=0), axis=1))])
    return np.asarray(CubicSpline(along, at)(np.linspace(0, along[-1], max(2, int(along[-1] / step_mm)))))


def _allowed(over: Collection[int]) -> np.ndarray:
    allowed = np.zeros(256, bool)
    allowed[list(over)] = True
    return allowed


def sweep(
    codes: np.ndarray, spacing: float, line: np.ndarray, radius: np.ndarray | float, code: int, over: Collection[int]
) -> None:
    """Paint balls along a line into `codes`, in place, over the tissues in `over` only.

    Args:
      codes: `[X, Y, Z]` uint8.
      spacing: mm per voxel.
      line: `[N, 3]` in mm of this grid.
      radius: in mm, one or one per point.
      code: what to paint.
      over: what may be painted over.
    """
    line = np.asarray(line, float).reshape(-1, 3) / spacing
    radii = np.broadcast_to(np.asarray(radius, float) / spacing, len(line))
    if not len(line):
        return
    low = np.maximum(np.floor((line - radii[:, None]).min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil((line + radii[:, None]).max(axis=0)).astype(int) + 1, codes.shape)
    if (high <= low).any():
        return
    mask = np.zeros(high - low, bool)
    for centre, r in zip(line - low, radii, strict=True):
        a = np.maximum(np.floor(centre - r).astype(int), 0)
        b = np.minimum(np.ceil(centre + r).astype(int) + 1, mask.shape)
        if (b <= a).any():
            continue
        x, y, z = np.ogrid[a[0] : b[0], a[1] : b[1], a[2] : b[2]]
        near = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= r * r
        mask[a[0] : b[0], a[1] : b[1], a[2] : b[2]] |= near
    part = codes[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    part[mask & _allowed(over)[part]] = code


def tree(
    rng: np.random.Generator, root: np.ndarray, targets: np.ndarray, trunk_mm: float, leaf_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grow a tree of vessels from a root to many targets, each from the node that is nearest by a detour's measure.

    Args:
      rng: bends the branches.
      root: `[3]` in mm.
      targets: `[T, 3]` in mm.
      trunk_mm: the largest radius.
      leaf_mm: the radius at a target.

    Returns:
      Nodes `[N, 3]` in mm, their radii `[N]` in mm, and their distance from the root along the tree `[N]` in mm.
    """
    nodes = np.empty((1 + 120 * len(targets), 3))
    parent = np.zeros(len(nodes), int)
    along = np.zeros(len(nodes))
    nodes[0], count = root, 1
    ends = []
    for target in targets[np.argsort(np.linalg.norm(targets - root, axis=1))]:
        far = np.linalg.norm(nodes[:count] - target, axis=1)
        start = int(np.argmin(far + 0.35 * along[:count]))
        steps = min(max(1, int(far[start] / 1.5)), len(nodes) - count)
        if steps < 1:
            break
        s = np.arange(1, steps + 1)[:, None] / steps
        bend = np.sin(np.pi * s) * rng.normal(0, 0.06 * far[start], 3)
        nodes[count : count + steps] = nodes[start] + s * (target - nodes[start]) + bend
        parent[count : count + steps] = [start, *range(count, count + steps - 1)]
        along[count : count + steps] = along[start] + s[:, 0] * far[start]
        count += steps
        ends.append(count - 1)
    load = np.zeros(count)
    load[ends] = 1
    for node in range(count - 1, 0, -1):
        load[parent[node]] += load[node]
    return nodes[:count], np.minimum(trunk_mm, leaf_mm * np.maximum(load, 1) ** 0.4), along[:count]


def paint_nodes(
    codes: np.ndarray, spacing: float, nodes: np.ndarray, radii: np.ndarray, code: int, over: Collection[int]
) -> None:
    """Paint a small ball at every node into `codes`, in place, over the tissues in `over` only; see `sweep`."""
    allowed = _allowed(over)
    reach = np.ceil(radii / spacing).astype(int)
    for n in np.unique(reach):
        at = nodes[reach == n] / spacing
        grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
        where = np.round(at).astype(int)[:, None] + grid
        # A node thinner than a voxel still paints the nearest one.
        near = np.linalg.norm(where - at[:, None], axis=2) <= np.maximum(radii[reach == n] / spacing, 0.6)[:, None]
        near &= ((where >= 0) & (where < codes.shape)).all(axis=2)
        x, y, z = where[near].T
        keep = allowed[codes[x, y, z]]
        codes[x[keep], y[keep], z[keep]] = code
