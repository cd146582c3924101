"""Averages probabilities across neighbouring slices, which a network that sees one slice at a time decides apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

REACH = 2.5
"""How many standard deviations away slices count."""
SEEN = 2.0**-10
"""Around the pixels where a structure has this probability, a slice is taken to be background: memory and time."""


def weights_by_distance(sigma_mm: float, step_mm: float) -> np.ndarray:
    """Return the weights `[R + 1]` of slices 0 to R away by a Gaussian of `sigma_mm`, not yet divided by their sum."""
    distances_mm = np.arange(int(REACH * sigma_mm / step_mm) + 1) * step_mm
    return np.exp(-0.5 * (distances_mm / max(sigma_mm, 1e-9)) ** 2)


class _Slice(NamedTuple):
    """What was found in a slice: the structures' probabilities `[h, w, K - 1]` in a box of it, for each model."""

    number: int
    boxes: list[tuple[slice, slice]]
    structures: list[np.ndarray]


def smoothed(
    found: Iterable[Sequence[np.ndarray]], numbers: Sequence[int] | np.ndarray, weights: np.ndarray
) -> Iterator[list[np.ndarray]]:
    """Yield for each slice the weighted means of its probabilities and those of its neighbours, as soon as these came.

    Pixels that the network did not see, whose probabilities are all 0, become background.

    Args:
      found: of slice after slice, probabilities `[H, W, K]` of one model or several, background first.
      numbers: of these slices, ascending.
      weights: by distance, see `weights_by_distance`.
    """
    reach, held, waiting = len(weights) - 1, deque[_Slice](), deque[int]()
    shape = (0, 0, 0)

    def mean(number: int) -> list[np.ndarray]:
        around = [one for one in held if abs(one.number - number) <= reach]
        total = sum(weights[abs(one.number - number)] for one in around)
        out = []
        for model in range(len(around[0].boxes)):
            whole = np.zeros(shape, np.float32)
            for one in around:
                inside = whole[one.boxes[model]][..., 1:]
                inside += np.float32(weights[abs(one.number - number)] / total) * one.structures[model]
            whole[..., 0] = np.maximum(1 - whole[..., 1:].sum(axis=-1), 0)
            out.append(whole)
        return out

    for number, models in zip(numbers, found, strict=True):
        shape = models[0].shape
        held.append(_boxed(int(number), models))
        waiting.append(int(number))
        while waiting and waiting[0] + reach <= number:
            yield mean(waiting.popleft())
            while waiting and held[0].number < waiting[0] - reach:
                held.popleft()
    for number in waiting:
        yield mean(number)


def _boxed(number: int, models: Sequence[np.ndarray]) -> _Slice:
    boxes, structures = [], []
    for probabilities in models:
        seen = (probabilities[..., 1:] >= SEEN).any(axis=-1)
        found = ndimage.find_objects(seen.view(np.uint8))  # of label 1: the box around all pixels, or nothing
        box = found[0] if found else (slice(0), slice(0))
        boxes.append(box)
        structures.append(np.array(probabilities[box][..., 1:], np.float32))
    return _Slice(number, boxes, structures)
