"""Grain's iterator over the training batches."""

import numpy as np

from heartseg_jax.data.examples import SliceStore, batch_at
from heartseg_jax.data.pipeline import train_batches
from tests.preprocess.specs import spec
from tests.tiny import write_tiny


def test_grain_goes_on_where_its_state_says(tmp_path):
    store = SliceStore(write_tiny(tmp_path / "d"), "train", spec())
    whole = [batch_at(store, 1, step, 4).label for step in range(9)]
    first = train_batches(store, seed=1, batch_size=4, steps=9, threads=2)
    for expected in whole[:4]:
        assert np.array_equal(expected, next(first).label)
    state = first.get_state()
    second = train_batches(store, seed=1, batch_size=4, steps=9, threads=1)
    second.set_state(state)
    assert all(np.array_equal(a, b.label) for a, b in zip(whole[4:], second, strict=True))


def test_processes_load_their_rows_of_the_same_batches(tmp_path):
    store = SliceStore(write_tiny(tmp_path / "d"), "train", spec())
    whole = [batch_at(store, 1, step, 4) for step in range(9)]  # an epoch of 18 slices is 5 batches, the last filled up
    parts = [train_batches(store, 1, 4, 9, threads=1, rows=np.arange(first, first + 2)) for first in (0, 2)]
    for batch in whole:
        own = [next(part) for part in parts]
        for name in ("image", "label", "mask"):
            assert np.array_equal(np.concatenate([getattr(one, name) for one in own]), getattr(batch, name))
    assert parts[0].get_state() == parts[1].get_state()
