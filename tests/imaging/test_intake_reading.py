"""Every kind of input, distinguished by what it is; and what is refused."""

import nibabel
import nrrd
import numpy as np
import pytest
from PIL import Image

from heartseg_jax.errors import UserError
from heartseg_jax.findings import REFUSE
from heartseg_jax.imaging.intake_reading import read_intake
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.nrrd import geometry_fields
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import SERIES, axes, write_enhanced, write_series
from tests.studies import SPACING, phantom

HU = phantom(0)[0]
VOLUME = Volume(HU, SPACING, (-60.0, -75.5, -200.0), axes())
GREY = np.clip((HU + 1024) / 8, 0, 255).astype(np.uint8)


def write_pictures(folder, planes=GREY, name="slice_{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for z, plane in enumerate(planes):
        Image.fromarray(plane).save(folder / name.format(z))


def same_place(found):
    assert np.array_equal(found.volume.voxels, HU)
    np.testing.assert_allclose(found.volume.spacing_mm, SPACING, rtol=1e-6)
    np.testing.assert_allclose(found.volume.origin_mm, VOLUME.origin_mm, atol=1e-4)


@pytest.mark.parametrize("beside", [False, True])
def test_a_dicom_study_with_the_file_of_each_slice(tmp_path, beside):
    paths = write_series(tmp_path / "study", HU, SPACING)
    if beside:  # earlier results, and a viewer's logo
        write_nifti(VOLUME, tmp_path / "study" / "labels.nii.gz")
        write_pictures(tmp_path / "study", GREY[:1], "logo.png")
    found = read_intake(tmp_path / "study")
    same_place(found)
    assert (found.kind, found.spacing_known) == ("dicom", True)
    # By position along the normal, whatever the names: the writer goes from Inferior to Superior.
    assert [source.name for source in found.files] == [path.name for path in paths]
    assert [frame.uid for frame in found.volume.frames] == [f"{SERIES}.1.{z + 1}" for z in range(len(HU))]


def test_a_file_with_all_slices_is_the_file_of_each(tmp_path):
    write_enhanced(tmp_path / "all.dcm", HU, SPACING, VOLUME.origin_mm, axes())
    for path in (tmp_path / "all.dcm", tmp_path):
        found = read_intake(path)
        same_place(found)
        assert {source.name for source in found.files} == {"all.dcm"}
        assert len(found.files) == len(HU)


def test_one_of_several_series(tmp_path):
    write_series(tmp_path / "a", HU, SPACING)
    other = {"edit": lambda dataset, z: setattr(dataset, "SeriesInstanceUID", f"{SERIES}.5")}
    write_series(tmp_path / "b", HU[2:], SPACING, part=2, **other)
    with pytest.raises(UserError, match="--series=N"):
        read_intake(tmp_path)
    assert len(read_intake(tmp_path, series=f"{SERIES}.5").files) == len(HU) - 2
    assert len(read_intake(tmp_path, series="best").files) == len(HU)


def test_nifti_and_nrrd(tmp_path):
    write_nifti(VOLUME, tmp_path / "ct.nii.gz")
    nrrd.write(str(tmp_path / "ct.nrrd"), HU.T, geometry_fields(VOLUME))
    for path, kind in (("ct.nii.gz", "nifti"), ("ct.nrrd", "nrrd")):
        found = read_intake(tmp_path / path)
        same_place(found)
        assert (found.kind, found.volume.voxels.dtype, found.files, found.names) == (kind, np.int16, (), ())


def test_pictures_do_not_hide_dicom_below_them(tmp_path):
    write_series(tmp_path / "case" / "dcm", HU, SPACING)
    write_pictures(tmp_path / "case", GREY, "shot{}.png")
    found = read_intake(tmp_path / "case")
    same_place(found)
    assert found.kind == "dicom"


@pytest.mark.parametrize(("count", "levels"), [(1, ["refuse"]), (2, ["warn"]), (19, ["warn"]), (20, [])])
def test_few_pictures_are_said(tmp_path, count, levels):
    write_pictures(tmp_path / "in", GREY[:count])
    found = [finding.level for finding in read_intake(tmp_path / "in").findings if finding.check == "too_few_slices"]
    assert found == levels


def test_findings_on_the_geometry_of_a_nifti(tmp_path):
    write_nifti(VOLUME, tmp_path / "ct.nii")
    image = nibabel.load(tmp_path / "ct.nii")
    image.set_qform(image.affine @ np.diag([1, 1, 2.0, 1]), code=1)
    image.to_filename(tmp_path / "two.nii")
    assert "two_geometries" in {finding.check for finding in read_intake(tmp_path / "two.nii").findings}


def test_eight_bit_nifti_are_pictures_with_a_known_spacing(tmp_path):
    write_nifti(Volume(GREY, SPACING), tmp_path / "grey.nii.gz")
    found = read_intake(tmp_path / "grey.nii.gz")
    assert np.array_equal(found.volume.voxels, GREY)
    assert (found.volume.voxels.dtype, found.spacing_known) == (np.uint8, True)
    assert not [finding for finding in found.findings if finding.level == REFUSE]
    write_nifti(Volume(phantom(0)[1], SPACING), tmp_path / "labels.nii.gz")
    refused = [f.check for f in read_intake(tmp_path / "labels.nii.gz").findings if f.level == REFUSE]
    assert refused == ["few_values"]


def test_pictures_in_the_natural_order_of_their_names(tmp_path):
    write_pictures(tmp_path / "png")
    (tmp_path / "png" / "notes.txt").write_text("x")
    (tmp_path / "png" / "Thumbs.db").write_text("x")
    found = read_intake(tmp_path / "png")
    assert np.array_equal(found.volume.voxels, GREY)
    assert found.names == tuple(f"slice_{z}.png" for z in range(len(GREY)))
    assert (found.kind, found.spacing_known, found.files) == ("pictures", False, ())
    assert [finding.check for finding in found.findings if finding.check == "not_pictures"] == ["not_pictures"]
    write_pictures(tmp_path / "jpeg", name="{}.JPG")
    assert np.abs(read_intake(tmp_path / "jpeg").volume.voxels.astype(int) - GREY).mean() < 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: write_pictures(folder, [GREY[0], GREY[1, 1:]]), "slice_1.png"),
        (lambda folder: write_pictures(folder, np.stack([GREY, GREY // 2, GREY], -1)), "coloured"),
        (lambda folder: write_pictures(folder, GREY.astype(np.uint16) * 200), "8 bits"),
        (lambda folder: (folder.mkdir(), (folder / "a.png").write_bytes(b"x")), "a.png"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("x")), "no DICOM"),
        (lambda folder: folder.mkdir(), "no file"),
        (lambda folder: None, "nothing"),
    ],
)
def test_folders_that_are_refused(tmp_path, make, words):
    make(tmp_path / "in")
    with pytest.raises(UserError, match=words):
        read_intake(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.png", "per slice"), ("a.mha", "NIfTI"), ("a.nhdr", "data in it"), ("a.tar", "zip"), ("a", "no DICOM")],
)
def test_files_that_are_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(UserError, match=words):
        read_intake(tmp_path / name)


def test_series_is_of_dicom_only(tmp_path):
    write_pictures(tmp_path / "png")
    write_nifti(VOLUME, tmp_path / "ct.nii.gz")
    for path in ("png", "ct.nii.gz"):
        with pytest.raises(UserError, match="--series"):
            read_intake(tmp_path / path, series="1")
