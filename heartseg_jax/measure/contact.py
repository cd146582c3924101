"""Where two blood pools meet: their surfaces below the voxel's size, the gap between them, and the patch of contact.

All in mm of the patient. A closed valve lies between two chambers as a gap as wide as its leaflets, an open one as
none: so a contact is where the gap is hardly wider than at its narrowest, whatever its width is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from heartseg_jax.imaging.volume import Volume

TOLERANCE_MM = 1.0
"""How much wider than at its narrowest the gap may be in the patch."""
LEAST_SHARE = 0.15
"""Area of a contact over the ventricle's volume to the power 2/3, at least: 0.17 to 0.5 in real hearts."""
WIDEST_GAP_MM = 4.5
"""A leaflet with both its borders in the labels is 2 to 4 mm thick; a wall beside it is thicker."""
NEAR_MM, MARGIN_MM, COARSE_MM = 8.0, 4.0, 2.0
"""Farther than this from either pool lies no valve; kept around the rest; how finely it is looked for."""
FINEST_MM, SMOOTHING = 0.8, 0.4
"""Voxels below this are averaged; standard deviation in voxels."""
APART = "they do not touch"


class NoContact(Exception):
    """The chambers do not meet in a valve; the text says why."""


@dataclass(frozen=True)
class Surface:
    """A structure's surface.

    Attributes:
      points: `[N, 3]` mm.
      normals: `[N, 3]`, out of it.
      areas: `[N]` mm2, of each point.
      blur: `[3, 3]` mm2, covariance of what the voxels and their smoothing did to the structure's own shape.
    """

    points: np.ndarray
    normals: np.ndarray
    areas: np.ndarray
    blur: np.ndarray

    @cached_property
    def tree(self) -> cKDTree:
        """The points, to look up the nearest."""
        return cKDTree(self.points, balanced_tree=False)

    def distance(self, places: np.ndarray, reach_mm: float) -> np.ndarray:
        """Return the signed distance of places `[M, 3]` in mm, negative inside, at most `reach_mm` to either side."""
        nearest, index = self.tree.query(places, distance_upper_bound=reach_mm)
        far = ~np.isfinite(nearest)
        index[far] = 0
        height = np.einsum("ij,ij->i", places - self.points[index], self.normals[index])
        # Beside a point of the surface its tangent plane is nearer than the point itself.
        flat = np.clip(2.0 - nearest, 0, 1)
        length = flat * np.abs(height) + (1 - flat) * np.where(far, reach_mm, nearest)
        return np.where(far, reach_mm, np.where(height < 0, -length, length))


@dataclass(frozen=True)
class Contact:
    """The patch in which two pools meet.

    Attributes:
      upstream, downstream: their surfaces around it.
      points: `[N, 3]` mm, of the patch, midway between the two.
      gap_mm: between the two where it is narrowest, over the least area that a valve can have.
      area_cm2: of the patch.
      centre: `[3]` mm.
      normal: `[3]`, of the plane that is nearest to the patch, downstream.
    """

    upstream: Surface
    downstream: Surface
    points: np.ndarray
    gap_mm: float
    area_cm2: float
    centre: np.ndarray
    normal: np.ndarray


def find_contact(
    volume: Volume,
    labels: np.ndarray,
    pair: tuple[int, int],
    tolerance_mm: float = TOLERANCE_MM,
    least_share: float = LEAST_SHARE,
) -> Contact:
    """Return the contact of two labels, the first upstream.

    Args:
      volume: the grid of the labels.
      labels: `[Z, Y, X]`.
      pair: the two labels.
      tolerance_mm: how much wider than at its narrowest the gap may be.
      least_share: of the second pool's volume to the power 2/3, the least area of the contact.

    Raises:
      NoContact: they do not touch, or in too small an area.
    """
    found = ndimage.find_objects(labels, max_label=max(pair))
    boxes = [found[label - 1] for label in pair]
    if boxes[0] is None or boxes[1] is None:
        raise NoContact("one of the two is absent")
    near = _near(labels, volume, pair, boxes)
    downstream_mm3 = 1000 * volume.voxel_ml * int(np.count_nonzero(labels[boxes[1]] == pair[1]))
    upstream, downstream = (_surface(labels[near] == label, volume, near) for label in pair)
    if not len(upstream.points) or not len(downstream.points):
        raise NoContact(APART)
    gap, index = downstream.tree.query(upstream.points, distance_upper_bound=WIDEST_GAP_MM + tolerance_mm)
    facing = np.isfinite(gap)
    index[~facing] = 0
    # Two surfaces that face each other: not the back of a thin wall.
    facing &= np.einsum("ij,ij->i", upstream.normals, downstream.normals[index]) < 0
    order = np.argsort(np.where(facing, gap, np.inf))
    grown = np.cumsum(upstream.areas[order])
    least = least_share * downstream_mm3 ** (2 / 3)
    count = int(facing.sum())
    reached = int(np.searchsorted(grown[:count], least))
    if not count or reached >= count or gap[order[reached]] > WIDEST_GAP_MM:
        within = float(upstream.areas[facing & (gap <= WIDEST_GAP_MM)].sum()) / 100
        text = f"they come within {WIDEST_GAP_MM:g} mm of each other over {within:.1f} cm2"
        raise NoContact(f"{text}, a valve would over {least / 100:.1f} cm2 at least" if within else APART)
    base = float(np.median(gap[order[: reached + 1]]))
    patch = np.flatnonzero(facing & (gap <= float(gap[order[reached]]) + tolerance_mm))
    patch = patch[_largest_part(upstream.points[patch])]
    area = float(upstream.areas[patch].sum())
    if area < least:
        raise NoContact(f"they touch in scattered places only, over {area / 100:.1f} cm2 at most")
    points = (upstream.points[patch] + downstream.points[index[patch]]) / 2
    centre = np.average(points, axis=0, weights=upstream.areas[patch])
    normal = np.linalg.svd((points - centre) * np.sqrt(upstream.areas[patch])[:, None], full_matrices=False)[2][2]
    if normal @ np.average(upstream.normals[patch], axis=0, weights=upstream.areas[patch]) < 0:
        normal = -normal
    return Contact(upstream, downstream, points, base, area / 100, centre, normal)


def places_of(volume: Volume, indices: np.ndarray) -> np.ndarray:
    """Return the mm of the patient `[N, 3]` (x, y, z of LPS) of voxel indices `[N, 3]` (z, y, x), whole or not."""
    assert volume.direction is not None
    return np.array(volume.origin_mm) + (indices * np.array(volume.spacing_mm)) @ volume.direction.T


def indices_of(volume: Volume, places: np.ndarray) -> np.ndarray:
    """Return the voxel indices `[..., 3]` (z, y, x) of places `[..., 3]` in mm of the patient."""
    assert volume.direction is not None
    return (places - np.array(volume.origin_mm)) @ volume.direction / np.array(volume.spacing_mm)


def _near(labels: np.ndarray, volume: Volume, pair: tuple[int, int], boxes) -> tuple[slice, ...]:
    """Return the box around the places that are near to both labels. Raises NoContact where there are none."""
    around = []
    for k, (one, other) in enumerate(zip(*boxes, strict=True)):
        margin = int(np.ceil(NEAR_MM / volume.spacing_mm[k]))
        start, stop = max(one.start, other.start) - margin, min(one.stop, other.stop) + margin
        if start >= stop:
            raise NoContact(APART)
        around.append(slice(max(start, 0), min(stop, labels.shape[k])))
    part = labels[tuple(around)]
    steps = [max(1, round(COARSE_MM / mm)) for mm in volume.spacing_mm]
    thinned = part[tuple(slice(None, None, step) for step in steps)]
    if all((thinned == label).any() for label in pair):
        part = thinned
    else:
        steps = [1, 1, 1]
    both = np.ones(part.shape, bool)
    for label in pair:
        mask = part != label
        if mask.all():
            raise NoContact(APART)
        both &= ndimage.distance_transform_edt(mask, sampling=np.array(volume.spacing_mm) * steps) < NEAR_MM
    if not both.any():
        raise NoContact(APART)
    sides = []
    for k, side in enumerate(ndimage.find_objects(both.astype(np.uint8))[0]):
        margin, start = int(np.ceil(MARGIN_MM / volume.spacing_mm[k])), around[k].start
        first, last = start + side.start * steps[k], start + side.stop * steps[k]
        sides.append(slice(max(first - margin, 0), min(last + margin, labels.shape[k])))
    return tuple(sides)


def _surface(mask: np.ndarray, volume: Volume, box: tuple[slice, ...]) -> Surface:
    """Return the surface of a mask in a box of the volume's grid, but where the box cuts it."""
    factors = [max(1, round(FINEST_MM / mm)) for mm in volume.spacing_mm]
    field = _averaged(mask, factors)
    spacing = np.array(volume.spacing_mm) * factors
    smoothing = SMOOTHING * np.minimum(1, 1.5 / spacing)
    field = ndimage.gaussian_filter(field, smoothing, mode="nearest", truncate=3)
    slopes = np.stack(np.gradient(field), axis=-1) / spacing
    starts = np.array([side.start for side in box]) + (np.array(factors) - 1) / 2
    points, normals = [], []
    for axis in range(3):
        low = tuple(slice(None, -1 if k == axis else None) for k in range(3))
        high = tuple(slice(1 if k == axis else None, None) for k in range(3))
        crossing = (field[low] >= 0.5) != (field[high] >= 0.5)
        index = np.argwhere(crossing)
        one, other = field[low][crossing], field[high][crossing]
        part = ((0.5 - one) / (other - one))[:, None]
        normals.append(-(slopes[low][crossing] * (1 - part) + slopes[high][crossing] * part))
        points.append((index + part * (np.arange(3) == axis)) * factors + starts)
    away = np.concatenate(normals)
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-12
    # A plane across the grid crosses so many of its lines per mm2.
    areas = 1 / (np.abs(away) @ (spacing / spacing.prod()) + 1e-12)
    assert volume.direction is not None
    # A label says where in a voxel a border runs no better than that it is in it: evenly spread, 1/12 of its square.
    blur = (volume.direction * spacing**2 * (1 / 12 + smoothing**2)) @ volume.direction.T
    return Surface(places_of(volume, np.concatenate(points)), away @ volume.direction.T, areas, blur)


def _averaged(mask: np.ndarray, factors: list[int]) -> np.ndarray:
    """Return the mean of a mask over blocks of `factors` voxels; the last block repeats the mask's end."""
    padded = np.pad(mask, [(0, -n % f) for n, f in zip(mask.shape, factors, strict=True)], mode="edge")
    shape = [size for n, f in zip(padded.shape, factors, strict=True) for size in (n // f, f)]
    return padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)


def _largest_part(points: np.ndarray, within_mm: float = 3.0) -> np.ndarray:
    """Return which points belong to the largest set that steps of `within_mm` connect."""
    pairs = cKDTree(points).query_pairs(within_mm, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    _, part = connected_components(graph, directed=False)
    return part == np.bincount(part).argmax()
