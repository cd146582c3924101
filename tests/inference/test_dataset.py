"""Labels of a labelled dataset's patients, on its grid."""

import itertools

import numpy as np
import pytest

from heartseg_jax.inference.dataset import predict_split
from heartseg_jax.inference.predictor import Output, Predictor
from tests.preprocess.specs import spec
from tests.tiny import SIZE, SLICES, tile_labels, write_tiny


def by_brightness(batch):
    """Probabilities of 0.9 for the structure that a pixel's brightness names: structure k is at 60 k HU."""
    label = np.rint(np.clip(batch.image[..., 0] / 60, 0, 8)).astype(int)
    return 0.1 / 9 + 0.9 * np.eye(9, dtype=np.float32)[label]


def write(path, shown=lambda labels: labels):
    """The tiny dataset without noise; of each patient's images only what `shown` leaves of the labels."""
    shifts = itertools.cycle(range(3))
    return write_tiny(path, reimage=lambda _: 60 * shown(tile_labels(next(shifts))).astype(np.int16))


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "d")


def test_labels_come_back_patient_by_patient_in_order(dataset):
    found = list(predict_split(Predictor(lambda batch: Output(by_brightness(batch)), 4), dataset, "train", spec()))
    assert [(f.patient, f.slices) for f in found] == [(p, list(range(SLICES))) for p in range(3)]
    for shift, one in enumerate(found):
        assert one.labels.dtype == np.uint8
        assert np.array_equal(one.labels, tile_labels(shift))


def test_the_first_plane_of_adjacent_slices_is_the_one_below(tmp_path):
    dataset = write(tmp_path / "d", lambda labels: labels * (np.arange(SLICES) == 2)[:, None, None])
    [found] = predict_split(Predictor(lambda batch: Output(by_brightness(batch)), 4), dataset, "test", spec("adjacent"))
    assert [bool(plane.any()) for plane in found.labels] == [False, False, False, True, False, False]


def test_labels_come_back_to_the_dataset_grid_from_a_coarser_one(tmp_path):
    dataset = write(tmp_path / "d", lambda labels: 5 * (labels > 0))
    bright = Predictor(lambda batch: Output(np.eye(9, dtype=np.float32)[5 * (batch.image[..., 0] >= 150)]), 4)
    [found] = predict_split(bright, dataset, "test", spec(size=16))
    assert found.labels.shape == (SLICES, SIZE, SIZE)
    # A tile of 7 pixels cannot lie on a grid of 2: of each of the eight a row and a column may go over.
    assert np.sum((found.labels[0] > 0) != (dataset.labels(4)[0] > 0)) <= 8 * 13


def test_what_the_network_did_not_see_is_background(dataset):
    everywhere = Predictor(lambda batch: Output(np.eye(9, dtype=np.float32)[np.full(batch.image.shape[:3], 3)]), 4)
    # Pixels of 2 mm: 16 pixels of 2 mm are the middle half.
    [found] = predict_split(everywhere, dataset, "test", spec(size=16, mm_per_pixel=2.0))
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[8:24, 8:24] = 3
    assert all(np.array_equal(plane, expected) for plane in found.labels)
