"""From probabilities on the network's grid to labels on the dataset's."""

import numpy as np

from heartseg_jax.data.pipeline import Examples
from heartseg_jax.inference.predictor import merged, predict_split
from tests.data.test_pipeline import view
from tests.tiny import SIZE, SLICES, tile_labels, write_tiny


def truth_teller(batch):
    """Probabilities that say the batch's own label with 0.9."""
    return 0.1 / 9 + 0.9 * np.eye(9, dtype=np.float32)[batch["label"]]


def test_labels_come_back_patient_by_patient_in_order(tmp_path):
    dataset = write_tiny(tmp_path / "d")
    found = list(predict_split(truth_teller, Examples(dataset, "train", view()), batch_size=4))
    assert [(f.patient, f.slices) for f in found] == [(p, list(range(SLICES))) for p in range(3)]
    for shift, one in enumerate(found):
        assert one.labels.dtype == np.uint8
        assert np.array_equal(one.labels, tile_labels(shift))


def test_labels_come_back_to_the_dataset_grid_from_a_coarser_one(tmp_path):
    dataset = write_tiny(tmp_path / "d")
    [found] = predict_split(truth_teller, Examples(dataset, "test", view(size=16)), batch_size=4)
    assert found.labels.shape == (SLICES, SIZE, SIZE)
    # A tile of 7 pixels cannot lie on a grid of 2: of each of the eight a row and a column may go over.
    assert np.sum(found.labels[0] != dataset.labels(4)[0]) <= 8 * 13


def test_what_the_network_did_not_see_is_background(tmp_path):
    dataset = write_tiny(tmp_path / "d")  # pixels of 2 mm: 16 pixels of 2 mm are the middle half
    everywhere = lambda batch: np.eye(9, dtype=np.float32)[np.full(batch["label"].shape, 3)]  # noqa: E731
    [found] = predict_split(everywhere, Examples(dataset, "test", view(size=16, mm_per_pixel=2.0)), batch_size=4)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[8:24, 8:24] = 3
    assert all(np.array_equal(plane, expected) for plane in found.labels)


def test_merged_channels_are_summed_before_the_comparison():
    probabilities = np.zeros((1, 9), np.float32)
    probabilities[0, [0, 4, 8]] = 0.4, 0.3, 0.3
    assert merged(probabilities, tuple(range(9))).argmax() == 0
    assert merged(probabilities, (0, 1, 2, 3, 4, 5, 6, 7, 4)).argmax() == 4
