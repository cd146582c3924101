"""One model or the mean of several."""

import jax
import numpy as np
import pytest

from heartseg_jax.errors import GuardStop
from heartseg_jax.inference.agreement import mean_pairwise_dice, shared_pixels
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.inference.slices import merged, predict_labels, predict_slices
from heartseg_jax.inference.views import VIEWS
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training.steps import init_params
from tests.preprocess.specs import spec

MODEL = UNet(width=4, levels=2, num_classes=9, norm="batch")


@pytest.fixture(scope="module")
def members():
    return [init_params(MODEL, jax.random.key(seed), 16) for seed in (0, 1)]


def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(-200, 600, (2, 16, 16, 1)).astype(np.int16)
    return Batch(image, np.tile(np.array([-200, 600], np.float32), (2, 3, 1)), None, None, np.ones(2, np.float32))


def test_several_models_give_the_mean_of_their_probabilities(members):
    first, second = (np.asarray(make_predictor(MODEL, [one], 2).predict(batch()).probabilities) for one in members)
    assert first.shape == (2, 16, 16, 9)
    np.testing.assert_allclose(first.sum(axis=-1), 1, rtol=1e-5)
    assert np.abs(first - second).max() > 0.01
    together = make_predictor(MODEL, members, 2).predict(batch()).probabilities
    np.testing.assert_allclose(together, (first + second) / 2, atol=1e-6)
    twice = make_predictor(MODEL, [members[0], members[0]], 2).predict(batch()).probabilities
    np.testing.assert_allclose(twice, first, atol=1e-6)


def test_every_batch_has_one_shape(members):
    shapes = []
    predictor = make_predictor(MODEL, members[:1], 4)
    watched = predictor._replace(predict=lambda b: shapes.append(b.image.shape) or predictor.predict(b))
    images = np.zeros((9, 16, 16), np.int16)
    found = list(predict_slices(watched, spec(size=16), images, range(9), None, contiguous=True))
    assert shapes == [(4, 16, 16, 1)] * 3
    assert [len(part) for part in found] == [4, 4, 1]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("closer", "spacing"), [((), None), ((0.6,), None), ((), (3.0, 1.0, 1.0))])
def test_probabilities_that_are_no_numbers_stop_it(members, count, closer, spacing):
    """Of NaN the largest is the first: every pixel would be background, and nothing said."""
    params, stats = members[-1]
    huge = jax.tree.map(lambda leaf: leaf * np.float32(1e30), params), stats
    predictor = make_predictor(MODEL, [*members[: count - 1], huge], 2)
    images, own = batch().image[..., 0], spec(size=16, closer=closer, across_mm=2.0)
    given = predictor, own, images, range(2), spacing, True
    with pytest.raises(GuardStop, match="non_finite"):
        list(predict_slices(*given))
    with pytest.raises(GuardStop, match="non_finite"):
        list(predict_labels(*given, tuple(range(9)), by_model=[]))


def test_merged_channels_are_summed_before_the_comparison():
    probabilities = np.zeros((1, 9), np.float32)
    probabilities[0, [0, 4, 8]] = 0.4, 0.3, 0.3
    assert merged(probabilities, tuple(range(9))).argmax() == 0
    assert merged(probabilities, (0, 1, 2, 3, 4, 5, 6, 7, 4)).argmax() == 4


def test_what_members_share_is_counted_on_real_examples_only(members):
    # Two members, two examples of 2 x 2 pixels, of which the second fills the batch.
    labels = np.array([[[[0, 1], [1, 1]], [[2, 2], [2, 2]]], [[[0, 1], [1, 0]], [[2, 2], [2, 2]]]])
    shared = np.asarray(shared_pixels(labels, np.array([1.0, 0.0], np.float32), 3))
    assert shared[0, 0].tolist() == [1, 3, 0]
    assert shared[1, 1].tolist() == [2, 2, 0]
    assert shared[0, 1].tolist() == shared[1, 0].tolist() == [1, 2, 0]
    found = mean_pairwise_dice(shared)
    np.testing.assert_allclose(found[:2], [2 * 1 / 3, 2 * 2 / 5])
    assert np.isnan(found[2])
    output = make_predictor(MODEL, [members[0], members[0]], 2).predict(batch())
    np.testing.assert_allclose(np.nan_to_num(mean_pairwise_dice(np.asarray(output.shared)), nan=1.0), 1.0)


def test_a_structure_that_one_of_three_members_misses_has_zeros_among_its_pairs():
    shared = np.zeros((3, 3, 2), int)
    shared[0, 0], shared[1, 1], shared[2, 2] = (10, 4), (10, 4), (10, 0)
    shared[0, 1] = shared[1, 0] = 5, 2
    shared[0, 2] = shared[2, 0] = shared[1, 2] = shared[2, 1] = 10, 0
    np.testing.assert_allclose(mean_pairwise_dice(shared), [(0.5 + 1 + 1) / 3, (0.5 + 0 + 0) / 3])


def test_views_of_one_model_are_its_members_and_of_several_their_mean(members):
    one = make_predictor(MODEL, members[:1], 2, views=True).predict(batch())
    assert one.shared.shape == (len(VIEWS), len(VIEWS), 9)
    np.testing.assert_allclose(np.asarray(one.probabilities).sum(axis=-1), 1, rtol=1e-4)
    other = make_predictor(MODEL, members[1:], 2, views=True).predict(batch())
    both = make_predictor(MODEL, members, 2, views=True).predict(batch())
    assert both.shared.shape == (2, 2, 9)
    mean = (np.asarray(one.probabilities) + np.asarray(other.probabilities)) / 2
    np.testing.assert_allclose(both.probabilities, mean, atol=1e-5)
