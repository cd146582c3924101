"""Training batches loaded ahead by grain: threads, and a position that checkpoints keep."""

from __future__ import annotations

from typing import Any

import grain.python as grain

from heartseg_jax.data.examples import SliceStore, batch_at
from heartseg_jax.preprocess.host import Batch


class _LoadStep:
    """Turns a global step into its batch; a class so that grain can name it."""

    def __init__(self, store: SliceStore, seed: int, batch_size: int):
        self._store, self._seed, self._batch_size = store, seed, batch_size

    def __call__(self, step: int) -> Batch:
        return batch_at(self._store, self._seed, int(step), self._batch_size)


def train_batches(store: SliceStore, seed: int, batch_size: int, steps: int, threads: int) -> Any:
    """Return a grain iterator over the batches of global steps 0 .. steps-1.

    It has `get_state()` and `set_state(state)` (JSON-able), for checkpoints. `threads` load ahead.
    """
    dataset = grain.MapDataset.range(steps).map(_LoadStep(store, seed, batch_size))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
