"""NIfTI against nibabel's own idea of where voxels lie, in every order of axes; and files that are none."""

import contextlib
import gzip
import itertools

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nifti import check_geometry, read_labels, read_nifti, write_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes, write_series

ORDERS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def placed(volume, index):
    """Where a voxel (z, y, x) lies, in LPS mm."""
    return np.array(volume.origin_mm) + volume.direction @ (np.array(index) * volume.spacing_mm)


def image(degrees=0.0):
    """An image [i, j, k] whose values are all different, i to Left, j to Posterior, k to Superior, turned about x."""
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    angle = np.radians(degrees)
    affine = np.diag([-1.5, -2.0, 3.0, 1.0])
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (10, -20, 30)
    return nibabel.Nifti1Image(values, affine)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_all_48_orders_of_axes_are_one_patient(tmp_path, degrees):
    straight = image(degrees)
    values = np.asarray(straight.dataobj)
    assert len(ORDERS) == 48
    for permutation, flips in ORDERS:
        turned = np.column_stack([permutation, flips])
        affine = straight.affine @ inv_ornt_aff(turned, values.shape)
        nibabel.Nifti1Image(apply_orientation(values, turned), affine).to_filename(tmp_path / "a.nii")
        source = read_nifti(tmp_path / "a.nii")
        volume, turn = patient_axial(source)
        np.testing.assert_array_equal(volume.voxels, values.transpose(2, 1, 0))
        np.testing.assert_allclose(volume.spacing_mm, (3, 2, 1.5), atol=1e-5)
        assert turn.oblique_degrees == pytest.approx(degrees, abs=1e-2)
        for z, y, x in ((0, 0, 0), (5, 4, 3), (2, 1, 3)):
            world = nibabel.affines.apply_affine(straight.affine, (x, y, z)) * (-1, -1, 1)
            np.testing.assert_allclose(placed(volume, (z, y, x)), world, atol=1e-4)
        np.testing.assert_array_equal(turn.back(volume.voxels), source.voxels)


def test_a_real_volume_as_nifti_and_as_dicom_is_the_same(shared, tmp_path):
    from heartseg_jax.imaging.dicom.series import read_block
    from heartseg_jax.imaging.dicom.study import read_contents

    path = shared / "data" / "heart_cta_volume" / "ct.nii.gz"
    volume, _ = patient_axial(read_nifti(path))
    loaded = nibabel.load(path)
    assert volume.voxels.shape == tuple(loaded.shape[axis] for axis in (2, 1, 0))
    np.testing.assert_array_equal(np.sort(volume.voxels.ravel()), np.sort(np.asarray(loaded.dataobj).ravel()))

    def deeper(dataset, z):
        # Noise in air reaches below -1024: the values are stored 2000 higher, and said to be.
        dataset.RescaleIntercept = str(-1024 - 2000)

    place = (volume.spacing_mm, volume.origin_mm, volume.direction)
    write_series(tmp_path / "study", volume.voxels + np.int16(2000), *place, edit=deeper)
    (candidate,), *_ = read_contents(tmp_path / "study")
    again, _ = read_block(candidate)
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    np.testing.assert_allclose(again.spacing_mm, volume.spacing_mm, atol=1e-5)
    np.testing.assert_allclose(again.origin_mm, volume.origin_mm, atol=1e-5)
    np.testing.assert_allclose(again.direction, volume.direction, atol=1e-9)


def test_what_is_written_is_read_again_and_nibabel_agrees(tmp_path):
    labels = np.random.default_rng(0).integers(0, 9, (6, 5, 4)).astype(np.uint8)
    volume = Volume(labels, (3.0, 2.0, 1.5), (-10.0, 20.0, 30.0), axes(25))
    write_nifti(volume, tmp_path / "labels.nii.gz")
    again = read_labels(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(again.voxels, labels)
    np.testing.assert_allclose(again.spacing_mm, volume.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(again.direction, volume.direction, atol=1e-6)
    loaded = nibabel.load(tmp_path / "labels.nii.gz")
    assert loaded.get_data_dtype() == np.uint8
    world = nibabel.affines.apply_affine(loaded.affine, (3, 2, 1)) * (-1, -1, 1)
    np.testing.assert_allclose(placed(volume, (1, 2, 3)), world, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.nii.gz"]


def test_scaled_values_and_a_fourth_axis_of_one(tmp_path):
    loaded = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), np.diag([1.0, 1, 1, 1]))
    loaded.to_filename(tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    # Bytes 112 to 120 of the header are scl_slope and scl_inter, says the standard.
    scale = np.array([2, -1024], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content[:112] + scale + content[120:])
    voxels = read_nifti(tmp_path / "a.nii").voxels
    assert voxels.shape == (4, 3, 2)
    assert voxels[3, 2, 1] == 2 * 23 - 1024


def broken(kind, path):
    ramp = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    made = nibabel.Nifti1Image(ramp, np.eye(4))
    if kind == "no geometry":
        made.set_sform(None, code=0)
        made.set_qform(None, code=0)
    elif kind == "sheared":
        made = nibabel.Nifti1Image(ramp, np.array([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    elif kind == "four axes":
        made = nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.float32), np.eye(4))
    elif kind == "not finite":
        ramp[0, 0, 0] = np.nan
    elif kind == "colour":
        made = nibabel.Nifti1Image(np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4))
    made.to_filename(path)
    content = path.read_bytes()
    if kind == "cut off":
        path.write_bytes(content[:-100])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "absurd size":
        path.write_bytes(content[:42] + np.array([30000, 30000, 30000], "<i2").tobytes() + content[48:])


@pytest.mark.parametrize(
    ("kind", "stated"),
    [
        ("no geometry", "neither an sform nor a qform"),
        ("sheared", "not at right angles"),
        ("four axes", "3 x 4 x 5 x 2"),
        ("not finite", "not finite"),
        ("colour", "not numbers"),
        ("cut off", "ends too soon"),
        ("text", "no NIfTI file"),
        ("empty", "no NIfTI file"),
        ("absurd size", "30000 x 30000 x 30000"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, kind, stated):
    broken(kind, tmp_path / "a.nii")
    with pytest.raises(UserError, match=stated):
        read_nifti(tmp_path / "a.nii")


def test_damaged_gzip_and_no_file(tmp_path):
    image().to_filename(tmp_path / "a.nii")
    packed = gzip.compress((tmp_path / "a.nii").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError):
        read_nifti(tmp_path / "b.nii.gz")
    with pytest.raises(UserError, match="there is no file"):
        read_nifti(tmp_path / "c.nii")


def test_a_label_map_that_was_interpolated_is_refused(tmp_path):
    nibabel.Nifti1Image(np.full((3, 3, 3), 1.5, np.float32), np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(UserError, match="no whole numbers"):
        read_labels(tmp_path / "a.nii")
    nibabel.Nifti1Image(np.full((3, 3, 3), 7.0, np.float32), np.eye(4)).to_filename(tmp_path / "b.nii")
    assert read_labels(tmp_path / "b.nii").voxels.dtype == np.int32


def test_metres_are_brought_to_mm(tmp_path):
    straight = image()
    affine = straight.affine.copy()
    affine[:3] /= 1000
    other = nibabel.Nifti1Image(np.asarray(straight.dataobj), affine)
    other.header.set_xyzt_units("meter")
    other.to_filename(tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing_mm, (3, 2, 1.5), atol=1e-5)
    np.testing.assert_allclose(volume.origin_mm, (-10, 20, 30), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-5, 1e4])
def test_voxels_of_no_patient(tmp_path, scale):
    nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([scale, scale, scale, 1])).to_filename(
        tmp_path / "a.nii"
    )
    with pytest.raises(UserError, match=r"a\.nii has voxels of .* mm, which no scan"):
        read_nifti(tmp_path / "a.nii")


def test_an_offset_beyond_all_bounds(tmp_path):
    image().to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[108:112] = np.float32(1e30).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.nii"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32])
def test_labels_of_every_type(tmp_path, dtype):
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    nibabel.Nifti1Image(values, np.eye(4), dtype=dtype).to_filename(tmp_path / "a.nii")
    found = read_labels(tmp_path / "a.nii").voxels
    assert found.dtype.kind in "iu"
    np.testing.assert_array_equal(found, values.transpose(2, 1, 0))
    if np.dtype(dtype).itemsize == 8:
        nibabel.Nifti1Image(values + dtype(2**40), np.eye(4), dtype=dtype).to_filename(tmp_path / "a.nii")
        with pytest.raises(UserError, match="small whole numbers"):
            read_labels(tmp_path / "a.nii")


def stated(sform=None, qform=None, codes=(1, 1)):
    """The image above with these matrices; None leaves the form out."""
    made = nibabel.Nifti1Image(np.asarray(image().dataobj), image().affine)
    made.set_sform(sform, code=codes[0] if sform is not None else 0)
    made.set_qform(qform, code=codes[1] if qform is not None else 0)
    made.header.set_xyzt_units("mm")
    return made


def overwritten(path, made, offset, value, dtype="<f4"):
    """Write it with one field of the raw header replaced."""
    made.to_filename(path)
    content = bytearray(path.read_bytes())
    new = np.array(value, dtype).tobytes()
    content[offset : offset + len(new)] = new
    path.write_bytes(content)
    return path


MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
PIXDIM, QFORM_CODE, SFORM_CODE = 76, 252, 254
"""Offsets in a NIfTI-1 header (nifti1.h)."""


@pytest.mark.parametrize("read", [read_nifti, read_labels, check_geometry])
def test_an_sform_and_a_qform_that_mirror_each_other_are_refused(tmp_path, read):
    affine = image().affine
    for number, (sform, qform) in enumerate(((affine, MIRROR @ affine), (MIRROR @ affine, affine))):
        path = tmp_path / f"{number}.nii.gz"
        stated(sform, qform).to_filename(path)
        with pytest.raises(UserError, match=r"sform .*\([LR] P S\).* qform \([LR] P S\)"):
            read(path)


def test_an_sform_and_a_qform_that_differ_otherwise_are_warned_of_and_the_sform_counts(tmp_path):
    affine = image().affine
    stated(affine, HALF_TURN @ affine).to_filename(tmp_path / "a.nii")
    (found,) = check_geometry(tmp_path / "a.nii")
    assert (found.level, found.check) == ("warn", "two_geometries")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").origin_mm, (-10, 20, 30), atol=1e-5)
    shifted = affine + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4])
    stated(affine, shifted).to_filename(tmp_path / "b.nii")
    assert [one.check for one in check_geometry(tmp_path / "b.nii")] == ["two_geometries"]
    stated(affine, affine + np.array([[0, 0, 0, 0.01], [0] * 4, [0] * 4, [0] * 4])).to_filename(tmp_path / "c.nii")
    assert check_geometry(tmp_path / "c.nii") == []


@pytest.mark.parametrize(
    ("unit", "mm", "shift_mm", "warned"), [("meter", 1000, 5, True), ("micron", 0.001, 0.1, False)]
)
def test_two_geometries_are_compared_in_mm(tmp_path, unit, mm, shift_mm, warned):
    sform, qform = image().affine.copy(), image().affine.copy()
    qform[0, 3] += shift_mm
    sform[:3] /= mm
    qform[:3] /= mm
    made = stated(sform, qform)
    made.header.set_xyzt_units(unit)
    made.to_filename(tmp_path / "a.nii")
    assert [one.check for one in check_geometry(tmp_path / "a.nii")] == ["two_geometries"] * warned


def test_one_form_alone_and_both_handed_qforms_are_read(tmp_path):
    for mirrored in (False, True):  # a qfac of -1
        affine = image().affine @ (np.diag([1.0, 1.0, -1.0, 1.0]) if mirrored else np.eye(4))
        for number, forms in enumerate(((affine, None), (None, affine), (affine, affine))):
            path = tmp_path / f"{number}.nii"
            made = stated(*forms)
            made.to_filename(path)
            assert check_geometry(path) == []
            volume = read_nifti(path)
            far = (-10 + 4.5, 20 + 8, 30 - 15 if mirrored else 30 + 15)
            np.testing.assert_allclose(placed(volume, (5, 4, 3)), far, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_spacing_that_a_qform_needs_and_has_not_is_refused(tmp_path, axis, value):
    made = stated(None, image().affine)
    path = overwritten(tmp_path / "a.nii", made, PIXDIM + 4 * axis, value)
    with pytest.raises(UserError, match="pixdim"):
        read_nifti(path)
    # With an sform nobody needs it.
    path = overwritten(tmp_path / "b.nii", stated(image().affine), PIXDIM + 4 * axis, value)
    np.testing.assert_allclose(read_nifti(path).spacing_mm, (3, 2, 1.5), atol=1e-5)
    assert check_geometry(path) == []


def test_other_fields_that_nibabel_repairs_without_a_word(tmp_path, capfd):
    affine = image().affine
    for name, offset, value, dtype in (
        ("sform_code", SFORM_CODE, 9, "<i2"),
        ("qform_code", QFORM_CODE, -1, "<i2"),
        (r"pixdim\[0\]", PIXDIM, -2.0, "<f4"),
    ):
        path = overwritten(tmp_path / "a.nii", stated(None, affine), offset, value, dtype)
        with pytest.raises(UserError, match=name):
            read_nifti(path)
    # NIfTI: a pixdim[0] of 0 is taken for 1.
    path = overwritten(tmp_path / "b.nii", stated(None, affine), PIXDIM, 0.0)
    np.testing.assert_allclose(read_nifti(path).direction, np.eye(3)[:, ::-1], atol=1e-6)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bits", [0, 8, 32])
@pytest.mark.parametrize(("made", "offset"), [(nibabel.Nifti1Image, 72), (nibabel.Nifti2Image, 14)])
def test_bits_per_voxel_that_contradict_the_datatype_are_refused(tmp_path, made, offset, bits):
    source = image()
    for stored, fits in ((16, True), (bits, False)):
        path = overwritten(tmp_path / "a.nii", made(source.dataobj, source.affine), offset, stored, "<i2")
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match=f"{bits} bits per voxel .bitpix"):
            read_nifti(path)


def test_a_pixdim_that_contradicts_the_sform_is_warned_of(tmp_path):
    path = overwritten(tmp_path / "a.nii", stated(image().affine), PIXDIM + 4, [1.0, 1.0, 1.0])
    (found,) = check_geometry(path)
    assert (found.level, found.check) == ("warn", "two_spacings")
    assert "1.5 x 2 x 3" in found.seen


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nii.bz2", ".NII", ".NII.GZ"])
def test_versions_byte_orders_and_suffixes(tmp_path, kind, suffix, order):
    straight = image()
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    kind(np.asarray(straight.dataobj), straight.affine, header).to_filename(tmp_path / f"a{suffix}")
    volume = read_nifti(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(volume.voxels, np.asarray(straight.dataobj).transpose(2, 1, 0))
    np.testing.assert_allclose(volume.spacing_mm, (3, 2, 1.5), atol=1e-5)


@pytest.mark.parametrize(("is_", "called"), list(itertools.permutations([".nii", ".nii.gz", ".nii.bz2"], 2)))
def test_a_wrong_suffix_is_named(tmp_path, is_, called):
    image().to_filename(tmp_path / f"a{is_}")
    (tmp_path / f"a{is_}").rename(tmp_path / f"b{called}")
    with pytest.raises(UserError, match=rf"ends in {is_}$"):
        read_nifti(tmp_path / f"b{called}")


def test_labels_stored_with_a_scale_are_whole(tmp_path):
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) * 10
    made = nibabel.Nifti1Image(values, image().affine)
    path = overwritten(tmp_path / "a.nii", made, 112, [0.1, 0.0])  # scl_slope, scl_inter
    np.testing.assert_array_equal(read_labels(path).voxels, (values // 10).transpose(2, 1, 0))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_damaged_headers_are_read_or_refused(tmp_path, kind, capfd):
    """400 headers with some bytes changed: no traceback, no word of nibabel's own."""
    kind(np.asarray(image().dataobj), image().affine).to_filename(tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(400):
        content = bytearray(whole)
        for place in random.integers(0, 540, 3):
            values = ([random.integers(256)], [0, 0, 192, 127], [255, 127], [0, 0])  # any, NaN, 32767, 0
            change = values[random.integers(4)]
            content[place : place + len(change)] = bytes(np.array(change, np.uint8))
        (tmp_path / "b.nii").write_bytes(content)
        for read in (read_nifti, check_geometry):
            with contextlib.suppress(UserError):
                read(tmp_path / "b.nii")
    assert capfd.readouterr().err == ""
