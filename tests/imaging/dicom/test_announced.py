"""What was announced and did not come, what lies beside a study, and how a zip's names are read."""

import shutil
import stat
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.study import read_contents, read_study
from tests.dicom_writer import SERIES, axes, write_enhanced, write_series
from tests.imaging.dicom.test_storage import checks, hu, put  # noqa: F401

SPACING = (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def disc(hu, tmp_path_factory):  # noqa: F811
    """A DICOMDIR of two series of 24 slices each."""
    folder = tmp_path_factory.mktemp("disc")
    edit = put(StudyDate="20200101", StudyTime="101010", StudyID="1", SeriesNumber=1)
    files = FileSet()
    for part in (1, 2):

        def both(dataset, z, part=part):
            edit(dataset, z)
            dataset.SeriesInstanceUID, dataset.SeriesNumber = f"{SERIES}.{part}", part

        for path in write_series(folder / "source", hu + part, SPACING, edit=both, part=part):
            files.add(path)
    files.write(folder / "disc")
    return folder / "disc"


def slices(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")


def of_series(folder):
    return {one.name[-1]: checks(one.findings) for one in read_contents(folder).candidates}


def test_a_whole_disc_is_fine(disc, hu):  # noqa: F811
    assert checks(read_contents(disc).findings) == {}
    for source in (disc, disc / "DICOMDIR"):
        np.testing.assert_array_equal(read_study(source, f"{SERIES}.2").volume.voxels, hu + 2)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_files_that_the_dicomdir_lists_and_are_absent(disc, tmp_path, packed):
    shutil.copytree(disc, tmp_path / "part")
    paths = slices(tmp_path / "part")
    for path in paths[17:24]:  # of the first series: the writer keeps their order
        path.unlink()
    source = tmp_path / "part"
    if packed:
        source = tmp_path / "part.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in (tmp_path / "part").rglob("*"):
                archive.write(path, path.relative_to(tmp_path))
    found = of_series(source)
    assert found["1"]["missing_files"] == "refuse"
    assert "missing_files" not in found["2"], "the other series is whole"
    with pytest.raises(UserError, match="the DICOMDIR lists 24 images of the series, of which 7 are not here"):
        read_study(source, f"{SERIES}.1")


def test_a_series_that_the_dicomdir_lists_and_is_absent(disc, hu, tmp_path):  # noqa: F811
    shutil.copytree(disc, tmp_path / "part")
    for path in slices(tmp_path / "part")[:24]:
        path.unlink()
    study = read_study(tmp_path / "part")
    np.testing.assert_array_equal(study.volume.voxels, hu + 2)
    assert checks(study.findings)["missing_series"] == "warn"


def test_a_dicomdir_above_the_folder_that_is_given(disc, hu, tmp_path):  # noqa: F811
    shutil.copytree(disc, tmp_path / "part")
    first, second = slices(tmp_path / "part")[0].parent, slices(tmp_path / "part")[24].parent
    for path in sorted(first.iterdir())[17:]:
        path.unlink()
    for folder in (first, first.parent, first.parent.parent):
        assert of_series(folder)["1"]["missing_files"] == "refuse"
    study = read_study(second)  # whole, and nothing is said of the series that was not given
    np.testing.assert_array_equal(study.volume.voxels, hu + 2)
    assert "missing_series" not in checks(study.findings)
    (tmp_path / "part" / "DICOMDIR").write_bytes(b"damaged")
    assert "missing_files" not in of_series(first)["1"]


def test_a_dicomdir_whose_offsets_are_wrong(disc, tmp_path):
    shutil.copytree(disc, tmp_path / "part")
    listing = pydicom.dcmread(disc / "DICOMDIR")
    listing.FileSetID = "CHANGED BY AN ANONYMISER"[:16]
    listing.save_as(tmp_path / "part" / "DICOMDIR")
    for path in slices(tmp_path / "part")[17:24]:
        path.unlink()
    found = of_series(tmp_path / "part")
    assert found["1"]["missing_files"] == "refuse"
    assert "missing_files" not in found["2"]


@pytest.mark.parametrize(
    ("left", "check"),
    [(b"", "damaged_files"), (b"\0" * 9000, "damaged_files"), (b"<html>", "damaged_files"), (None, "no_pixels")],
    ids=["empty", "zeros", "another file", "header cut off"],
)
def test_slices_of_which_little_has_come(hu, tmp_path, left, check):  # noqa: F811
    for path in write_series(tmp_path, hu, SPACING)[17:]:
        path.write_bytes(path.read_bytes()[:200] if left is None else left)
    assert checks(read_contents(tmp_path).findings) == {check: "warn"}


def test_a_damaged_dicomdir_ends(disc, tmp_path):
    shutil.copytree(disc, tmp_path / "part")
    content = bytearray((tmp_path / "part" / "DICOMDIR").read_bytes())
    (tmp_path / "part" / "DICOMDIR").write_bytes(content.replace(b"\x04\x00\x20\x12SQ", b"\x04\x00\x20\x12WQ"))
    assert checks(read_contents(tmp_path / "part").findings)["damaged_files"] == "warn"
    for seed in range(40):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        for place in rng.integers(132, len(content), 30):
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "part" / "DICOMDIR").write_bytes(damaged)
        # So damaged, it may pass for an image of a series of its own: the writer's UIDs, and so the bytes, vary.
        found = {one.name for one in read_contents(tmp_path / "part").candidates}
        assert {f"{SERIES}.1", f"{SERIES}.2"} <= found


def test_links_that_lead_nowhere(hu, tmp_path):  # noqa: F811
    paths = write_series(tmp_path / "store", hu, SPACING)
    (tmp_path / "tail").mkdir()
    for z, path in enumerate(paths):
        (tmp_path / "tail" / path.name).symlink_to(path if z < 20 else tmp_path / "annex" / path.name)
    with pytest.raises(UserError, match=r"4 links to files that are not here .*, such as CT1_0020\.dcm"):
        read_study(tmp_path / "tail")
    with zipfile.ZipFile(tmp_path / "tail.zip", "w") as archive:
        for z, path in enumerate(paths):
            entry = zipfile.ZipInfo(path.name)
            entry.external_attr = (stat.S_IFREG if z < 20 else stat.S_IFLNK) << 16
            archive.writestr(entry, path.read_bytes() if z < 20 else "annex/" + path.name)
    with pytest.raises(UserError, match="4 links to files that are not here"):
        read_study(tmp_path / "tail.zip")
    shutil.copytree(tmp_path / "store", tmp_path / "whole" / "a")
    (tmp_path / "whole" / "report.pdf").symlink_to("nowhere")  # beside no slice
    study = read_study(tmp_path / "whole")
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert checks(study.findings)["dangling_links"] == "warn"
    for path in (tmp_path / "tail").iterdir():
        path.unlink()
        path.symlink_to(path.name)  # to itself
    with pytest.raises(UserError, match="holds no file .24 links lead nowhere"):
        read_study(tmp_path / "tail")


def test_folders_behind_links_are_said_and_not_followed(hu, tmp_path):  # noqa: F811
    write_series(tmp_path / "store", hu, SPACING)
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "SE1").symlink_to(tmp_path / "store")
    with pytest.raises(UserError, match="holds no file .folders behind links, such as SE1, are not followed"):
        read_study(tmp_path / "only")
    shutil.copytree(tmp_path / "store", tmp_path / "loop" / "a")
    (tmp_path / "loop" / "a" / "round").symlink_to(tmp_path / "loop")
    study = read_study(tmp_path / "loop")
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert checks(study.findings)["linked_folders"] == "warn"


@pytest.mark.parametrize("total", [2, None], ids=["total stated", "no total"])
def test_parts_of_a_concatenation(hu, tmp_path, total):  # noqa: F811
    for part, frames in enumerate((hu[:12], hu[12:]), 1):

        def edit(dataset, part=part):
            dataset.SOPInstanceUID = f"{SERIES}.{part}"
            dataset.ConcatenationUID, dataset.InConcatenationNumber = "1.2.77", part
            if total:
                dataset.InConcatenationTotalNumber = total

        origin = (0, 0, 48.0 * (part - 1))
        write_enhanced(tmp_path / "both" / f"{3 - part}.dcm", frames, SPACING, origin, axes(), edit=edit)
    np.testing.assert_array_equal(read_study(tmp_path / "both").volume.voxels, hu)
    second, first = sorted((tmp_path / "both").iterdir())
    assert of_series(second)["1"]["missing_parts"] == "refuse"
    if total:
        assert of_series(first)["1"]["missing_parts"] == "refuse"


def test_zips_with_backslashes_and_with_zips_inside(hu, tmp_path):  # noqa: F811
    paths = write_series(tmp_path / "store", hu, SPACING)
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.writestr("STUDY\\", "")
        for path in paths:
            archive.writestr(f"STUDY\\SE1\\{path.name}", path.read_bytes())
    study = read_study(tmp_path / "windows.zip")
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert set(checks(study.findings)) == {"coarse_for_valve"}
    assert study.chosen.frames[0].header.source.name.startswith("STUDY/SE1/CT1_")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "windows.zip", "inner.zip")
    with pytest.raises(UserError, match=r"1 archive .*inner\.zip; unpack"):
        read_study(tmp_path / "outer.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "a") as archive:
        archive.write(paths[0], "one.dcm")
    assert checks(read_contents(tmp_path / "outer.zip").findings)["archives"] == "warn"


def test_what_file_managers_leave_is_passed_over(hu, tmp_path):  # noqa: F811
    paths = write_series(tmp_path / "study", hu, SPACING)
    clutter = ("Thumbs.db", "desktop.ini", ".DS_Store", "._CT1_0000.dcm")
    for name in clutter:
        (tmp_path / "study" / name).write_bytes(b"x" * 600)
    assert set(checks(read_study(tmp_path / "study").findings)) == {"coarse_for_valve"}
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in (*clutter, *(path.name for path in paths)):
            archive.write(tmp_path / "study" / name, f"__MACOSX/{name}" if name in clutter else name)
    assert set(checks(read_study(tmp_path / "study.zip").findings)) == {"coarse_for_valve"}


def test_only_localizers_is_said(hu, tmp_path):  # noqa: F811
    write_series(tmp_path, hu[:3], SPACING, edit=put(ImageType=["original", "primary", "localizer"]))
    assert read_contents(tmp_path).candidates == []
    with pytest.raises(UserError, match="holds no DICOM image: 3 localizers"):
        read_study(tmp_path)
