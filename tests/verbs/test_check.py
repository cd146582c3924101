"""The verb `check`: input that is not DICOM is sent to `prepare` with the right source."""

import pytest

import main
from heartseg_jax.verbs.check import other_source


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (["a.nii.gz"], "nifti_pairs"),
        (["images/a.nii", "labels/a.nii", "notes.txt"], "nifti_pairs"),
        (["1_image.nii.gz", "1_label.nii.gz"], "mmwhs"),
        (["s1/ct.nii.gz", "s1/segmentations/aorta.nii.gz"], "totalsegmentator"),
        (["s1/ct.nii.gz", "s1/segmentations.nii.gz"], "totalsegmentator_ml"),
        (["dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], "nnunet"),
        (["dataset.json", "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], "decathlon"),
        (["images/a.nrrd", "labels/a.seg.nrrd"], "nifti_pairs"),
        (["images/1.png", "masks/1.PNG", ".DS_Store"], "png_pairs"),
        (["images/1.jpg", "masks/1.png", "Thumbs.db"], "png_pairs"),
        (["IM0001", "preview.png"], None),
        (["a.dcm"], None),
        (["a.zip"], None),
        (["notes.txt"], None),
        ([], None),
    ],
)
def test_the_source_is_known_by_the_files(tmp_path, files, source, capsys):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert other_source(tmp_path) == source
    if source:
        assert main.main(["check", f"--input={tmp_path}"]) == 2
        assert f"prepare --source={source} --input={tmp_path}" in capsys.readouterr().err


def test_a_single_file(tmp_path):
    (tmp_path / "a.nii.gz").write_text("")
    assert other_source(tmp_path / "a.nii.gz") == "nifti_pairs"
    assert other_source(tmp_path / "nowhere") is None


def test_the_input_folder_of_prepare_is_sent_to_a_study_or_to_prepare(tmp_path, capsys):
    for name in ("images/first/1.dcm", "masks/first/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    assert main.main(["check", f"--input={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "images" / "first") in error
    assert "prepare --source=dicom" in error
