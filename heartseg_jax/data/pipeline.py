"""Training batches loaded ahead by grain: threads, and a position that checkpoints keep."""

from __future__ import annotations

from typing import Any

import grain.python as grain

from heartseg_jax.data.examples import ALL_ROWS, Rows, SliceStore, batch_at
from heartseg_jax.preprocess.host import Batch


class _LoadStep:
    """Turns a global step into its batch; a class so that grain can name it."""

    def __init__(self, store: SliceStore, seed: int, batch_size: int, rows: Rows):
        self._store, self._seed, self._batch_size, self._rows = store, seed, batch_size, rows

    def __call__(self, step: int) -> Batch:
        return batch_at(self._store, self._seed, int(step), self._batch_size, self._rows)


def train_batches(
    store: SliceStore, seed: int, batch_size: int, steps: int, threads: int, rows: Rows = ALL_ROWS
) -> Any:
    """Return a grain iterator over the batches of global steps 0 .. steps-1.

    It has `get_state()` and `set_state(state)` (JSON-able), for checkpoints. `threads` load ahead. One of several
    processes gives its own `rows` of each batch, and loads no others. The state counts global steps: it is the same in
    every process, and for any number of them.
    """
    dataset = grain.MapDataset.range(steps).map(_LoadStep(store, seed, batch_size, rows))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
