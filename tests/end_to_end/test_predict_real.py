"""Real studies that show no heart as the model knows it: refused, or with a warning in every output."""

import json

import pydicom
import pytest

import main
from heartseg_jax.imaging.nifti import read_labels
from tests.verbs.predicting import unpack_run


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Function from an input to the exit status and the folder of its outputs."""
    place = tmp_path_factory.mktemp("real")
    run = unpack_run(place)

    def predict(path, *words):
        output = place / path.name
        return main.main(["predict", f"--input={path}", f"--output={output}", f"--workdir={run}", *words]), output

    return predict


def texts(item):
    """All texts in a structured report, at any depth."""
    found = [item.TextValue] if "TextValue" in item else []
    return found + [text for inner in item.get("ContentSequence", ()) for text in texts(inner)]


def test_a_chest_without_contrast(shared, predicted):
    status, output = predicted(shared / "data" / "dicom" / "chest_native" / "siemens_8mm.zip", "--nopostprocess")
    assert status == 0
    stated = json.loads((output / "measurements.json").read_text())
    assert {row["status"] for row in stated["structures"].values()} == {"refused"}
    assert any(text.startswith("no_contrast") for text in stated["warnings"])
    assert not read_labels(output / "labels.nii.gz").voxels.any()
    report = pydicom.dcmread(output / "report.dcm")
    assert all(any(warning in text for text in texts(report)) for warning in stated["warnings"])
    assert not (output / "segmentation.dcm").exists()


def test_an_upper_abdomen(shared, predicted, capsys):
    """Its instances have no UIDs, so that no DICOM object can refer to them."""
    status, output = predicted(shared / "data" / "dicom" / "siemens_series_j2k", "--nopostprocess")
    assert status == 0
    stated = json.loads((output / "measurements.json").read_text())
    assert not [row for row in stated["structures"].values() if row["status"] == "measured"]
    checks = {text.partition(":")[0] for text in stated["warnings"]}
    assert {"short_block", "same_instance"} <= checks
    assert not list(output.glob("*.dcm"))
    assert "DICOM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("dicom/odd/MR_small.dcm", "MR"),
        ("dicom/odd/CT_small.dcm", "single slice"),
        ("dicom/transfer_syntaxes/CT2_J2KR", "single slice"),
        ("dicom/odd/rtstruct.dcm", "no DICOM image"),
        ("whole_heart_labels/wh.nii.gz", ""),
        ("heart_ct/images", "uint8"),
        ("heart_ct/masks", "coloured"),
    ],
)
def test_what_is_no_study_of_the_heart_is_refused(shared, predicted, capsys, path, why):
    status, output = predicted(shared / "data" / path)
    assert (status, output.exists()) == (2, False)
    assert why in capsys.readouterr().err
