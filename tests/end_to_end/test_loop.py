"""What a prediction is exported as goes through `prepare`, and is the same labels: the loop of annotation."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.export.registry import EXPORTERS, Options
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume
from tests.export import studies
from tests.studies import phantom, write_study
from tests.verbs.predicting import unpack_run

FILES = {"dicom_seg": "segmentation.dcm", "rtstruct": "rtstruct.dcm", "seg_nrrd": "labels.seg.nrrd", "png": "masks"}
WAYS = ("axial-3mm", "oblique7-3mm", "negated-3mm")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return {way: studies.case(tmp_path_factory.mktemp(way), studies.GEOMETRIES[way]) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("exporter", FILES)
def test_what_is_exported_comes_back(tmp_path, cases, exporter, way):
    case = cases[way]
    (tmp_path / "out").mkdir()
    EXPORTERS[exporter].write(case.prediction, case.measurements, tmp_path / "out", Options())
    masks = tmp_path / "out" / FILES[exporter]
    words = [f"--input={case.folder / 'study'}", f"--masks={masks}", f"--output={tmp_path / 'data'}"]
    assert main.main(["prepare", "--source=dicom", *words]) == 0
    dataset = read_dataset(tmp_path / "data")
    volume = case.prediction.volume
    np.testing.assert_array_equal(dataset.images(0), patient_axial(volume)[0].voxels)
    axial = patient_axial(volume)[1].forth(case.prediction.labels)
    np.testing.assert_array_equal(dataset.labels(0), axial)
    # Of structures that were not found only pictures say that they are absent: there, no pixel has their colour.
    known = {label for label, counts in enumerate(dataset.patients[0].merge) if label == counts != 0}
    found = {row.label for row in case.measurements.structures if row.voxels}
    assert known == (set(range(1, 9)) if exporter == "png" else found)


def test_by_command(tmp_path):
    """predict, take a file of its outputs as the corrected masks, prepare: no more than a user types."""
    run = unpack_run(tmp_path)
    write_study(tmp_path / "studies" / "images" / "first", 0)
    study, out = tmp_path / "studies" / "images" / "first", tmp_path / "predicted"
    predict = ["predict", f"--input={study}", f"--workdir={run}", f"--output={out}", "--keep_refused"]
    predict.append(f"--export=nifti,{','.join(FILES)}")
    assert main.main(predict) == 0
    made = read_labels(out / "labels.nii.gz").voxels
    assert (made > 0).any()
    for name in FILES.values():
        words = [f"--masks={out / name}", f"--output={tmp_path / 'data'}", "--overwrite"]
        assert main.main(["prepare", "--source=dicom", f"--input={study}", *words]) == 0
        dataset = read_dataset(tmp_path / "data")
        np.testing.assert_array_equal(dataset.images(0), phantom(0)[0])
        np.testing.assert_array_equal(dataset.labels(0), made)


def test_masks_of_pictures_come_back_beside_them(tmp_path, cases):
    case = cases["axial-3mm"]
    pictures = np.clip(case.prediction.volume.voxels // 4 + 50, 0, 255).astype(np.uint8)
    names = tuple(f"p1_{number:02}.png" for number in range(1, len(pictures) + 1))
    intake = Intake("pictures", Volume(pictures, (1.0, 1.0, 1.0)), spacing_known=False, names=names)
    EXPORTERS["png"].write(replace(case.prediction, intake=intake), case.measurements, tmp_path / "in", Options())
    (tmp_path / "in" / "images").mkdir()
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / "in" / "images" / name)
    words = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'data'}"]
    assert main.main(["prepare", "--source=png_pairs", *words, "--names=keep"]) == 0
    dataset = read_dataset(tmp_path / "data")
    np.testing.assert_array_equal(dataset.images(0), pictures)
    np.testing.assert_array_equal(dataset.labels(0), case.prediction.labels)
