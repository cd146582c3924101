"""The order of examples over several datasets, and how each is read."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.data import examples
from heartseg_jax.data.dataset import join
from heartseg_jax.data.examples import Mixture, SliceStore
from heartseg_jax.errors import UserError
from heartseg_jax.preprocess.contract import InputSpec
from tests.data.dataset.test_join import write

REPEAT = ((0, None),) * 3


def shown(mixture, epochs, batch_size=4, seed=3):
    """The examples of whole epochs, in order."""
    total, found = sum(mixture.sizes), []
    for epoch in range(epochs):
        for step in range(examples.steps_per_epoch(total, batch_size)):
            numbers, mask = examples.indices(seed, epoch, step, total, batch_size, mixture)
            found += numbers[mask > 0].tolist()
    return found


def test_each_part_has_its_places_in_every_epoch():
    mixture = Mixture(sizes=(6, 2), places=(3, 5))
    for epoch in range(4):
        numbers = np.array(shown(mixture, epoch + 1)[8 * epoch :])
        assert len(numbers) == 8
        assert (numbers < 6).sum() == 3


def test_a_part_shows_all_its_examples_before_it_shows_one_again():
    order = np.array(shown(Mixture(sizes=(6, 2), places=(3, 5)), 4))
    first, second = order[order < 6], order[order >= 6]
    # Four epochs: 12 places are the six examples twice, 20 places the two examples ten times.
    assert [sorted(first[:6]), sorted(first[6:])] == [[0, 1, 2, 3, 4, 5]] * 2
    assert [sorted(pair) for pair in second.reshape(10, 2).tolist()] == [[6, 7]] * 10


def test_the_order_follows_from_seed_and_epoch():
    mixture = Mixture(sizes=(6, 2), places=(3, 5))
    whole = shown(mixture, 3)
    examples._mixed_order.cache_clear()
    late = [examples.indices(3, 2, step, 8, 4, mixture)[0].tolist() for step in (1, 0)]
    assert late[1] + late[0] == whole[16:]
    assert shown(mixture, 3, seed=4) != whole


@pytest.fixture
def two(tmp_path):
    one = write(tmp_path / "one", {"p": ("train", 4), "q": ("test", 1)}, "HU", 8, first=-100)
    other = write(tmp_path / "other", {"p": ("train", 3), "r": ("validation", 1)}, "uint8", 16)
    return join.read_datasets(f"{one},{other}")


@pytest.mark.parametrize(
    ("shares", "places"),
    [
        ((4, 3), (4, 3)),
        ((1, 1), (4, 3)),  # 3.5 each: the place that is left goes to the first
        ((0.3, 0.7), (2, 5)),  # 2.1 and 4.9
        ((9, 1), (6, 1)),  # 6.3 and 0.7
    ],
)
def test_places_by_largest_remainder(two, shares, places):
    found = examples.mixture_of(dataclasses.replace(two, shares=shares))
    assert found == Mixture((4, 3), places)


def test_impossible_shares_are_refused(two):
    for shares, word in (((1000, 1), "less than one"), ((1, 0), "leave it out")):
        with pytest.raises(UserError, match=word):
            examples.mixture_of(dataclasses.replace(two, shares=shares))
    nobody = dataclasses.replace(two, shares=(1, 1), patients=two.patients[:2])
    with pytest.raises(UserError, match="must be 0"):
        examples.mixture_of(nobody)
    assert examples.mixture_of(dataclasses.replace(nobody, shares=(1, 0))).places == (4, 0)


def test_without_shares_the_order_is_that_of_one_dataset(two):
    store = SliceStore(two, "train", InputSpec("any", 8, 0.0, REPEAT, (0.0, 100.0)))
    assert store.mixture is None
    numbers, _ = examples.examples_at(store, 5, 1, 4)
    assert numbers.tolist() == examples.indices(5, 0, 1, 7, 4)[0].tolist()


def test_slices_of_two_units_in_one_batch(two):
    """HU keep their values; 16 x 16 grey values are averaged to 8 x 8; each has the window of its own values."""
    store = SliceStore(two, "train", InputSpec("any", 8, 0.0, REPEAT, (0.0, 100.0)))
    batch = store.gather(np.array([0, 5]), np.ones(2, np.float32))
    assert batch.image.dtype == np.int16
    assert batch.image[:, 4, 4, 0].tolist() == [-100, 1]
    assert batch.window[:, 0].tolist() == [[-100, -99], [1, 2]]
    assert batch.tissue is None


def test_tissue_maps_are_never_interpolated(tmp_path):
    """Two tissues side by side, 4 x 4 at twice the size: a mean of 13 and 15 would be 14, another tissue."""
    path = write(tmp_path / "maps", {"p": ("train", 1)}, "tissue", 4)
    dataset = join.read_datasets(f"{write(tmp_path / 'pictures', {'x': ('train', 1)}, 'uint8', 4)},{path}")
    codes = np.full((1, 4, 4), 13, np.uint8)
    codes[..., 2:] = 15
    np.save(path / "p.images.npy", codes)
    store = SliceStore(dataset, "train", InputSpec("any", 8, 0.0, REPEAT, (0.0, 100.0)))
    batch = store.gather(np.array([0, 1]), np.ones(2, np.float32))
    assert batch.tissue.tolist() == [False, True]
    assert batch.image.dtype == np.uint8
    assert batch.image[1, 3, :, 0].tolist() == [13] * 4 + [15] * 4
    assert batch.label[1, 3].tolist() == [3] * 4 + [5] * 4  # left and right ventricle
    assert batch.window[1].tolist() == [[0, 1]] * 3
