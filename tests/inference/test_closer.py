"""The second look: its window, what the network sees in it, and where its labels come to lie."""

import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.inference import closer
from heartseg_jax.inference.predictor import Output, Predictor
from heartseg_jax.inference.slices import predict_labels, predict_slices
from heartseg_jax.preprocess.contract import InputSpec

SPEC = InputSpec("uint8", 16, 0.0, ((0, (0.0, 255.0)),), (1.0, 99.0), closer=(0.5,))


def test_the_window_is_a_square_whose_share_the_box_fills():
    found = np.zeros((64, 64), np.uint8)
    found[20:28, 30:36] = 3
    # The box is 8 x 6 pixels: at a share of one half, a square of 16 around its middle (24, 33).
    box = closer.marked_box(found)
    assert box == closer.Box(20, 28, 30, 36)
    assert closer.window_of(box, 0.5, found.shape) == closer.Window(16, 25, 16)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_nothing_found_or_nothing_gained_is_no_window(share):
    assert closer.marked_box(np.zeros((32, 32), np.uint8)) is None
    assert closer.window_of(closer.Box(0, 32, 0, 32), share, (32, 32)) is None


def test_a_stray_pixel_does_not_widen_the_window():
    found = np.zeros((256, 256), np.uint8)
    found[100:130, 100:130] = 1
    alone = closer.marked_box(found)
    found[2, 2] = 1
    assert closer.marked_box(found) == alone


def test_a_window_is_never_smaller_than_its_surroundings_need():
    assert closer.window_of(closer.Box(50, 51, 50, 51), 0.5, (100, 100)).side == 15


def threshold():
    """A predictor that calls bright pixels label 1, and counts the batches that it is given."""
    given = []

    def predict(batch):
        given.append(batch)
        bright = jnp.asarray(batch.image[..., 0] > 127, jnp.float32)
        return Output(jnp.stack([1 - bright, bright], axis=-1))

    return Predictor(predict, 2), given


def test_the_second_look_finds_the_border_that_the_first_could_not_resolve():
    # A square of 13 pixels: the first look has 4 source pixels in one of its own, the second 2 or less.
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 19:32, 22:35] = 255
    predictor, given = threshold()
    [labels] = predict_labels(predictor, SPEC, image, [0], None, False, (0, 1))
    assert [batch.image.shape for batch in given] == [(2, 16, 16, 1)] * 2
    assert given[1].mask.tolist() == [1, 0]
    wrong = np.sum(labels[0] != (image[0] > 0))
    first, _ = threshold()
    [coarse] = predict_labels(first, InputSpec(*SPEC_WITHOUT), image, [0], None, False, (0, 1))
    assert wrong < np.sum(coarse[0] != (image[0] > 0))


def test_the_looks_count_alike_and_one_that_gains_nothing_is_the_first():
    # Boxes of 48 of 64 pixels: at a share of 0.9 the window has 54 pixels, at 0.5 it would be larger than the slice.
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 7:55, 9:57] = 255
    each = [
        next(predict_slices(threshold()[0], InputSpec(*SPEC_WITHOUT, closer=closer_looks), image, [0], None, False))
        for closer_looks in ((), (0.9,), (0.5, 0.9))
    ]
    assert np.abs(each[1] - each[0]).max() > 0.1
    np.testing.assert_allclose(each[2], (each[0] + each[1]) / 2, atol=1e-6)


SPEC_WITHOUT = ("uint8", 16, 0.0, ((0, (0.0, 255.0)),), (1.0, 99.0))


def test_slices_of_which_nothing_is_found_get_no_second_look():
    images = np.zeros((3, 64, 64), np.uint8)
    images[1, 10:20, 10:20] = 255
    predictor, given = threshold()
    found = np.concatenate(list(predict_slices(predictor, SPEC, images, [0, 1, 2], None, False)))
    assert found.shape == (3, 64, 64, 2)
    np.testing.assert_array_equal(found.argmax(-1)[[0, 2]], 0)
    assert found.argmax(-1)[1, 12:18, 12:18].all()
    assert len(given) == 3  # two batches of the first look, one of the second


def test_a_window_that_reaches_beyond_the_slice_sees_air_there():
    spec = InputSpec("HU", 8, 0.0, ((0, (-200.0, 600.0)),), (1.0, 99.0))
    planes = np.full((1, 20, 20), 50, np.int16)
    batch = closer.batch_of(spec, [planes], [closer.Window(-4, -4, 8)], 2)
    assert batch.image.shape == (2, 8, 8, 1)
    assert (batch.image[0, :4] == spec.fill).all()
    assert (batch.image[0, 4:, 4:, 0] == 50).all()
    back, (rows, columns) = closer.put_back(spec, np.ones((8, 8, 2), np.float32), closer.Window(-4, -4, 8), 20, 20)
    assert back.shape == (4, 4, 2)
    assert (rows, columns) == (slice(0, 4), slice(0, 4))


def test_tissue_codes_are_marked_as_such_in_the_second_look_too():
    spec = InputSpec("tissue", 8, 0.0, ((0, None),), (1.0, 99.0))
    planes = np.full((1, 20, 20), 13, np.uint8)
    batch = closer.batch_of(spec, [planes], [closer.Window(2, 2, 16)], 2)
    assert batch.tissue.tolist() == [True, True]
    assert (batch.image == 13).all()
