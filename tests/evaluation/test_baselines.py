"""Baselines on a dataset small enough to see through, and their golden numbers on real slices."""

import json

import numpy as np
import pytest
from PIL import Image

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.join import joined
from heartseg_jax.data.dataset.records import Dataset, Patient, count_classes, with_test_patients
from heartseg_jax.evaluation.baselines import NAMES, baseline_scores, learn, predict_split, thumbnail


def dataset_of(folder, arrays, splits, merges=None):
    """Lay (images, labels) by patient into a folder, as the store does."""
    patients = []
    for name, (images, labels) in arrays.items():
        np.save(folder / f"{name}.images.npy", images)
        np.save(folder / f"{name}.labels.npy", labels)
        where = (splits[name],) * len(images) if isinstance(splits[name], str) else splits[name]
        counts = count_classes(labels, 9, "the labels")
        names = tuple(f"{name}_{z}" for z in range(len(images)))
        merge = (merges or {}).get(name, HEART.all_known)
        patients.append(Patient(name, None, False, merge, counts, names, where, {}))
    height, width = images.shape[1:]
    return Dataset(folder, "uint8", height, width, "patient", {}, tuple(patients), HEART)


RAMP = np.tile(np.arange(8, dtype=np.uint8) * 20, (6, 1))


def labels_of(rows, label):
    plane = np.zeros((6, 8), dtype=np.uint8)
    plane[:rows] = label
    return plane


@pytest.fixture
def tiny(tmp_path):
    """Training: a ramp to the right with LV above, a ramp to the left with RA above. Test: a fainter ramp right."""
    arrays = {
        "a": (np.stack([RAMP, RAMP[:, ::-1]]), np.stack([labels_of(2, 3), labels_of(3, 4)])),
        "b": (RAMP.T[:6, :6].repeat(2, axis=1)[None, :, :8], labels_of(1, 3)[None]),
        "t": ((RAMP // 2 + 40)[None], labels_of(4, 3)[None]),
    }
    return dataset_of(tmp_path, arrays, {"a": "train", "b": "train", "t": "test"})


def baseline_predictions(dataset, split):
    """Each baseline's labels by patient; of none for those with nothing to learn from."""
    by_patient = {patient.id: predictions for patient, _, predictions in predict_split(dataset, split)}
    return {name: {i: found[name] for i, found in by_patient.items() if name in found} for name in NAMES}


def test_predictions_by_hand(tiny):
    found = baseline_predictions(tiny, "test")
    assert set(found) == {"all_background", "nearest_slice", "position_prior"}
    assert not found["all_background"]["t"].any()
    np.testing.assert_array_equal(found["nearest_slice"]["t"][0], labels_of(2, 3))
    # Row 0: LV, RA, LV -> LV. Row 1: LV, RA, background -> all once, so the lowest. Row 2: RA, twice background.
    np.testing.assert_array_equal(found["position_prior"]["t"][0], labels_of(1, 3))
    for labels in found.values():
        assert labels["t"].dtype == np.uint8
        assert labels["t"].shape == (1, 6, 8)


def test_scores_by_hand(tiny):
    found = baseline_scores(tiny, "test")
    # Truth: 4 rows of LV in 6. Copied: 2 rows -> 2*2/(4+2). Prior: 1 row -> 2*1/(4+1).
    assert found["all_background"] == {"mean_dice": 0.0, "pixel_accuracy": pytest.approx(2 / 6)}
    assert found["nearest_slice"] == {"mean_dice": pytest.approx(4 / 6), "pixel_accuracy": pytest.approx(4 / 6)}
    assert found["position_prior"] == {"mean_dice": pytest.approx(2 / 5), "pixel_accuracy": pytest.approx(3 / 6)}


def test_without_training_patients_they_are_null(tmp_path):
    dataset = dataset_of(tmp_path, {"t": (RAMP[None], labels_of(2, 3)[None])}, {"t": "test"})
    assert learn(dataset) is None
    null = {"mean_dice": None, "pixel_accuracy": None}
    found = baseline_scores(dataset, "test")
    assert found["nearest_slice"] == found["position_prior"] == null
    assert found["all_background"]["pixel_accuracy"] == pytest.approx(4 / 6)
    assert baseline_predictions(dataset, "test")["nearest_slice"] == {}
    assert baseline_scores(dataset, "validation")["all_background"] == null


def test_a_slice_is_not_its_own_neighbour(tiny):
    found = baseline_predictions(tiny, "train")["nearest_slice"]["a"]
    assert not (found[0] == labels_of(2, 3)).all()


def test_ignored_pixels_are_not_copied(tmp_path):
    ignored = labels_of(2, 3)
    ignored[0] = 255
    arrays = {"a": (RAMP[None], ignored[None]), "t": (RAMP[None], labels_of(2, 3)[None])}
    found = baseline_predictions(dataset_of(tmp_path, arrays, {"a": "train", "t": "test"}), "test")
    for name in ("nearest_slice", "position_prior"):
        np.testing.assert_array_equal(np.unique(found[name]["t"]), [0, 3])


def test_scores_follow_the_patients_merge(tmp_path):
    arrays = {"a": (RAMP[None], labels_of(3, 8)[None]), "t": (RAMP[None], labels_of(3, 4)[None])}
    splits = {"a": "train", "t": "test"}
    merges = {"t": (0, 1, 2, 3, 4, 5, 6, 7, 4)}
    assert baseline_scores(dataset_of(tmp_path, arrays, splits), "test")["nearest_slice"]["mean_dice"] == 0.0
    assert baseline_scores(dataset_of(tmp_path, arrays, splits, merges), "test")["nearest_slice"]["mean_dice"] == 1.0


def test_thumbnail_by_hand():
    image = np.array([[0, 2, 10, 10], [2, 0, 10, 10], [0, 0, 4, 4], [0, 0, 4, 4]], dtype=np.int16)
    # Block means 1, 10, 0, 4; less their mean 3.75; over their length.
    means = np.array([1, 10, 0, 4]) - 3.75
    np.testing.assert_allclose(thumbnail(image, 2), means / np.sqrt((means**2).sum()), rtol=1e-6)
    np.testing.assert_allclose(thumbnail(image * 7 - 1000, 2), thumbnail(image, 2), rtol=1e-6)
    assert thumbnail(np.full((50, 70), -1024, dtype=np.int16)).shape == (32 * 32,)
    assert not thumbnail(np.full((50, 70), -1024, dtype=np.int16)).any()
    # Sides that 32 does not divide: every pixel is in one block.
    assert np.isfinite(thumbnail(np.random.default_rng(0).normal(size=(45, 33)))).all()


@pytest.fixture(scope="module")
def heart_ct(shared, tmp_path_factory):
    source = shared / "data" / "heart_ct"
    arrays = {}
    for row in json.loads((source / "manifest.json").read_text())["slices"]:
        pair = [np.asarray(Image.open(source / kind / f"{row['name']}.png")) for kind in ("images", "labels")]
        arrays.setdefault(row["patient"], []).append(pair)
    stacked = {name: tuple(np.stack(part) for part in zip(*pairs, strict=True)) for name, pairs in arrays.items()}
    return dataset_of(tmp_path_factory.mktemp("heart_ct"), stacked, dict.fromkeys(stacked, "test"))


def test_golden_all_background_on_heart_ct(heart_ct):
    found = baseline_scores(heart_ct, "test")["all_background"]
    assert len(heart_ct.patients) == 5
    assert found["mean_dice"] == 0.0
    assert found["pixel_accuracy"] == pytest.approx(5128762 / 5505024, abs=1e-12)
    assert round(found["pixel_accuracy"], 2) == 0.93


def test_golden_baselines_on_heart_ct_when_1005_is_left_out(heart_ct):
    found = baseline_scores(with_test_patients(heart_ct, ["1005"]), "test")
    assert found["nearest_slice"]["mean_dice"] == pytest.approx(0.28809797, abs=1e-7)
    assert found["nearest_slice"]["pixel_accuracy"] == pytest.approx(0.91046197, abs=1e-7)
    assert found["position_prior"]["mean_dice"] == pytest.approx(0.14727994, abs=1e-7)
    assert found["position_prior"]["pixel_accuracy"] == pytest.approx(0.93049022, abs=1e-7)


def test_each_of_several_datasets_is_learned_by_itself(tmp_path):
    """The second has no training patients, and slices of another size: only the all-background prediction is left."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    arrays = {"a": (RAMP[None], labels_of(2, 3)[None]), "t": ((RAMP // 2)[None], labels_of(2, 3)[None])}
    one = dataset_of(tmp_path / "one", arrays, {"a": "train", "t": "test"})
    two = dataset_of(tmp_path / "two", {"t": (RAMP[None, :, :4], labels_of(3, 4)[None, :, :4])}, {"t": "test"})
    found = {patient.id: predictions for patient, _, predictions in predict_split(joined([one, two]), "test")}
    assert set(found["one/t"]) == set(NAMES)
    np.testing.assert_array_equal(found["one/t"]["nearest_slice"][0], labels_of(2, 3))
    assert {name: labels.shape for name, labels in found["two/t"].items()} == {"all_background": (1, 6, 4)}
