"""Nearly equal slices: copies of every kind are found, other patients are not."""

import io

import numpy as np
import pytest
from PIL import Image

from heartseg_jax.data.audit.near_duplicates import LEAST_CORRELATION, correlation, near_duplicates, prints_of
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate


@pytest.fixture(scope="module")
def slices():
    """Brightness 0 to 1 of six slices from the middle of eight patients."""
    spec = PhantomSpec((12, 160, 160), (9.0, 1.5, 1.5))
    volumes = [generate(7, k, spec).volume.voxels[3:9] for k in range(8)]
    return np.clip((np.concatenate(volumes).astype(np.float32) + 200) / 800, 0, 1)


def as_jpeg(image):
    stream = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream), np.float32) / 255


def resized(image, size):
    return np.asarray(Image.fromarray((image * 255).astype(np.uint8)).resize((size, size)), np.float32) / 255


COPIES = {
    "the same": lambda image: image,
    "JPEG": as_jpeg,
    "half the size": lambda image: resized(image, 80),
    "another window": lambda image: np.clip((image - 0.1) / 0.7, 0, 1),
    "another curve": lambda image: image**0.7,
    "noise": lambda image: image + np.random.default_rng(0).normal(0, 0.02, image.shape).astype(np.float32),
    "a pixel aside": lambda image: np.roll(image, 1, axis=0),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_are_found(slices, copy):
    prints = prints_of(slices)
    other = prints_of(np.stack([copy(image) for image in slices[:6]]))
    both = type(prints)(*(np.concatenate(pair) for pair in zip(prints, other, strict=True)))
    groups = [0] * len(slices) + [1] * 6
    found = {(pair.one, pair.other - len(slices)) for pair in near_duplicates(both, groups)}
    assert {(k, k) for k in range(6)} <= found


def test_other_patients_are_not(slices):
    prints = prints_of(slices)
    assert near_duplicates(prints, [k // 6 for k in range(len(slices))]) == []


def test_air_is_like_air_and_is_passed_over():
    assert near_duplicates(prints_of(np.zeros((4, 32, 32), np.float32)), [0, 0, 1, 1]) == []


def test_slices_of_one_group_are_not_compared(slices):
    prints = prints_of(np.concatenate([slices[:3], slices[:3]]))
    assert near_duplicates(prints, [0] * 6) == []
    assert len(near_duplicates(prints, [0, 0, 0, 1, 1, 1])) == 3
    assert len(near_duplicates(prints, [0, 0, 0, 1, 1, 1], most=2)) == 2


def test_correlation_by_hand():
    one, other = np.array([0, 0, 2, 2], np.uint8), np.array([1, 3, 5, 7], np.uint8)
    # Means 1 and 4: products 3 + 1 + 1 + 3 = 8, squares 4 and 20.
    assert correlation(one, other) == pytest.approx(8 / np.sqrt(80))
    assert LEAST_CORRELATION < 1
