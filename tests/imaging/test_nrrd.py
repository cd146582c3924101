"""NRRD volumes: every space and order of axes, and what is refused."""

import nrrd
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nrrd import geometry_fields, read_layers, read_nrrd
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 7
"""`[Z, Y, X]`"""
LPS = {
    "space": "left-posterior-superior",
    "space directions": np.array([[0.5, 0, 0], [0, 0.75, 0], [0, 0, 3.0]]),
    "space origin": np.array([-10.5, 20.25, 30.0]),
}


def write(path, voxels=VOXELS, **changes):
    fields = {**LPS, **changes}
    nrrd.write(str(path), voxels.T, {name: value for name, value in fields.items() if value is not None})
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_voxels_and_geometry(tmp_path, encoding):
    found = read_nrrd(write(tmp_path / "a.nrrd", encoding=encoding))
    assert np.array_equal(found.voxels, VOXELS)
    assert found.voxels.dtype.newbyteorder("=") == found.voxels.dtype
    assert found.spacing_mm == (3.0, 0.75, 0.5)
    assert found.origin_mm == (-10.5, 20.25, 30.0)
    assert found.direction.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("space", "x", "y"), [("right-anterior-superior", -1, -1), ("RAS", -1, -1), ("LAS", 1, -1), ("LPS", 1, 1)]
)
def test_spaces(tmp_path, space, x, y):
    found = read_nrrd(write(tmp_path / "a.nrrd", space=space))
    assert found.origin_mm == (-10.5 * x, 20.25 * y, 30.0)
    assert found.direction.tolist() == [[0, 0, x], [0, y, 0], [1, 0, 0]]


def test_axes_keep_the_order_of_the_file(tmp_path):
    """A sagittal volume: the file's fastest axis runs to Superior, its slowest to Left."""
    directions = np.array([[0, 0, 3.0], [0, 0.75, 0], [0.5, 0, 0]])
    found = read_nrrd(write(tmp_path / "a.nrrd", **{"space directions": directions}))
    assert np.array_equal(found.voxels, VOXELS)
    assert found.spacing_mm == (0.5, 0.75, 3.0)
    assert found.direction.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_what_is_written_by_these_fields_comes_back_exactly(tmp_path):
    volume = Volume(VOXELS, (3.1, 0.7, 0.3), (1 / 3, -2 / 7, 99.9), axes(17))
    nrrd.write(str(tmp_path / "a.nrrd"), VOXELS.T, geometry_fields(volume))
    found = read_nrrd(tmp_path / "a.nrrd")
    assert np.array_equal(found.voxels, VOXELS)
    assert found.origin_mm == volume.origin_mm
    np.testing.assert_allclose(found.spacing_mm, volume.spacing_mm, rtol=1e-15)
    np.testing.assert_allclose(found.direction, volume.direction, atol=1e-15)


def test_layers(tmp_path):
    """3D Slicer's form of segments that overlap: the layers are the fastest axis."""
    both = np.stack([VOXELS, VOXELS[::-1]], axis=-1)
    fields = {
        "space directions": np.vstack([np.full(3, np.nan), LPS["space directions"]]),
        "kinds": ["list", "domain", "domain", "domain"],
        "Segment0_Name": "left atrium",
    }
    path = write(tmp_path / "a.seg.nrrd", both, **fields)
    found = read_layers(path)
    assert np.array_equal(found.voxels, [VOXELS, VOXELS[::-1]])
    assert found.fields["Segment0_Name"] == "left atrium"
    assert found.volume(1).spacing_mm == (3.0, 0.75, 0.5)
    with pytest.raises(UserError, match="2 volumes"):
        read_nrrd(path)
    assert read_nrrd(write(path, both[..., :1], **fields)).voxels.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": None, "space directions": None, "space origin": None}, "which side is left"),
        ({"space": "scanner-xyz"}, "scanner-xyz"),
        ({"space origin": None}, "space origin"),
        ({"space units": ["cm", "cm", "cm"]}, "cm"),
        ({"space directions": np.array([[0.5, 0, 0], [0.5, 0.75, 0], [0, 0, 3.0]])}, "right angles"),
        ({"space directions": np.array([[0.0, 0, 0], [0, 0.75, 0], [0, 0, 3.0]])}, "without extent"),
        ({"space directions": np.diag([5e-4, 1, 1])}, "no scan of a patient"),
        ({"voxels": np.stack([VOXELS] * 3, axis=-1), "kinds": ["RGB-color", *["domain"] * 3]}, "space directions"),
        ({"voxels": np.full(VOXELS.shape, np.nan)}, "not finite"),
    ],
)
def test_refusals(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        read_nrrd(write(tmp_path / "a.nrrd", **changes))


def test_damaged_files_and_those_in_two_parts(tmp_path):
    path = write(tmp_path / "a.nrrd")
    whole = path.read_bytes()
    for part in (b"", b"NRRD0005\n", whole[:60], whole[:-30], b"PK\3\4" + whole, whole.replace(b"4 3 2", b"4 3 9")):
        path.write_bytes(part)
        with pytest.raises(UserError, match="damaged"):
            read_nrrd(path)
    nrrd.write(str(tmp_path / "b.nhdr"), VOXELS.T, LPS.copy())
    with pytest.raises(UserError, match="another file"):
        read_nrrd(tmp_path / "b.nhdr")
    with pytest.raises(UserError, match="no file"):
        read_nrrd(tmp_path / "none.nrrd")
