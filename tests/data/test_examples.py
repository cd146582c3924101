"""The order of examples, and the slices as the network sees them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.data import examples
from heartseg_jax.data.dataset.records import Patient
from heartseg_jax.data.examples import SliceStore
from tests.preprocess.specs import spec
from tests.tiny import SIZE, SLICES, tile_labels, write_tiny


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


def all_of(store):
    return store.gather(np.arange(len(store)), np.ones(len(store), np.float32))


def test_each_epoch_shows_every_example_once_in_an_order_of_its_own():
    epochs = []
    for epoch in (0, 1):
        shown = []
        for step in range(examples.steps_per_epoch(10, 4)):
            numbers, mask = examples.indices(3, epoch, step, 10, 4)
            shown += [int(n) for n, m in zip(numbers, mask, strict=True) if m]
        assert sorted(shown) == list(range(10))
        epochs.append(shown)
    assert epochs[0] != epochs[1]
    assert np.array_equal(examples.indices(3, 1, 2, 10, 4)[0], examples.indices(3, 1, 2, 10, 4)[0])


def test_the_last_batch_is_filled_with_masked_examples():
    numbers, mask = examples.indices(0, 0, 2, 10, 4)
    assert mask.tolist() == [1, 1, 0, 0]
    assert numbers[2:].tolist() == examples.indices(0, 0, 0, 10, 4)[0][:2].tolist()


def test_a_global_step_is_a_place_in_its_epoch(dataset):
    store = SliceStore(dataset, "train", spec())  # 18 slices: 5 batches of 4 per epoch
    for step, (epoch, place) in {0: (0, 0), 4: (0, 4), 5: (1, 0), 13: (2, 3)}.items():
        expected = store.gather(*examples.indices(7, epoch, place, 18, 4))
        found = examples.batch_at(store, 7, step, 4)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not np.array_equal(found.image, examples.batch_at(store, 8, 13, 4).image)


def test_a_batch_has_the_documented_shapes(dataset):
    batch = SliceStore(dataset, "train", spec()).gather(np.array([0, 7]), np.ones(2, np.float32))
    assert batch.tissue is None
    assert {name: (value.shape, value.dtype.name) for name, value in batch._asdict().items() if value is not None} == {
        "image": ((2, SIZE, SIZE, 1), "int16"),
        "window": ((2, 3, 2), "float32"),
        "label": ((2, SIZE, SIZE), "uint8"),
        "merge": ((2, 9), "int32"),
        "mask": ((2,), "float32"),
    }
    assert np.array_equal(batch.label, [tile_labels(0)[0], tile_labels(1)[1]])
    assert batch.window.tolist() == [[[-100, 500]] * 3] * 2


def test_planes_are_the_neighbours_of_a_volume_and_end_in_the_slice_itself(dataset):
    found = all_of(SliceStore(dataset, "train", spec("adjacent"))).image
    images = dataset.images(dataset.patients[0])
    for z, shown in {0: [0, 0, 1], 2: [1, 2, 3], SLICES - 1: [SLICES - 2, SLICES - 1, SLICES - 1]}.items():
        assert np.array_equal(np.moveaxis(found[z], -1, 0), images[shown])


def test_each_slice_is_stored_once_neighbours_of_other_splits_included(dataset):
    blocks = ("train", "train", "train", "validation", "test", "test")
    first = dataclasses.replace(dataset.patients[0], splits=blocks)
    store = SliceStore(dataclasses.replace(dataset, patients=(first,)), "train", spec("adjacent"), cache_gb=1)
    assert len(store) == 3
    assert store.planes.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3]]  # row 3 is the validation slice above
    assert store._cache.image.shape == (4, SIZE, SIZE)
    assert np.array_equal(all_of(store).image[2, ..., 2], dataset.images(0)[3])


@pytest.mark.parametrize("channels", ["repeat", "adjacent", "0:-100..500,0:0..100,2"])
def test_the_cache_changes_nothing(dataset, channels):
    numbers, mask = np.array([5, 1, 1, 3]), np.ones(4, np.float32)
    plain = SliceStore(dataset, "train", spec(channels), cache_gb=0)
    cached = SliceStore(dataset, "train", spec(channels), cache_gb=1)
    assert plain._cache is None
    for _ in range(2):
        for a, b in zip(plain.gather(numbers, mask), cached.gather(numbers, mask), strict=True):
            assert np.array_equal(a, b)


def test_gather_is_the_same_code_on_host_and_device():
    rng = np.random.default_rng(0)
    slices = examples.Slices(
        *(rng.integers(0, 200, shape).astype(np.uint8) for shape in ((6, 4, 4), (6, 2, 2), (6, 4, 4), (6, 9)))
    )
    rows, planes, mask = np.array([4, 0]), np.array([[3, 4], [0, 1]]), np.ones(2)
    host = examples.gather(slices, rows, planes, mask)
    device = examples.gather(jax.tree.map(jnp.asarray, slices), jnp.asarray(rows), jnp.asarray(planes), mask)
    assert host.image[0, 1, 2].tolist() == slices.image[[3, 4], 1, 2].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(host, device, strict=True))


def test_evaluation_batches_all_have_one_shape(dataset):
    found = list(examples.in_order(SliceStore(dataset, "validation", spec()), 4))
    assert [real.tolist() for real, _ in found] == [[0, 1, 2, 3], [4, 5]]
    assert [batch.mask.tolist() for _, batch in found] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert [len(batch.image) for _, batch in found] == [4, 4]


def test_misfits_count_unknown_spacing_and_scattered_slices():
    scattered = Patient("x", None, False, tuple(range(9)), (), (), (), {})
    whole = Patient("y", (3.0, 2.0, 2.0), True, tuple(range(9)), (), (), (), {})
    assert examples.misfits(spec(), [scattered, whole]) == ()
    assert examples.misfits(spec("adjacent", mm_per_pixel=2.0), [whole]) == ()
    spacing, neighbours = examples.misfits(spec("adjacent", mm_per_pixel=2.0), [scattered, whole])
    assert "the spacing of 1 of 2 patients is unknown" in spacing
    assert "1 of 2 patients have scattered slices" in neighbours
