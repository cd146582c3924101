"""Images from tissue maps: their range, their determinism, and tissues that look as they do in CT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.imaging import tissues
from heartseg_jax.preprocess.synthesis import synthesise

LV, LUNG, FAT, BONE = tissues.FIRST_POOL + 3, tissues.LUNG, tissues.FAT, tissues.BONE


@pytest.fixture(scope="module")
def maps():
    """A body of fat in air, with a lung, a bone and a left ventricle."""
    found = np.zeros((24, 48, 48), np.uint8)
    found[:, 4:44, 4:44] = FAT
    found[:, 10:30, 8:20] = LUNG
    found[:, 10:30, 26:40] = LV
    found[:, 34:40, 20:28] = BONE
    return found


@pytest.fixture(scope="module")
def images(maps):
    return np.asarray(jax.jit(synthesise)(jax.random.key(0), jnp.asarray(maps)))


def test_images_are_finite_and_between_0_and_1(images, maps):
    assert images.shape == maps.shape
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_same_key_gives_the_same_images_and_another_key_others(images, maps):
    np.testing.assert_array_equal(images, jax.jit(synthesise)(jax.random.key(0), jnp.asarray(maps)))
    other = np.asarray(jax.jit(synthesise)(jax.random.key(1), jnp.asarray(maps)))
    assert np.abs(other - images).mean() > 0.02
    assert np.abs(images[0] - images[1]).mean() > 0.02  # and each image draws its own


def test_lung_is_darker_than_fat_and_fat_than_blood_in_most_images(images, maps):
    mean = lambda code: np.array([i[m == code].mean() for i, m in zip(images, maps, strict=True)])  # noqa: E731
    assert (mean(LUNG) < mean(FAT) + 0.02).mean() > 0.8
    assert (mean(FAT) < mean(LV)).mean() > 0.8


def test_a_constant_map_gives_no_nan():
    for code in (tissues.AIR, tissues.LUNG, LV):
        assert np.isfinite(synthesise(jax.random.key(0), jnp.full((1, 16, 16), code))).all()
