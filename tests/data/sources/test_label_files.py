"""NRRD images, label maps and 3D Slicer's segmentations, through `prepare`."""

import nrrd
import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.imaging.dicom.study import read_study
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.nrrd import geometry_fields
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes
from tests.studies import SPACING, phantom, write_pictures, write_study

NAMES = {f"Segment{k}_{field}": str(value) for k in range(8) for field, value in (("LabelValue", k + 1), ("Layer", 0))}
NAMES |= {
    f"Segment{k}_Name": name
    for k, name in enumerate(["AA", "Left atrium", "LV", "RA", "RV", "DA", "pulmonary_artery", "vena cava"])
}


def truth(index):
    labels = phantom(index)[1]
    return np.where(labels == 255, 0, labels).astype(np.uint8)


def write(path, voxels, volume, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    nrrd.write(str(path), voxels.T, {**geometry_fields(volume), **fields})


def cropped(volume, labels):
    """The part of labels that holds any, as 3D Slicer saves it, with its own origin."""
    low = np.array([axis.min() for axis in np.nonzero(labels)])
    high = np.array([axis.max() + 1 for axis in np.nonzero(labels)])
    part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    origin = np.array(volume.origin_mm) + volume.direction @ (low * volume.spacing_mm)
    return part, Volume(part, volume.spacing_mm, tuple(origin), volume.direction)


def prepare(kind, source, *words):
    flags = [f"--input={source}", f"--output={source.parent / 'data'}", "--overwrite"]
    return main.main(["prepare", f"--source={kind}", *flags, *words])


def test_masks_of_dicom_studies(tmp_path):
    source = tmp_path / "source"
    for index, name in enumerate(("one", "two", "three")):
        write_study(source / "images" / name, index, direction=axes(7))
        volume = read_study(source / "images" / name).volume
        part, place = cropped(volume, truth(index))
        if index == 0:
            write(source / "masks" / "one.seg.nrrd", part, place, **NAMES)
        elif index == 1:  # in a folder of its own, beside the volume, as Slicer saves both
            write(source / "masks" / "two" / "Segmentation.seg.nrrd", part, place, **NAMES)
            write(source / "masks" / "two" / "CT.nrrd", volume.voxels, volume)
        else:
            write(source / "masks" / "three.nrrd", truth(index), volume)
    assert prepare("dicom", source) == 0
    dataset = read_dataset(tmp_path / "data")
    for index in range(3):
        patient = next(p for p in dataset.patients if np.array_equal(dataset.images(p), phantom(index)[0]))
        np.testing.assert_array_equal(dataset.labels(patient), truth(index))
        assert patient.merge == tuple(range(9))


def test_pairs_of_volumes(tmp_path):
    source = tmp_path / "source"
    for index, image in enumerate((".nii.gz", ".nrrd")):
        hu, labels = phantom(index)[0], truth(index)
        volume = Volume(hu, SPACING, (-60.0, -75.5, -200.0), axes())
        if image == ".nrrd":
            write(source / "images" / f"p{index}.nrrd", hu, volume)
        else:
            (source / "images").mkdir(parents=True)
            write_nifti(volume, source / "images" / f"p{index}.nii.gz")
        known = np.where(np.isin(labels, (2, 3)), labels, 0)
        part, place = cropped(volume, known if index else labels)
        names = {name: value for name, value in NAMES.items() if not index or name.startswith(("Segment1", "Segment2"))}
        write(source / "labels" / f"p{index}.seg.nrrd", part, place, **names)
    assert prepare("nifti_pairs", source) == 0
    dataset = read_dataset(tmp_path / "data")
    assert [p.merge for p in dataset.patients] == [tuple(range(9)), (0, 0, 2, 3, 0, 0, 0, 0, 0)]
    np.testing.assert_array_equal(dataset.labels(0), truth(0))
    np.testing.assert_array_equal(dataset.labels(1), np.where(np.isin(truth(1), (2, 3)), truth(1), 0))
    np.testing.assert_array_equal(dataset.images(1), phantom(1)[0])


@pytest.mark.parametrize("names", [("a.seg.nrrd", "b.seg.nrrd"), ("a.nrrd", "b.nii.gz")])
def test_two_label_files_of_one_study(tmp_path, capsys, names):
    write_study(tmp_path / "source" / "images" / "one", 0)
    (tmp_path / "source" / "masks" / "one").mkdir(parents=True)
    for name in names:
        (tmp_path / "source" / "masks" / "one" / name).write_bytes(b"")
    assert prepare("dicom", tmp_path / "source") == 2
    assert "a." in capsys.readouterr().err


def test_a_folder_of_pictures_is_still_one(tmp_path):
    slices = write_study(tmp_path / "source" / "images" / "one", 0)
    write_pictures(tmp_path / "source" / "masks" / "one", phantom(0)[1], [f"{path.stem}.png" for path in slices])
    assert prepare("dicom", tmp_path / "source") == 0


def test_a_header_without_its_data_says_so(tmp_path, capsys):
    write_study(tmp_path / "source" / "images" / "one", 0)
    volume = read_study(tmp_path / "source" / "images" / "one").volume
    write(tmp_path / "source" / "masks" / "one.nhdr", truth(0), volume)
    (tmp_path / "source" / "masks" / "one.raw.gz").unlink()
    assert prepare("dicom", tmp_path / "source") == 2
    assert "one.nhdr is a header only" in capsys.readouterr().err
