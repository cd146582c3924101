"""Probabilities averaged across a volume's slices: by scipy's own filter, and what becomes of a slice that differs."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from heartseg_jax.errors import UserError
from heartseg_jax.inference.across import smoothed, weights_by_distance
from heartseg_jax.inference.predictor import Output, Predictor
from heartseg_jax.inference.slices import predict_labels, predict_slices
from heartseg_jax.preprocess.contract import Contract, InputSpec
from tests.preprocess.test_contract import CONTRACT

SPEC = InputSpec("uint8", 8, 0.0, ((0, (0.0, 255.0)),), (1.0, 99.0), across_mm=2.0)
STEP_MM = (1.0, 1.0, 1.0)


def by_brightness(models=1):
    """A predictor whose label 1 is as probable as a pixel is bright; of several models, the last sees half of it."""

    def predict(batch):
        bright = jnp.asarray(batch.image[..., 0], jnp.float32) / 255
        each = [jnp.stack([1 - share * bright, share * bright], axis=-1) for share in (1.0, 0.5)[:models]]
        shared = jnp.full((models, models, 2), jnp.asarray(batch.mask).sum(), jnp.int32)
        several = models > 1
        return Output(sum(each) / models, shared if several else None, tuple(each) if several else ())

    return Predictor(predict, 4)


def volume(values):
    return np.repeat(np.uint8(values), 64).reshape(-1, 8, 8)


def test_weights_are_a_gaussians_up_to_two_and_a_half_deviations():
    np.testing.assert_allclose(weights_by_distance(2.0, 1.5), np.exp([0, -9 / 32, -36 / 32, -81 / 32]))
    assert weights_by_distance(2.0, 6.0).tolist() == [1.0]
    assert weights_by_distance(0.0, 1.0).tolist() == [1.0]


def test_of_thin_slices_at_most_twelve_count_on_either_side():
    np.testing.assert_allclose(weights_by_distance(2.0, 0.01), np.exp(-0.5 * (np.arange(13) * 0.005) ** 2))


@pytest.mark.parametrize("numbers", [range(9), [0, 1, 2, 6, 7, 11], [*range(7), 8], [*range(5), *range(20, 26)], [29]])
def test_each_slice_is_the_weighted_mean_of_those_around_it(numbers):
    """As scipy's filter of values and of ones: a slice that is not there counts for nothing."""
    numbers = list(numbers)
    made = np.random.default_rng(0).dirichlet([0.4, 0.3, 0.3], (30, 50, 7)).astype(np.float32)
    for number in range(30):  # boxes that differ, and grow
        made[number, :23] = made[number, 25 + number % 7 * 4 :] = [1, 0, 0]
    weights = weights_by_distance(2.0, 1.5)
    given = np.zeros(30)
    given[numbers] = 1
    kernel = [*weights[:0:-1], *weights]
    sums = ndimage.correlate1d(made * given[:, None, None, None], kernel, axis=0, mode="constant")[numbers]
    expected = sums / ndimage.correlate1d(given, kernel, mode="constant")[numbers, None, None, None]
    found = [one[0] for one in smoothed(([made[i]] for i in numbers), numbers, weights)]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # what is nowhere probable is taken as background


def test_slices_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="ascending"):
        list(smoothed([[np.zeros((2, 2, 2), np.float32)]] * 2, [1, 1], np.ones(2)))


def test_a_slice_is_done_as_soon_as_the_last_that_counts_has_come():
    taken = []

    def slices():
        for number in range(6):
            taken.append(number)
            yield [np.full((2, 2, 2), 0.5, np.float32)]

    found = smoothed(slices(), range(6), np.array([1.0, 0.5, 0.25]))
    after = [len(taken) for _ in found]
    assert after == [3, 4, 5, 6, 6, 6]


def test_pixels_that_the_network_did_not_see_are_background():
    image = np.zeros((4, 4, 3), np.float32)
    image[2, 1:3] = [0.2, 0.8, 0]
    found = [one[0] for one in smoothed([[np.zeros_like(image)], [image]], [0, 1], np.array([1.0, 0.5]))]
    seen = np.zeros((4, 4), bool)
    seen[2, 1:3] = True
    assert all((one.argmax(-1)[~seen] == 0).all() and (one[seen, 1] > 0.2).all() for one in found)


@pytest.mark.parametrize("models", [1, 2])
def test_a_slice_that_differs_from_its_neighbours_is_outvoted(models):
    images = volume([255] * 4 + [40] + [255] * 4)
    shared, sums, each = [], [], []
    given = SPEC, images, range(9), STEP_MM, True
    found = np.concatenate(list(predict_labels(by_brightness(models), *given, (0, 1), shared, sums, each)))
    assert (found == 1).all()
    assert [np.asarray(one).max() for one in shared] == ([] if models == 1 else [4, 4, 1])  # batch by batch
    probabilities = np.concatenate(list(predict_slices(by_brightness(models), *given)))
    np.testing.assert_array_equal(probabilities.argmax(-1), found)
    weights = weights_by_distance(2.0, 1.0)
    expected = 1 - (1 - 40 / 255) * weights[0] / (2 * weights[:5].sum() - weights[0])
    np.testing.assert_allclose(probabilities[4, ..., 1], expected * (1 if models == 1 else 0.75), atol=1e-5)
    np.testing.assert_allclose(np.sum(sums, axis=0)[1, 1], probabilities[..., 1].sum(), rtol=1e-4)
    if models == 2:
        assert np.concatenate(each, axis=1).shape == (2, 9, 8, 8)
        assert (np.concatenate(each, axis=1)[0] == 1).all()


@pytest.mark.parametrize(
    ("spacing", "contiguous", "across_mm"),
    [((6.0, 1.0, 1.0), True, 2.0), (None, True, 2.0), (STEP_MM, False, 2.0), (STEP_MM, True, 0.0)],
)
def test_slices_stand_alone_where_none_is_near_or_nothing_is_known(spacing, contiguous, across_mm):
    spec = InputSpec(*(SPEC.intensity, SPEC.size, SPEC.mm_per_pixel, SPEC.channels, SPEC.percentiles), (), across_mm)
    images = volume([255, 255, 40, 255, 255])
    found = list(predict_labels(by_brightness(), spec, images, range(5), spacing, contiguous, (0, 1)))
    assert [len(part) for part in found] == [4, 1]
    assert np.concatenate(found)[:, 0, 0].tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize("written", [-1.0, "2", None])
def test_a_width_that_is_none_is_refused(written):
    content = CONTRACT.to_json()
    with pytest.raises(UserError):
        Contract.from_json(content | {"input": content["input"] | {"across_mm": written}}, "here")
