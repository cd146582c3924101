"""Implicit shapes on a sampling grid, for the phantom: coordinates, boxes, distances. No anatomy here.

Only operations that IEEE 754 rounds exactly (+ - * / sqrt, comparisons) touch whole arrays: sine,
exponential and matrix products differ in the last bit between processors, and the phantom's digest
must not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

FAR = 40.0
"""Distance in reference mm beyond which no shape is evaluated."""

Box = tuple[slice, slice, slice]
"""Slices along z, y and x."""

NODES = 13
"""Nodes along each axis of a smooth random field."""


def rotation(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Matrix `[3, 3]` float64 that turns about x, then y, then z (degrees)."""
    (cx, sx), (cy, sy), (cz, sz) = [
        (math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (x_deg, y_deg, z_deg)
    ]
    turn_x = ((1, 0, 0), (0, cx, -sx), (0, sx, cx))
    turn_y = ((cy, 0, sy), (0, 1, 0), (-sy, 0, cy))
    turn_z = ((cz, -sz, 0), (sz, cz, 0), (0, 0, 1))
    return product(turn_z, product(turn_y, turn_x))


def product(a, b) -> np.ndarray:
    """Product of two 3x3 matrices in one fixed order, rounded so that its last bit means nothing."""
    return np.array(
        [[round(sum(float(a[i][k]) * float(b[k][j]) for k in range(3)), 10) for j in range(3)] for i in range(3)]
    )


def turned(matrix: np.ndarray, vector) -> np.ndarray:
    """`matrix @ vector` for one vector `[3]`, in one fixed order, rounded to 1e-6 (mm)."""
    return np.array([round(sum(float(matrix[i][k]) * float(vector[k]) for k in range(3)), 6) for i in range(3)])


def unit(vector) -> np.ndarray:
    """`vector [3]` at length one."""
    x, y, z = (float(v) for v in vector)
    length = math.sqrt(x * x + y * y + z * z)
    return np.array([round(v / length, 9) for v in (x, y, z)])


@dataclass(frozen=True)
class Frame:
    """Where the patient lies: `world = scale * turn @ reference + shift`, world in mm (x, y, z) of LPS.

    Reference coordinates are those of an adult of usual size with the mitral valve's centre at 0.
    """

    turn: np.ndarray
    scale: float
    shift: tuple[float, float, float]
    _bounds: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict, compare=False)

    def to_world(self, point) -> np.ndarray:
        """World mm of reference points `[..., 3]`, before the smooth deformation."""
        p, t = np.asarray(point, np.float64), self.turn
        rows = [self.scale * (p[..., 0] * r[0] + p[..., 1] * r[1] + p[..., 2] * r[2]) for r in t]
        return np.round(np.stack(rows, -1) + np.array(self.shift), 6)

    def bounds(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper corners `[n - 1, 3]` (world mm) of each segment of a polyline of reference points.

        They are kept: a volume is drawn in slabs, each of which asks again for the same tubes.
        """
        known = self._bounds.get(id(points))
        if known is None or known[0] is not points:
            world = self.to_world(points)
            known = points, np.minimum(world[:-1], world[1:]), np.maximum(world[:-1], world[1:])
            self._bounds[id(points)] = known
        return known[1], known[2]


class SmoothField:
    """A random field made of cubic B-splines on a coarse lattice in world mm: smooth, and the same at any sampling."""

    def __init__(self, rng: np.random.Generator, components: int, pitch_mm: float, amplitude: float):
        self.pitch = pitch_mm
        self.nodes = (amplitude * rng.uniform(-1.0, 1.0, (components, NODES, NODES, NODES))).astype(np.float32)

    def _taps(self, positions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t = np.clip(positions_mm / self.pitch + (NODES - 1) / 2.0, 1.0, NODES - 2.001)
        base = np.floor(t).astype(np.int64)
        f = t - base
        weights = np.stack(
            [
                (1 - f) * (1 - f) * (1 - f) / 6,
                (3 * f * f * f - 6 * f * f + 4) / 6,
                (-3 * f * f * f + 3 * f * f + 3 * f + 1) / 6,
                f * f * f / 6,
            ]
        )
        return np.clip(base[None] + np.arange(-1, 3)[:, None], 0, NODES - 1), weights.astype(np.float32)

    def on_grid(self, component: int, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values `[len(z), len(y), len(x)]` float32 at world coordinates along the three axes."""
        values = self.nodes[component]
        for axis, along in enumerate((z, y, x)):
            index, weight = self._taps(along)
            shape = [1, 1, 1]
            shape[axis] = len(along)
            total = np.take(values, index[0], axis) * weight[0].reshape(shape)
            for tap in range(1, 4):
                total += np.take(values, index[tap], axis) * weight[tap].reshape(shape)
            values = total
        return values

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Values `[n, components]` at world points `[n, 3]` (x, y, z)."""
        (ix, wx), (iy, wy), (iz, wz) = (self._taps(points_mm[:, k]) for k in range(3))
        total = np.zeros((len(points_mm), len(self.nodes)))
        for a in range(4):
            for b in range(4):
                for c in range(4):
                    total += (wz[a] * wy[b] * wx[c])[:, None] * self.nodes[:, iz[a], iy[b], ix[c]].T
        return total


class Slab:
    """Reference coordinates `[z, y, x]` of a part of the volume, and the distances of shapes to each voxel."""

    def __init__(self, frame: Frame, bend: SmoothField, z: np.ndarray, y: np.ndarray, x: np.ndarray):
        self.frame = frame
        self.grid = tuple(
            (float(along[0]), float(along[1] - along[0]) if len(along) > 1 else 1.0, len(along)) for along in (z, y, x)
        )
        self.shape = (len(z), len(y), len(x))
        self.reach = 0.75 * float(np.abs(bend.nodes).max())
        back = frame.turn.T / frame.scale
        offset = -turned(back, frame.shift)
        coordinates = []
        for c in range(3):
            part = (
                (back[c, 0] * x)[None, None, :] + (back[c, 1] * y)[None, :, None] + (back[c, 2] * z)[:, None, None]
            ) + offset[c]
            coordinates.append(part.astype(np.float32) + bend.on_grid(c, z, y, x))
        self.x, self.y, self.z = coordinates

    def full(self, value: float = FAR) -> np.ndarray:
        """A float32 array `[z, y, x]` of one value."""
        return np.full(self.shape, value, np.float32)

    def box(self, low, high, margin: float) -> Box | None:
        """Slices that hold every voxel within `margin` reference mm of the segment `low`..`high`, or None."""
        ends = self.frame.to_world(np.array([low, high]))
        return self._around(ends[0], ends[1], margin)

    def _around(self, a: np.ndarray, b: np.ndarray, margin: float) -> Box | None:
        reach = self.frame.scale * (margin + 1.3 * self.reach)
        slices = []
        for axis, (first, pitch, count) in zip((2, 1, 0), self.grid, strict=True):
            low, high = (a[axis], b[axis]) if a[axis] < b[axis] else (b[axis], a[axis])
            start = max(0, math.ceil((low - reach - first) / pitch))
            stop = min(count, math.floor((high + reach - first) / pitch) + 1)
            if start >= stop:
                return None
            slices.append(slice(start, stop))
        return slices[0], slices[1], slices[2]

    def offsets(self, box, centre) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The voxels of a box relative to a reference point."""
        cx, cy, cz = (np.float32(c) for c in centre)
        return self.x[box] - cx, self.y[box] - cy, self.z[box] - cz

    def along(self, box, centre, direction) -> np.ndarray:
        """Signed distance of a box's voxels from the plane through `centre` across `direction`."""
        nx, ny, nz = (np.float32(c) for c in direction)
        x, y, z = self.offsets(box, centre)
        return x * nx + y * ny + z * nz

    def add_ellipsoid(self, field, centre, axes, radii, margin: float = 22.0, blend: float = 0.0) -> None:
        """Unite `field` with an ellipsoid (first-order distance; `axes` are rows of unit vectors)."""
        box = self.box(centre, centre, max(radii) + margin)
        if box is None:
            return
        x, y, z = self.offsets(box, centre)
        inside = np.zeros(x.shape, np.float32)
        slope = np.zeros(x.shape, np.float32)
        for axis, radius in zip(axes, radii, strict=True):
            p = x * np.float32(axis[0] / radius) + y * np.float32(axis[1] / radius) + z * np.float32(axis[2] / radius)
            p *= p
            inside += p
            slope += p * np.float32(1.0 / (radius * radius))
        k = np.sqrt(inside)
        unite(field[box], k * (k - 1) / np.sqrt(slope + np.float32(1e-10)), blend)

    def segments(self, points, radii, margin: float) -> Iterator[tuple[int, Box]]:
        """Yield (index, box) of each segment of a polyline, with a radius at each point, that comes near this slab."""
        low, high = self.frame.bounds(points)
        thickest = float(radii.max()) + margin
        if self._around(low.min(0), high.max(0), thickest) is None:
            return
        # The same arithmetic as in `_around`, for all segments at once.
        reach = self.frame.scale * (np.maximum(radii[:-1], radii[1:]) + margin + 1.3 * self.reach)
        ranges = []
        for axis, (first, pitch, count) in zip((2, 1, 0), self.grid, strict=True):
            start = np.ceil((low[:, axis] - reach - first) / pitch)
            stop = np.floor((high[:, axis] + reach - first) / pitch) + 1
            ranges.append((np.maximum(start, 0).astype(int), np.minimum(stop, count).astype(int)))
        inside = np.logical_and.reduce([start < stop for start, stop in ranges])
        for i in np.flatnonzero(inside).tolist():
            z, y, x = (slice(int(start[i]), int(stop[i])) for start, stop in ranges)
            yield i, (z, y, x)

    def _segment(self, box: Box, points, radii, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return signed distances of a box's voxels from segment i of a tube, and where along it (0..1) they are."""
        a, b, ra, rb = points[i], points[i + 1], float(radii[i]), float(radii[i + 1])
        x, y, z = self.offsets(box, a)
        dx, dy, dz = (float(v) for v in (b - a))
        length2 = max(dx * dx + dy * dy + dz * dz, 1e-6)
        t = x * np.float32(dx / length2)
        t += y * np.float32(dy / length2)
        t += z * np.float32(dz / length2)
        np.clip(t, 0, 1, out=t)
        x -= t * np.float32(dx)
        y -= t * np.float32(dy)
        z -= t * np.float32(dz)
        x *= x
        y *= y
        z *= z
        x += y
        x += z
        np.sqrt(x, out=x)
        x -= np.float32(ra) + t * np.float32(rb - ra)
        return x, t

    def add_tube(self, field, points, radii, margin: float = 8.0, blend: float = 0.0, progress=None) -> None:
        """Unite `field` with a tube along a polyline of reference points `[n, 3]` with a radius at each.

        `progress`, if given, receives the index along the polyline (0..n-1) of the nearest segment.
        """
        for i, box in self.segments(points, radii, margin):
            distance, t = self._segment(box, points, radii, i)
            if progress is not None:
                nearer = distance < field[box]
                progress[box][nearer] = (t + np.float32(i))[nearer]
            unite(field[box], distance, blend)

    def paint_tube(self, values, where, points, radii, value: int) -> None:
        """Set `values` to `value` inside a tube, where `where` allows."""
        for i, box in self.segments(points, radii, 1.0):
            allowed = where[box]
            if allowed.any():
                values[box][allowed & (self._segment(box, points, radii, i)[0] < 0)] = value

    def cut(self, field, centre, direction, radius: float, depth: float) -> None:
        """Take away from `field` what lies upstream of a valve's plane, within `radius` of it and `depth` deep."""
        box = self.box(centre, centre, radius)
        if box is None:
            return
        axial = self.along(box, centre, direction)
        x, y, z = self.offsets(box, centre)
        near = (x * x + y * y + z * z < np.float32(radius * radius)) & (axial > np.float32(-depth))
        part = field[box]
        part[near] = np.maximum(part, -axial)[near]


def unite(target: np.ndarray, other: np.ndarray, blend: float) -> None:
    """Union of two distances in place, rounded over `blend` mm where they meet (polynomial smooth minimum)."""
    if blend <= 0:
        np.minimum(target, other, out=target)
        return
    k = np.float32(blend)
    h = np.maximum(k - np.abs(target - other), 0) / k
    target[...] = np.minimum(target, other) - h * h * (k * np.float32(0.25))


def curve(points, radii, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A Catmull-Rom curve through `points [n, 3]`: `(n-1)*steps + 1` points, radii in between linear."""
    p = np.asarray(points, np.float64)
    r = np.asarray(radii, np.float64)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    out, widths = [], []
    for i in range(len(p) - 1):
        a, b, c, d = padded[i : i + 4]
        for k in range(steps):
            t = k / steps
            out.append(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t * t * t)
            )
            widths.append(r[i] + (r[i + 1] - r[i]) * t)
    return np.round(np.array(out + [p[-1]]), 5), np.round(np.array(widths + [r[-1]]), 5)
