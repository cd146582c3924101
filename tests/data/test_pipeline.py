"""The order of examples, the network's view, and grain's iterator over both."""

import numpy as np
import pytest

from heartseg_jax.config import load
from heartseg_jax.data import pipeline
from tests.tiny import SIZE, SLICES, tile_labels, write_tiny


def view(**changes):
    fields = {
        "intensity": "HU",
        "size": SIZE,
        "mm_per_pixel": 0.0,
        "channels": "repeat",
        "normalise": "window",
        "window_hu": (-100.0, 500.0),
        "percentiles": (1.0, 99.0),
    }
    return pipeline.View(**(fields | changes))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


def test_each_epoch_shows_every_example_once_in_an_order_of_its_own():
    epochs = []
    for epoch in (0, 1):
        shown = []
        for step in range(pipeline.steps_per_epoch(10, 4)):
            numbers, mask = pipeline.indices(3, epoch, step, 10, 4)
            shown += [int(n) for n, m in zip(numbers, mask, strict=True) if m]
        assert sorted(shown) == list(range(10))
        epochs.append(shown)
    assert epochs[0] != epochs[1]
    assert np.array_equal(pipeline.indices(3, 1, 2, 10, 4)[0], pipeline.indices(3, 1, 2, 10, 4)[0])


def test_the_last_batch_is_filled_with_masked_examples():
    numbers, mask = pipeline.indices(0, 0, 2, 10, 4)
    assert mask.tolist() == [1, 1, 0, 0]
    assert numbers[2:].tolist() == pipeline.indices(0, 0, 0, 10, 4)[0][:2].tolist()


def test_a_batch_has_the_contracts_shapes(dataset):
    examples = pipeline.Examples(dataset, "train", view(), cache_gb=0)
    batch = examples.gather(np.array([0, 7]), np.ones(2, np.float32))
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((2, SIZE, SIZE, 1), "int16"),
        "window": ((2, 2), "float32"),
        "label": ((2, SIZE, SIZE), "uint8"),
        "merge": ((2, 9), "int32"),
        "mask": ((2,), "float32"),
    }
    assert np.array_equal(batch["label"], [tile_labels(0)[0], tile_labels(1)[1]])
    assert batch["window"].tolist() == [[-100, 500], [-100, 500]]


def test_adjacent_slices_are_the_neighbours_of_a_volume_and_end_in_the_slice_itself(dataset):
    examples = pipeline.Examples(dataset, "train", view(channels="adjacent"))
    images = dataset.images(dataset.patients[0])
    first, middle, last = (examples.load(z)["image"] for z in (0, 2, SLICES - 1))
    assert np.array_equal(np.moveaxis(middle, -1, 0), images[1:4])
    assert np.array_equal(np.moveaxis(first, -1, 0), images[[0, 0, 1]])
    assert np.array_equal(np.moveaxis(last, -1, 0), images[[SLICES - 2, SLICES - 1, SLICES - 1]])


def test_the_cache_changes_nothing(dataset):
    numbers, mask = np.array([5, 1, 1, 3]), np.ones(4, np.float32)
    plain = pipeline.Examples(dataset, "train", view(channels="adjacent"), cache_gb=0).gather(numbers, mask)
    cached = pipeline.Examples(dataset, "train", view(channels="adjacent"), cache_gb=1)
    for _ in range(2):
        again = cached.gather(numbers, mask)
        assert all(np.array_equal(plain[name], again[name]) for name in plain)


def test_percentiles_are_taken_over_what_is_brighter_than_air():
    image = np.full((1, 10, 10), -1000, np.int16)
    image[0, 0] = np.arange(10) * 10
    [[low, high]] = pipeline.intensity_window(view(normalise="percentile", percentiles=(0.0, 50.0)), image)
    assert (low, high) == (0.0, 45.0)
    constant = np.full((1, 4, 4), 7, np.int16)
    [[low, high]] = pipeline.intensity_window(view(normalise="percentile"), constant)
    assert high > low


def test_eight_bit_images_are_always_normalised_by_percentiles():
    _, config = load.load("configs/quickstart.py")
    assert pipeline.view_of(config.data, "uint8").normalise == "percentile"
    assert pipeline.view_of(config.data, "HU").normalise == "window"


def test_the_view_comes_back_from_its_plain_form():
    assert pipeline.from_contract(pipeline.as_contract(view())) == view()


def test_grain_goes_on_where_its_state_says(dataset):
    examples = pipeline.Examples(dataset, "train", view())
    whole = [b["label"] for b in pipeline.train_batches(examples, seed=1, batch_size=4, steps=9, threads=2)]
    assert len(whole) == 9
    first = pipeline.train_batches(examples, seed=1, batch_size=4, steps=9, threads=2)
    for _ in range(4):
        next(first)
    state = first.get_state()
    second = pipeline.train_batches(examples, seed=1, batch_size=4, steps=9, threads=1)
    second.set_state(state)
    assert all(np.array_equal(a, b["label"]) for a, b in zip(whole[4:], second, strict=True))


def test_evaluation_batches_all_have_one_shape(dataset):
    examples = pipeline.Examples(dataset, "train", view())
    found = list(pipeline.in_order(examples, [0, 3, 4, 9, 10], 4))
    assert [real.tolist() for real, _ in found] == [[0, 3, 4, 9], [10]]
    assert [batch["mask"].tolist() for _, batch in found] == [[1, 1, 1, 1], [1, 0, 0, 0]]
