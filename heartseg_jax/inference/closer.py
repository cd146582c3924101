"""Closer looks: where the first one found structures, the network sees the slice again, enlarged.

A heart fills a tenth of a child's slice with a wide field of view, and most of a heart-centred one. A closer look
makes them alike, and gives small vessels their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heartseg_jax.data.examples import padded
from heartseg_jax.preprocess import host
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.host import Batch

TAIL = 0.005
"""Share of the found pixels beyond each side of the box: a stray island must not widen it."""
LEAST_SIDE = 0.15
"""Of the slice's longer side: a closer look than this shows no surroundings."""


class Window(NamedTuple):
    """A square of a slice, in its pixels; it may reach beyond the slice."""

    top: int
    left: int
    side: int


class Box(NamedTuple):
    """A part of a slice: its first row and column, and the ones after its last."""

    top: int
    bottom: int
    left: int
    right: int


def marked_box(found: np.ndarray) -> Box | None:
    """Return the box around the structures of `found [H, W]` (0 is background); None where there are none."""
    marked = found > 0
    count = int(marked.sum())
    if count == 0:
        return None
    ends = []
    for axis in (1, 0):
        line = np.cumsum(marked.sum(axis=axis))
        first, last = np.searchsorted(line, [max(TAIL * count, 1), (1 - TAIL) * count])
        ends.append((int(first), int(last) + 1))
    return Box(*ends[0], *ends[1])


def window_of(box: Box, share: float, shape: tuple[int, ...]) -> Window | None:
    """Return the square in which the box fills `share`; None where it would not be smaller than the slice's `shape`."""
    top, bottom, left, right = box
    longest = max(shape)
    side = int(np.ceil(max(max(bottom - top, right - left) / share, LEAST_SIDE * longest)))
    if side >= longest:
        return None
    return Window((top + bottom - side) // 2, (left + right - side) // 2, side)


def batch_of(spec: InputSpec, planes: Sequence[np.ndarray], windows: Sequence[Window], batch_size: int) -> Batch:
    """Return one batch of at most `batch_size` slices, each with its `planes [P, H, W]`, in its window.

    It has `batch_size` rows, as every batch, so that nothing compiles twice. Percentiles are those of the whole slice,
    as in training: without its lungs and bones the same heart would have other grey values.
    """
    seen = np.stack([_cut(spec, own, window) for own, window in zip(planes, windows, strict=True)])
    _, filled, mask = next(padded(np.arange(len(seen)), batch_size))
    # The slice itself has the offset 0; where it is not shown, the first that is.
    own = spec.offsets.index(0) if 0 in spec.offsets else 0
    whole = np.stack([host.to_network(spec, shown[own : own + 1], None)[0] for shown in planes])
    windowed = host.windows_of(spec, whole)[filled]
    marks = host.tissue_marks(spec, len(mask))
    return Batch(seen[filled].transpose(0, 2, 3, 1), windowed, None, None, mask, marks)


def _cut(spec: InputSpec, planes: np.ndarray, window: Window) -> np.ndarray:
    """Return `planes [P, H, W]` in the window as the network sees them, `[P, S, S]`; air beyond the slice."""
    cut = np.full((len(planes), window.side, window.side), spec.fill, planes.dtype)
    ours, theirs = _overlap(window, planes.shape[1:])
    cut[:, ours[0], ours[1]] = planes[:, theirs[0], theirs[1]]
    return host.to_network(spec, cut, None)


def put_back(
    spec: InputSpec, probabilities: np.ndarray, window: Window, height: int, width: int
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return `probabilities [S, S, K]` of a window on the slice's grid, and the rows and columns where they lie."""
    ours, theirs = _overlap(window, (height, width))
    whole = host.to_source(spec, probabilities[None], window.side, window.side, None)[0]
    return whole[ours[0], ours[1]], theirs


def _overlap(window: Window, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where window and slice overlap: (rows, columns) of the window, and of the slice."""
    ours, theirs = [], []
    for start, length in ((window.top, shape[0]), (window.left, shape[1])):
        first, last = max(start, 0), min(start + window.side, length)
        theirs.append(slice(first, last))
        ours.append(slice(first - start, last - start))
    return (ours[0], ours[1]), (theirs[0], theirs[1])
