"""One model or the mean of several."""

import jax
import numpy as np
import pytest

from heartseg_jax.inference.predictor import make_predictor, merged, predict_slices
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
    first, second = (np.asarray(make_predictor(MODEL, [one], 2).probabilities(batch())) for one in members)
    assert first.shape == (2, 16, 16, 9)
    np.testing.assert_allclose(first.sum(axis=-1), 1, rtol=1e-5)
    assert np.abs(first - second).max() > 0.01
    together = make_predictor(MODEL, members, 2).probabilities(batch())
    np.testing.assert_allclose(together, (first + second) / 2, atol=1e-6)
    twice = make_predictor(MODEL, [members[0], members[0]], 2).probabilities(batch())
    np.testing.assert_allclose(twice, first, atol=1e-6)


def test_every_batch_has_one_shape(members):
    shapes = []
    predictor = make_predictor(MODEL, members[:1], 4)
    watched = predictor._replace(probabilities=lambda b: shapes.append(b.image.shape) or predictor.probabilities(b))
    images = np.zeros((9, 16, 16), np.int16)
    found = list(predict_slices(watched, spec(size=16), images, range(9), None, contiguous=True))
    assert shapes == [(4, 16, 16, 1)] * 3
    assert [len(part) for part in found] == [4, 4, 1]


def test_merged_channels_are_summed_before_the_comparison():
    probabilities = np.zeros((1, 9), np.float32)
    probabilities[0, [0, 4, 8]] = 0.4, 0.3, 0.3
    assert merged(probabilities, tuple(range(9))).argmax() == 0
    assert merged(probabilities, (0, 1, 2, 3, 4, 5, 6, 7, 4)).argmax() == 4
