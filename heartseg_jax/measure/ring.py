"""The ring in which two blood pools part, as labels show it, or the reason why they show none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging.block_checks import COARSE_MM
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.annulus import RESAMPLES, Annulus, closed_curve, fitted_plane, planes
from heartseg_jax.measure.contact import LEAST_SHARE, NoContact, find_contact, indices_of, places_of
from heartseg_jax.measure.rim import RAYS, Midway, find_rim, frame_of

ANISOTROPIC = 6.0
"""Slices so many pixels apart show no rim in most half-planes."""
FEWEST_RAYS, FEW_RAYS = 0.75, 0.9
"""Share of half-planes in which the pools part: below the first the contact is open, below the second doubtful."""
CUT_MM = 5.0
"""A pool that the border cuts so near to the ring is not whole there."""
WIDE_GAP_MM = 3.0
WALLED_SHARE = 0.5
"""In a quarter of the half-planes at most, the gap of labels without such a wall is wider by the rim."""
UNEVEN_MM = 1.5
"""Median distance of the rim from the curve beyond which it is no smooth ring."""
ROUNDS, AGREEING = 3, 2
"""How often half-planes are laid around the ring found so far, and how often the last of them are made to agree."""


@dataclass(frozen=True)
class Ring:
    """An annulus with its plane.

    Attributes:
      annulus: the curve.
      centre: `[3]` mm.
      normal: `[3]`, downstream.
      doubts: what makes it uncertain, in words.
    """

    annulus: Annulus
    centre: np.ndarray
    normal: np.ndarray
    doubts: tuple[str, ...]


def check_grid(volume: Volume, labels: np.ndarray) -> None:
    """Raise NoContact where a grid cannot show a valve at all."""
    widest, finest = max(volume.spacing_mm), min(volume.spacing_mm)
    if min(labels.shape) < 2:
        raise NoContact("a single slice shows no valve")
    if widest > COARSE_MM:
        raise NoContact(f"voxels of {widest:.3g} mm are too large to show a valve")
    if widest >= ANISOTROPIC * finest * (1 - 1e-6):
        raise NoContact(f"slices {widest:.3g} mm apart, of pixels of {finest:.3g} mm, show no rim of a valve")


def find_ring(
    volume: Volume,
    labels: np.ndarray,
    pair: tuple[int, int],
    tolerance_mm: float,
    least_share: float = LEAST_SHARE,
    seen: tuple[slice, ...] | None = None,
    resamples: int = RESAMPLES,
    outflow: np.ndarray | None = None,
) -> Ring:
    """Return the ring in which two labels part, the first upstream.

    Args:
      volume: the grid of the labels.
      labels: `[Z, Y, X]`.
      pair: the two labels.
      tolerance_mm: of the contact.
      least_share: of the contact.
      seen: the part of the grid that was labelled; all of it where None.
      resamples: how many curves are drawn for intervals.
      outflow: `[3]` mm, as of `find_rim`.

    Raises:
      NoContact: they part in no ring, or the border of what was seen cuts it.
    """
    contact = find_contact(volume, labels, pair, tolerance_mm, least_share)
    whole = tuple(slice(0, n) for n in labels.shape)
    check_border(volume, labels, pair, contact.points[:: max(1, len(contact.points) // 300)], seen or whole)
    midway = Midway(contact)
    centre, normal = contact.centre, contact.normal
    for turn in range(ROUNDS):
        rim = find_rim(midway, centre, frame_of(normal), contact.gap_mm, outflow)
        if rim.share < FEWEST_RAYS:
            raise NoContact(f"the contact is open: the two part in {len(rim.rays)} of {RAYS} directions only")
        _, normal = fitted_plane(rim.points, normal)
        last = turn == ROUNDS - 1
        annulus = closed_curve(rim.points, centre, normal, resamples if last else 0)
        # The interval and the spread remain those of half-planes by themselves, which differ independently.
        for _ in range(AGREEING if last else 0):
            annulus = annulus._replace(curve=closed_curve(rim.beside(annulus.curve), centre, normal).curve)
        centres, normals = planes(annulus.curve[None], normal)
        centre, normal = centres[0], normals[0]
    check_border(volume, labels, pair, annulus.curve, seen or whole)
    doubts = []
    if rim.share < FEW_RAYS:
        doubts.append(f"the two chambers part in {len(rim.rays)} of {RAYS} directions only")
    if contact.gap_mm > WIDE_GAP_MM:
        doubts.append(f"the chambers lie {contact.gap_mm:.1f} mm apart")
    if rim.walled_share() > WALLED_SHARE:
        doubts.append(
            "the gap between the chambers is wider by the rim than in the middle: a thin wall may be part of it"
        )
    if annulus.spread_mm > UNEVEN_MM:
        doubts.append(f"half of the rim lies over {annulus.spread_mm:.1f} mm from a smooth ring")
    return Ring(annulus, centre, normal, tuple(doubts))


def check_border(
    volume: Volume, labels: np.ndarray, pair: tuple[int, int], points: np.ndarray, seen: tuple[slice, ...]
) -> None:
    """Raise NoContact where the border of what was seen cuts one of two labels near points `[N, 3]` mm."""
    margin = CUT_MM / np.array(volume.spacing_mm)
    index = indices_of(volume, points)
    low, high = index.min(axis=0) - margin, index.max(axis=0) + margin
    first, last = np.array([side.start for side in seen]), np.array([side.stop for side in seen]) - 1
    if (low >= first).all() and (high <= last).all():
        return
    start = np.maximum(np.floor(low).astype(int), first)
    stop = np.minimum(np.ceil(high).astype(int), last) + 1
    part = np.isin(labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))], pair)
    for axis in range(3):
        for end, place in ((first[axis], 0), (last[axis], stop[axis] - start[axis] - 1)):
            if not start[axis] <= end < stop[axis]:
                continue
            cut = np.argwhere(np.take(part, [place], axis=axis))
            cut[:, axis] = place
            if len(cut) and _nearest(places_of(volume, cut + start), points) < CUT_MM:
                raise NoContact("a chamber touches the border of the field of view at the valve")


def _nearest(one: np.ndarray, other: np.ndarray) -> float:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return float(np.sqrt(max(squares.min(), 0)))
