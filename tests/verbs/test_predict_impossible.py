"""Outputs that cannot be made of an input, or written: said before the inference."""

import shutil

import pytest

import main
from heartseg_jax.export.page import viewer
from heartseg_jax.verbs import predict_study
from tests.dicom_writer import axes, write_enhanced, write_series
from tests.studies import SPACING, phantom
from tests.verbs.predicting import unpack_run, volume, write_inputs


def _shared_stems(place, inputs):
    shutil.copytree(inputs["pictures"], place)
    shutil.copy(place / "slice_3.png", place / "slice_3.bmp")


def _no_study_uid(place, inputs):
    write_series(place, phantom(0)[0], SPACING, edit=lambda dataset, z: delattr(dataset, "StudyInstanceUID"))


def _several_frames(place, inputs):
    write_enhanced(place, phantom(0)[0], SPACING, volume().origin_mm, axes())


@pytest.mark.parametrize(
    ("make", "export", "named"),
    [
        (_shared_stems, "png", "--export=png"),
        (_several_frames, "png", "--export=png"),
        (_no_study_uid, "dicom_sr", "StudyInstanceUID"),
        (lambda place, inputs: shutil.copy(inputs["nifti"], place), "review", "ipyniivue"),
    ],
)
def test_an_output_that_cannot_be_made_is_said_before_the_inference(tmp_path, capsys, monkeypatch, make, export, named):
    monkeypatch.setattr(predict_study, "predict_volume", None)
    monkeypatch.setattr(viewer, "PACKAGE", "ipyniivue_that_is_missing")
    viewer.viewer.cache_clear()
    place = tmp_path / ("ct.nii.gz" if export == "review" else "all.dcm" if make is _several_frames else "in")
    make(place, write_inputs(tmp_path / "made"))
    words = [f"--input={place}", f"--output={tmp_path / 'out'}", f"--workdir={unpack_run(tmp_path)}"]
    assert main.main(["predict", *words, f"--export={export}"]) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    viewer.viewer.cache_clear()


def test_a_place_that_cannot_be_written_to_is_said_before_the_inference(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict_study, "predict_volume", None)
    study = write_inputs(tmp_path / "made")["nifti"]
    words = [f"--input={study}", "--output=/proc/here", f"--workdir={unpack_run(tmp_path)}"]
    assert main.main(["predict", *words]) == 2
    assert "/proc/here" in capsys.readouterr().err.splitlines()[-1]
