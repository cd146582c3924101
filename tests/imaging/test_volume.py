"""Resampling, against Pillow, scipy and cases worked by hand."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from heartseg_jax.imaging.volume import (
    Volume,
    resample_back,
    resample_labels,
    resample_slices,
    resampling_matrix,
    scale_for,
)


def test_volume_knows_its_voxel_and_refuses_nonsense():
    volume = Volume(np.zeros((2, 3, 4)), (2.0, 0.5, 0.5))
    assert volume.voxel_ml == pytest.approx(0.0005)
    np.testing.assert_array_equal(volume.direction[:, 0], [0, 0, 1])
    with pytest.raises(ValueError, match="three axes"):
        Volume(np.zeros((2, 3)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="positive"):
        Volume(np.zeros((2, 3, 4)), (1.0, 0.0, 1.0))


def test_matrix_by_hand():
    # Half the pixels: output k lies at 2k + 0.5; triangle of half-width 2 -> weights 1, 3, 3, 1 over 8,
    # and at the ends 3, 3, 1 over 7.
    expected = np.array([[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]], np.float32)
    np.testing.assert_allclose(resampling_matrix(4, 2, 2.0), expected, rtol=1e-6)
    # Twice the pixels: linear between centres, edge held.
    expected = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], np.float32)
    np.testing.assert_allclose(resampling_matrix(2, 4, 0.5), expected, rtol=1e-6)
    # More room than source: one empty row on each side.
    np.testing.assert_array_equal(resampling_matrix(2, 4, 1.0), [[0, 0], [1, 0], [0, 1], [0, 0]])
    # Less room than source: the middle.
    np.testing.assert_array_equal(resampling_matrix(4, 2, 1.0), [[0, 1, 0, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize(("n_in", "n_out"), [(512, 128), (100, 64), (64, 100), (7, 3)])
def test_slices_agree_with_pillow(n_in, n_out):
    image = np.random.default_rng(0).normal(size=(1, n_in, n_in)).astype(np.float32)
    ours = resample_slices(image, n_out, (n_in / n_out,) * 2, fill=0)
    theirs = Image.fromarray(image[0]).resize((n_out, n_out), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(ours[0], np.asarray(theirs), atol=2e-6)


def test_upsampling_agrees_with_scipy():
    image = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    ours = resample_slices(image, 27, (1 / 3, 1 / 3), fill=0)
    theirs = ndimage.zoom(image[0], 3, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(ours[0], theirs, atol=1e-5)


def test_outside_is_filled_and_integers_are_rounded():
    image = np.full((1, 2, 4), 40, np.int16)
    image[0, 0, 0] = 43
    result = resample_slices(image, 4, (1.0, 1.0), fill=-1000)
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result[0, [0, 3]], -1000)
    np.testing.assert_array_equal(result[0, 1:3], image[0])
    # 43 * 9/16 + 40 * 7/16 = 41.69 -> 42, not 41.
    assert resample_slices(np.array([[[43, 40], [40, 40]]], np.int16), 4, (0.5, 0.5), 0)[0, 1, 1] == 42


def test_same_grid_is_untouched():
    image = np.zeros((2, 8, 8), np.int16)
    probabilities = np.zeros((2, 8, 8, 9), np.float32)
    assert resample_slices(image, 8, (1.0, 1.0), -1000) is image
    assert resample_labels(image, 8, (1.0, 1.0)) is image
    assert resample_back(probabilities, 8, 8, (1.0, 1.0)) is probabilities


def test_labels_by_hand():
    labels = np.array([[[1, 2, 3, 4]]], np.uint8)
    # One row, sampled two pixels apart: both samples lie outside it (at -1 and 1).
    np.testing.assert_array_equal(resample_labels(labels, 2, (2.0, 2.0)), np.zeros((1, 2, 2)))
    # Step 2 on four columns: shares 3, 3, 1 and 1, 3, 3 (over 7) of 1, 2, 3 and 2, 3, 4: the lower of two equal ones.
    np.testing.assert_array_equal(resample_labels(labels.repeat(4, 1), 2, (2.0, 2.0)), [[[1, 3], [1, 3]]])
    # A structure as large as the background beside it is kept.
    np.testing.assert_array_equal(resample_labels(np.array([[[0, 5]] * 2], np.uint8), 1, (2.0, 2.0)), [[[5]]])
    # One row among four, none sampled at its centre: the two samples on its edges both take it.
    both = [[0] * 4, [1, 2, 3, 4], [1, 2, 3, 4], [0] * 4]
    np.testing.assert_array_equal(resample_labels(labels, 4, (1.0, 1.0)), [both])


def test_labels_agree_with_scipy_and_only_known_values_appear():
    labels = np.random.default_rng(1).choice(np.array([0, 3, 8, 255], np.uint8), (1, 30, 30))
    ours = resample_labels(labels, 90, (1 / 3, 1 / 3))
    np.testing.assert_array_equal(ours[0], ndimage.zoom(labels[0], 3, order=0, mode="nearest", grid_mode=True))
    np.testing.assert_array_equal(resample_labels(ours, 30, (3.0, 3.0)), labels)


@pytest.mark.parametrize(("height", "width", "size"), [(96, 80, 64), (60, 60, 128), (64, 48, 64)])
def test_there_and_back(height, width, size):
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((1, height, width), np.uint8)
    labels[0][(y - height * 0.4) ** 2 + (x - width * 0.55) ** 2 < (width / 5) ** 2] = 3
    labels[0][(y - height * 0.8) ** 2 + (x - width * 0.4) ** 2 < (width / 8) ** 2] = 5
    scale = scale_for(height, width, None, size, 0.0)
    there = resample_labels(labels, size, scale)
    back = resample_back(np.eye(9, dtype=np.float32)[there], height, width, scale)
    assert back.shape == (1, height, width, 9)
    np.testing.assert_allclose(back.sum(-1), 1, atol=1e-5)
    for label in (3, 5):
        truth, found = labels == label, back.argmax(-1) == label
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.94


def test_there_and_back_keep_the_place():
    # A bright spot's centre of mass must come back where it was, whatever the grids: no half-pixel drift.
    y, x = np.mgrid[:50, :70]
    spot = np.exp(-((y - 20.3) ** 2 + (x - 41.7) ** 2) / 40).astype(np.float32)[None]
    scale = scale_for(50, 70, None, 32, 0.0)
    network = resample_slices(spot, 32, scale, fill=0)
    back = resample_back(network[..., None], 50, 70, scale)[0, ..., 0]
    assert (back * y).sum() / back.sum() == pytest.approx(20.3, abs=0.02)
    assert (back * x).sum() / back.sum() == pytest.approx(41.7, abs=0.02)


def test_labels_do_not_drift_from_their_image():
    y, x = np.mgrid[:64, :64]
    disc = ((y - 31.5) ** 2 + (x - 31.5) ** 2 < 15**2).astype(np.uint8)[None]
    for size in (32, 16):
        small = resample_labels(disc, size, scale_for(64, 64, None, size, 0.0))[0]
        assert np.array_equal(small, small[::-1])
        assert np.array_equal(small, small[:, ::-1])
        assert small.sum() * (64 / size) ** 2 == pytest.approx(disc.sum(), rel=0.06)


def test_outside_the_field_is_background():
    probabilities = np.zeros((1, 2, 2, 9), np.float32)
    probabilities[..., 4] = 1
    back = resample_back(probabilities, 6, 6, (1.0, 1.0)).argmax(-1)[0]
    assert (back == 4).sum() == 4
    assert (back[2:4, 2:4] == 4).all()


def test_scale_for_by_hand():
    assert scale_for(512, 512, None, 256, 0.0) == (2.0, 2.0)
    assert scale_for(400, 512, (2.0, 0.8, 0.7), 256, 0.0) == (2.0, 2.0)
    assert scale_for(400, 512, None, 256, 1.5) == (2.0, 2.0)
    assert scale_for(512, 512, (2.0, 0.75, 0.5), 256, 1.5) == (2.0, 3.0)
