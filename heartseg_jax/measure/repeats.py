"""Whether a ring would be another one if the voxels' grid lay otherwise: it is found again on two other grids.

Each voxel of another grid takes the label that is nearest, so nothing is smoothed away. What depends on where the grid
happens to lie is not the heart's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging.block_checks import VALVE_SLICE_MM
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.annulus import quantities
from heartseg_jax.measure.contact import FINEST_MM, TOLERANCE_MM, NoContact
from heartseg_jax.measure.ring import CUT_MM, Ring, find_ring

TURN_DEGREES, TURN_AXIS = 20.0, (0.48, 0.6, 0.64)
CUBE_MM = 1.25
MOVES_MM, AREA_CHANGES = 1.5, 0.06
"""By how much the centre or a diameter, and the area as a share of it, may change at most."""
DIAMETERS = ("intercommissural_mm", "septolateral_mm", "major_mm", "minor_mm")


def instability(
    volume: Volume,
    labels: np.ndarray,
    pair: tuple[int, int],
    ring: Ring,
    towards: np.ndarray | None,
    outflow: np.ndarray | None,
) -> str:
    """Return what changes too much on another grid, in words; '' where nothing does.

    Voxels over VALVE_SLICE_MM are not looked at: what they make of a ring is uncertain by itself.

    Args:
      volume: the grid of the labels.
      labels: `[Z, Y, X]` uint8.
      pair: the two labels, the first upstream.
      ring: what they show.
      towards: `[3]` mm, as of `quantities`.
      outflow: `[3]` mm, as of `find_ring`.
    """
    if max(volume.spacing_mm) > VALVE_SLICE_MM:
        return ""
    own = _measured(ring, towards)
    for name, grid in other_grids(volume, labels, pair):
        try:
            other = find_ring(grid, grid.voxels, pair, TOLERANCE_MM, resamples=0, outflow=outflow)
        except NoContact as reason:
            return f"it depends on the voxels' grid: {name}, {reason}"
        moved = float(np.linalg.norm(other.centre - ring.centre))
        changes = _changes(own, _measured(other, towards))
        if moved > MOVES_MM:
            changes.append(f"its centre moves by {moved:.1f} mm")
        if changes:
            return f"it depends on the voxels' grid: {name}, {' and '.join(changes)}"
    return ""


def other_grids(volume: Volume, labels: np.ndarray, pair: tuple[int, int]) -> Iterator[tuple[str, Volume]]:
    """Yield two labels on a grid that is turned, and in cubes of CUBE_MM, each with its name."""
    steps = np.maximum(volume.spacing_mm, FINEST_MM)
    yield f"turned by {TURN_DEGREES:g} degrees", regridded(volume, labels, pair, TURN_DEGREES, steps)
    yield f"in voxels of {CUBE_MM:g} mm", regridded(volume, labels, pair, 0.0, np.full(3, CUBE_MM))


def regridded(
    volume: Volume, labels: np.ndarray, pair: tuple[int, int], degrees: float, steps_mm: np.ndarray
) -> Volume:
    """Return two labels on a grid turned about TURN_AXIS, of other steps: each voxel takes the nearest label.

    The grid holds both and a margin in which `find_ring` sees no border.
    """
    assert volume.direction is not None
    found = ndimage.find_objects(labels, max_label=max(pair))
    sides = [(one, other) for one, other in zip(*(found[label - 1] for label in pair), strict=True)]
    low = np.array([min(one.start, other.start) for one, other in sides])
    high = np.array([max(one.stop, other.stop) for one, other in sides])
    part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    # A border, for beyond the middle of the outermost voxels there would be nothing.
    part = np.pad(np.where(np.isin(part, pair), part, 0).astype(np.uint8), 1)
    spacing = np.array(volume.spacing_mm)
    middle = np.array(volume.origin_mm) + volume.direction @ ((low + high - 1) / 2 * spacing)
    direction = _turn(degrees) @ volume.direction
    # Half of what the box's three edges span along each new axis.
    reach = np.abs(direction.T @ volume.direction) @ ((high - low) * spacing / 2) + CUT_MM + steps_mm
    counts = 2 * np.ceil(reach / steps_mm).astype(int) + 1
    origin = middle - direction @ ((counts - 1) / 2 * steps_mm)
    matrix = (volume.direction.T @ direction) * steps_mm / spacing[:, None]
    offset = (np.array(part.shape) - 1) / 2 - matrix @ ((counts - 1) / 2)
    voxels = ndimage.affine_transform(part, matrix, offset, tuple(counts), order=0, mode="constant")
    z_mm, y_mm, x_mm = map(float, steps_mm)
    x, y, z = map(float, origin)
    return Volume(voxels, (z_mm, y_mm, x_mm), (x, y, z), direction)


def _turn(degrees: float) -> np.ndarray:
    """Return the rotation `[3, 3]` about TURN_AXIS (Rodrigues)."""
    axis, angle = np.array(TURN_AXIS), np.radians(degrees)
    cross = np.cross(np.eye(3), axis)
    return np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * np.outer(axis, axis) - np.sin(angle) * cross


def _measured(ring: Ring, towards: np.ndarray | None) -> Mapping[str, float]:
    found = quantities(ring.annulus.curve[None], ring.normal, towards, None)
    return {name: float(values[0]) for name, values in found.items()}


def _changes(own: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
    """Return which diameters and whether the area change by more than they may, in words."""
    found = []
    share = other["area_cm2"] / own["area_cm2"] - 1
    if abs(share) > AREA_CHANGES:
        found.append(f"its area changes by {100 * abs(share):.0f} %")
    for name in DIAMETERS:
        change = abs(other.get(name, 0.0) - own.get(name, 0.0))
        if change > MOVES_MM:
            found.append(f"its {name.removesuffix('_mm')} diameter changes by {change:.1f} mm")
    return found
