"""The pictures of benchmarks/failure_figure.py: which slices it takes, and the file that it writes."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import failure_figure
from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.measure.volumes import measure
from tests.measure.predictions import unchecked

PA, DA = 7, 6


@pytest.fixture
def study():
    """Four slices: 2 pixels of the pulmonary artery are called descending aorta in slice 1, 5 in slice 2."""
    truth = np.zeros((4, 20, 20), np.uint8)
    truth[1:3, 4:6, 4:14] = PA
    labels = truth.copy()
    labels[1, 4, 4:6], labels[2, 4, 4:9] = DA, DA
    labels[3, 4:8, 4:14] = DA  # the most labels, none of them on the artery
    return truth, unchecked(labels)


@pytest.fixture
def model(monkeypatch, study):
    monkeypatch.setattr(failure_figure, "predicted", lambda model, path: (study[1], measure(study[1])))
    return SimpleNamespace(labels=HEART)


def test_the_slice_of_a_structure_is_the_one_where_most_of_it_is_called_something_else(
    model, study, tmp_path, capsys, monkeypatch
):
    truth, prediction = study
    monkeypatch.setattr(failure_figure, "_mask", lambda prediction, path: truth == PA)
    picture = failure_figure.of_structure(model, f"{tmp_path}/ct.nii.gz,{tmp_path}/pa.nii.gz,pulmonary_artery")
    assert np.array_equal(picture.labels, prediction.labels[2])
    assert np.array_equal(picture.reference, truth[2])
    assert picture.title == "PA called DA"
    # 33 of the 40 voxels are found, and nothing else is called so: 2 x 33 / (33 + 40).
    assert "Dice 0.904; 7 of 40" in capsys.readouterr().out


def test_the_slice_of_a_study_is_the_one_with_most_labels(model, study, tmp_path, capsys):
    picture = failure_figure.of_study(model, tmp_path)
    assert np.array_equal(picture.labels, study[1].labels[3])
    assert picture.reference is None
    assert "pulmonary_artery: 33 voxels" in capsys.readouterr().out


def test_a_mask_of_another_grid_is_refused(study, tmp_path):
    other = unchecked(study[0][:, :10])
    write_nifti(study[1].volume, tmp_path / "mask.nii.gz")
    with pytest.raises(SystemExit, match="grid"):
        failure_figure._mask(other, str(tmp_path / "mask.nii.gz"))


def test_the_picture_is_small(study, tmp_path):
    rng = np.random.default_rng(0)
    shown = [failure_figure.Picture(rng.random((20, 20)), study[1].labels[2], study[0][2], "noise")] * 4
    failure_figure.draw(shown, tmp_path / "a.png", HEART)
    with Image.open(tmp_path / "a.png") as found:
        assert len(found.getcolors()) <= failure_figure.COLOURS
        assert found.width == round(failure_figure.COLUMNS * failure_figure.SIDE_IN * 150)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
