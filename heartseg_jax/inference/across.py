"""Averages probabilities across neighbouring slices, which a network that sees one slice at a time decides apart."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import ndimage

REACH, MOST = 2.5, 12
"""How many standard deviations away slices count, and how many of them at most on either side: of thin slices fewer."""
SEEN, STEP = 2.0**-10, 16
"""Only a box around the pixels where the structures together have this probability is averaged, which saves memory and
time; it grows by this many pixels at least. What lies outside is background."""


def weights_by_distance(sigma_mm: float, step_mm: float) -> np.ndarray:
    """Return the weights `[R + 1]` of slices 0 to R away by a Gaussian of `sigma_mm`, not yet divided by their sum."""
    distances_mm = np.arange(min(int(REACH * sigma_mm / step_mm), MOST) + 1) * step_mm
    return np.exp(-0.5 * (distances_mm / max(sigma_mm, 1e-9)) ** 2)


def smoothed(
    found: Iterable[Sequence[np.ndarray]], numbers: Sequence[int] | np.ndarray, weights: np.ndarray
) -> Iterator[list[np.ndarray]]:
    """Yield for each slice the weighted means of its probabilities and those of its neighbours, as soon as these came.

    Args:
      found: of slice after slice, probabilities `[H, W, K]` of one model or several, background first.
      numbers: of these slices, ascending, with gaps where there are some.
      weights: by distance, see `weights_by_distance`.

    Raises:
      ValueError: the numbers do not ascend.
    """
    reach, waiting, windows = len(weights) - 1, deque[int](), list[_Window]()
    numbers = [int(number) for number in numbers]
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ValueError("slices are averaged with their neighbours in ascending order")
    for number, models in zip(numbers, found, strict=True):
        # After a gap the new slice takes the place of one that these still need.
        while waiting and waiting[0] + reach < number:
            done = waiting.popleft()
            yield [window.mean(done) for window in windows]
        windows = windows or [_Window(weights, probabilities.shape) for probabilities in models]
        for window, probabilities in zip(windows, models, strict=True):
            window.add(number, probabilities)
        waiting.append(number)
        while waiting and waiting[0] + reach <= number:
            done = waiting.popleft()
            yield [window.mean(done) for window in windows]
    for number in waiting:
        yield [window.mean(number) for window in windows]


class _Window:
    """The slices that still count, of one model: a ring of `2 R + 1` of them, in a box that holds all structures."""

    def __init__(self, weights: np.ndarray, shape: tuple[int, ...]) -> None:
        self.weights, self.shape = weights, shape
        self.structures = (np.arange(shape[-1]) > 0).astype(np.float32)  # a product with it is their sum, and fast
        self.numbers = np.full(2 * len(weights) - 1, -len(weights))  # of no slice: too far from all that are
        self.rows, self.columns = slice(0, 0), slice(0, 0)
        self.ring = np.zeros((len(self.numbers), 0, 0, shape[-1]), np.float32)

    def add(self, number: int, probabilities: np.ndarray) -> None:
        """Put a slice into its place, where one was that no longer counts."""
        seen = probabilities @ self.structures >= SEEN
        for rows, columns in ndimage.find_objects(seen.view(np.uint8)):  # one box, or none
            self._hold(rows, columns)
        place = number % len(self.numbers)
        self.ring[place] = probabilities[self.rows, self.columns]
        self.numbers[place] = number

    def mean(self, number: int) -> np.ndarray:
        """Return the weighted mean `[H, W, K]` around a slice; outside of the box all is background."""
        away = np.abs(self.numbers - number)
        weights = np.where(away < len(self.weights), self.weights[away.clip(max=len(self.weights) - 1)], 0)
        weights = (weights / weights.sum()).astype(np.float32)
        inside = (weights @ self.ring.reshape(len(weights), -1)).reshape(self.ring.shape[1:])
        if inside.shape == self.shape:
            return inside
        whole = _background(self.shape)
        whole[self.rows, self.columns] = inside
        return whole

    def _hold(self, rows: slice, columns: slice) -> None:
        """Widen the box where it does not hold another."""
        if not self.ring.size:
            self.rows, self.columns = rows, columns
        own = self.rows, self.columns
        self.rows, self.columns = (
            _wider(a, b, length) for a, b, length in zip(own, (rows, columns), self.shape, strict=False)
        )
        size = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        if size == self.ring.shape[1:3]:
            return
        before, self.ring = self.ring, _background((len(self.ring), *size, self.shape[-1]))
        if before.size:
            top, left = own[0].start - self.rows.start, own[1].start - self.columns.start
            self.ring[:, top : top + before.shape[1], left : left + before.shape[2]] = before


def _wider(own: slice, other: slice, length: int) -> slice:
    """Return what holds both, of `length` pixels; where it has to grow, by `STEP` at least."""
    start = own.start if own.start <= other.start else max(0, min(own.start - STEP, other.start))
    stop = own.stop if own.stop >= other.stop else min(length, max(own.stop + STEP, other.stop))
    return slice(start, stop)


def _background(shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape, np.float32)
    whole[..., 0] = 1
    return whole
