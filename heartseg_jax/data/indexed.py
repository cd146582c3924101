"""Batches as places among slices that are kept whole, such as on a device: what a jitted step gathers them by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.data.examples import Slices, SliceStore, gather, order_of, steps_per_epoch
from heartseg_jax.preprocess.host import Batch


class Indexed(NamedTuple):
    """The batches of L consecutive steps of B examples, not gathered yet: numpy or jax arrays, as `gather` takes them.

    Attributes:
      slices: all slices of a store.
      planes: `[N, P]` int32, as `SliceStore.planes`.
      numbers: `[L, B]` int32, the examples of each step.
      mask: `[L, B]` float32.
      first: int32, the step that the first row is of.
    """

    slices: Slices
    planes: Any
    numbers: Any
    mask: Any
    first: Any

    def at(self, step: Any) -> Batch:
        """Return the batch of a step, from `first` to `first + L - 1`."""
        place = step - self.first
        numbers = self.numbers[place]
        return gather(self.slices, numbers, self.planes[numbers], self.mask[place])


def examples_from(
    store: SliceStore, seed: int, first: int, count: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (example numbers `[count, B]`, mask `[count, B]`) of the steps from `first`: see `examples_at`."""
    size = len(store)
    epochs, steps = np.divmod(np.arange(first, first + count), steps_per_epoch(size, batch_size))
    places = steps[:, None] * batch_size + np.arange(batch_size)
    numbers = np.empty(places.shape, np.int64)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        numbers[own] = order_of(seed, int(epoch), size, store.mixture)[places[own] % size]
    return numbers, (places < size).astype(np.float32)
