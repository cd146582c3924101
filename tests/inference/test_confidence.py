"""The mean probability of a structure's own voxels: by hand, on the device and on the host, and of a volume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.inference.confidence import mean_probability, sums_on_device, sums_on_host
from heartseg_jax.inference.predictor import Output, Predictor
from heartseg_jax.inference.slices import predict_labels, predict_slices
from heartseg_jax.preprocess.contract import InputSpec

# Four pixels of one slice, three classes. The labels are 1, 1, 2 and background.
FOUR = np.array([[[0.2, 0.7, 0.1], [0.3, 0.4, 0.3]], [[0.0, 0.1, 0.9], [0.6, 0.2, 0.2]]], np.float32)
LABELS = FOUR.argmax(axis=-1).astype(np.uint8)
BRIGHT = InputSpec("uint8", 8, 0.0, ((0, (0.0, 255.0)),), (1.0, 99.0))


def by_brightness(batch_size=2):
    """A predictor: label 1 above 127 with a probability of 0.75, 2 up to there with 0.5, background where it is 0."""

    def predict(batch):
        value = batch.image[..., 0]
        kinds = jnp.stack([value == 0, value > 127, (value > 0) & (value <= 127)], axis=-1).astype(jnp.float32)
        sure = jnp.array([[1, 0, 0], [0.25, 0.75, 0], [0.25, 0.25, 0.5]], jnp.float32)
        return Output(kinds @ sure)

    return Predictor(jax.jit(predict), batch_size)


@pytest.mark.parametrize("sums_of", [sums_on_host, sums_on_device])
def test_by_hand(sums_of):
    sums = np.asarray(sums_of(FOUR, LABELS))
    np.testing.assert_allclose(sums, [[0, 2, 1], [0, 1.1, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(mean_probability(sums), [np.nan, 0.55, 0.9], rtol=1e-6)


def test_what_is_not_found_has_none():
    sums = sums_on_host(FOUR[:1, 1:], np.array([[0]], np.uint8))
    assert np.isnan(mean_probability(sums)).all()


def test_slices_weigh_by_their_pixels_and_those_that_fill_a_batch_do_not_count():
    # One slice with 2 pixels of label 1, one with 6 of label 2 and 2 of label 1, one with nothing; batches of 2.
    images = np.zeros((3, 8, 8), np.uint8)
    images[0, 0, :2] = 200
    images[1, 3, :6], images[1, 5, 5:7] = 100, 255
    sums = []
    labels = np.concatenate(
        list(predict_labels(by_brightness(), BRIGHT, images, range(3), None, True, (0, 1, 2), sums=sums))
    )
    assert [(labels == k).sum() for k in (1, 2)] == [4, 6]
    np.testing.assert_allclose(np.sum(sums, axis=0), [[0, 4, 6], [0, 3.0, 3.0]], rtol=1e-6)


def test_merged_structures_have_the_sum_of_their_probabilities():
    images = np.zeros((1, 8, 8), np.uint8)
    images[0, 0, :3] = 100  # label 2 with 0.5, and 0.25 for label 1, into which it is merged: 0.75 together
    sums = []
    list(predict_labels(by_brightness(), BRIGHT, images, [0], None, True, (0, 1, 1), sums=sums))
    np.testing.assert_allclose(np.sum(sums, axis=0), [[0, 3, 0], [0, 2.25, 0]], rtol=1e-6)


@pytest.mark.parametrize("looks", [(), (0.5,), (0.4, 0.7)])
def test_on_the_slices_own_grid_it_is_that_of_the_probabilities_there(looks):
    """32 pixels a side where the network sees 8: probabilities are interpolated, with closer looks averaged too."""
    images = np.zeros((3, 32, 32), np.uint8)
    images[0, 8:20, 10:18], images[0, 20:26, 8:12], images[2, 4:28, 4:28] = 255, 90, 200
    spec = dataclasses.replace(BRIGHT, closer=looks)
    whole = np.concatenate(list(predict_slices(by_brightness(), spec, images, range(3), None, True)))
    sums = []
    labels = np.concatenate(
        list(predict_labels(by_brightness(), spec, images, range(3), None, True, (0, 1, 2), sums=sums))
    )
    found = mean_probability(np.sum(sums, axis=0))
    expected = [float(whole[labels == k][:, k].mean(dtype=np.float64)) for k in (1, 2)]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-5)
    assert 0.3 < found[2] < found[1] <= 0.75
