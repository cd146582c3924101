"""From stored bits to HU: every way of storing gives the same values, and what cannot be trusted is refused by name."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.study import read_contents, read_study
from tests.dicom_writer import SERIES, axes, write_enhanced, write_series

SPACING = (4.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def hu():
    """A body of 40 HU with lungs of -850, chambers of 300 and a spine of 700 in air: 24 x 64 x 64, 4 x 3 x 3 mm."""
    z, y, x = np.mgrid[:24, :64, :64]
    block = np.full(z.shape, -1000, np.int16)
    block[((y - 32) / 27) ** 2 + ((x - 32) / 30) ** 2 < 1] = 40
    block[((y - 32) / 18) ** 2 + ((abs(x - 32) - 18) / 8) ** 2 < 1] = -850
    block[((y - 28) / 10) ** 2 + ((x - 34) / 12) ** 2 + ((z - 12) / 9) ** 2 < 1] = 300
    block[((y - 50) / 4) ** 2 + ((x - 32) / 5) ** 2 < 1] = 700
    return block + np.random.default_rng(0).integers(-20, 20, block.shape).astype(np.int16)


def checks(found):
    return {finding.check: finding.level for finding in found}


def write(folder, hu, edit=None, **how):
    return write_series(folder, hu, SPACING, edit=edit, **how)


def put(where=lambda z: True, **values):
    def edit(dataset, z):
        for name, value in values.items() if where(z) else ():
            setattr(dataset, name, value)

    return edit


def drop(name, where=lambda z: True):
    def edit(dataset, z):
        if where(z):
            delattr(dataset, name)

    return edit


def of(words):
    """What to give to the writer as HU so that it stores these words, 16 bits each."""
    return (np.asarray(words, np.int64) & 0xFFFF).astype(np.int32) - 1024


JUNK = 0x5


@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
@pytest.mark.parametrize(
    ("stored", "high", "junk"), [(12, 15, 0), (12, 15, JUNK), (12, 13, 0x4001), (16, 15, 0), (13, 14, 0x8001)]
)
def test_high_bit_says_where_the_value_lies(hu, tmp_path, signed, stored, high, junk):
    offset = 0 if signed else 1024
    words = (((hu.astype(np.int64) + offset) & ((1 << stored) - 1)) << (high + 1 - stored)) | junk

    def edit(dataset, z):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, high, signed
        dataset.RescaleIntercept = str(-offset)

    write(tmp_path, of(words), edit)
    np.testing.assert_array_equal(read_study(tmp_path).volume.voxels, hu)


def test_a_high_bit_that_contradicts_the_values_is_refused(hu, tmp_path):
    write(tmp_path / "low", hu, put(BitsStored=12, HighBit=15))  # but the values lie in the lowest bits
    with pytest.raises(UserError, match=r"CT1_0000\.dcm: its HighBit 15 contradicts its values"):
        read_study(tmp_path / "low")
    write(tmp_path / "rle", hu, put(BitsStored=12, HighBit=15), syntax=uid.RLELossless)
    write(tmp_path / "below", hu, put(lambda z: z == 9, BitsStored=16, HighBit=11))
    for name in ("rle", "below"):
        ((candidate,), *_) = read_contents(tmp_path / name)
        assert checks(candidate.findings)["high_bit"] == "refuse"


def test_a_file_of_several_frames_has_its_high_bit_too(hu, tmp_path):
    def edit(dataset):
        dataset.BitsStored, dataset.HighBit = 12, 15

    write_enhanced(tmp_path / "a.dcm", of((hu.astype(int) + 1024) << 4), SPACING, (0, 0, 0), axes(), edit=edit)
    np.testing.assert_array_equal(read_study(tmp_path / "a.dcm").volume.voxels, hu)


def test_slices_of_one_series_stored_in_different_ways(hu, tmp_path):
    """Signed beside unsigned, 12 beside 16 bits, compressed beside plain: each file is read by its own header."""

    def signed(dataset, z):
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"

    kinds = [
        (hu, None, uid.ExplicitVRLittleEndian),
        (of(hu), signed, uid.ImplicitVRLittleEndian),
        (hu, put(BitsStored=12, HighBit=11), uid.JPEG2000Lossless),
    ]
    for part, (values, edit, syntax) in enumerate(kinds):
        paths = write(tmp_path / "all" / str(part), values, edit, syntax=syntax)
        for z, path in enumerate(paths):
            if z % 3 != part:
                path.unlink()
    np.testing.assert_array_equal(read_study(tmp_path / "all").volume.voxels, hu)


@pytest.mark.parametrize("name", ["RescaleIntercept", "RescaleSlope"])
@pytest.mark.parametrize("where", [lambda z: z == 5, lambda z: z == 23, lambda z: z != 5], ids=["5", "last", "others"])
def test_a_slice_without_rescale_among_slices_with_one(hu, tmp_path, name, where):
    write(tmp_path, hu, drop(name, where))
    ((candidate,), *_) = read_contents(tmp_path)
    assert checks(candidate.findings)["missing_rescale"] == "refuse"


def test_a_slice_whose_own_rescale_makes_it_no_hu(hu, tmp_path):
    write(tmp_path / "a", hu, put(lambda z: z == 5, RescaleIntercept="0"))
    with pytest.raises(UserError, match=r"differ by 10\d\d HU.*CT1_0004\.dcm and CT1_0005\.dcm"):
        read_study(tmp_path / "a")
    write(tmp_path / "b", hu, put(lambda z: z > 20, RescaleSlope="-1"))
    with pytest.raises(UserError, match=r"differ by .*CT1_0020\.dcm and CT1_0021\.dcm"):
        read_study(tmp_path / "b")


@pytest.mark.parametrize(
    "values",
    [{"RescaleIntercept": "-524"}, {"RescaleSlope": "2"}, {"RescaleSlope": "0"}],
    ids=["500 HU brighter", "twice", "flat"],
)
@pytest.mark.parametrize("where", [lambda z: z == 0, lambda z: z == 5, lambda z: z >= 12], ids=["0", "5", "half"])
def test_a_slice_that_does_not_go_with_its_neighbours(hu, tmp_path, values, where):
    """Each slice by itself could be HU: fat is -100, lungs are -800."""
    write(tmp_path, hu, put(where, **values))
    with pytest.raises(UserError, match="are stored in different ways and differ by"):
        read_study(tmp_path)


@pytest.mark.parametrize("beside", [False, True], ids=["instead of slope", "beside slope"])
@pytest.mark.parametrize("where", [lambda z: True, lambda z: z == 5], ids=["all", "one"])
def test_a_table_instead_of_slope_and_intercept_is_refused(hu, tmp_path, beside, where):
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", np.arange(4096, dtype=np.uint16).tobytes())

    def edit(dataset, z):
        dataset.ModalityLUTSequence = Sequence([table] if where(z) else [])
        if where(z) and not beside:
            del dataset.RescaleSlope, dataset.RescaleIntercept

    write(tmp_path, hu, edit)
    ((candidate,), *_) = read_contents(tmp_path)
    assert checks(candidate.findings)["modality_lut"] == "refuse"


def test_frames_of_one_file_are_judged_each(hu, tmp_path):
    def rescale(slope, intercept, number):
        def edit(dataset):
            shared = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
            del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
            for z, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
                frame.PixelValueTransformationSequence = shared
                if z == number:
                    own = Dataset()
                    if slope:
                        own.RescaleSlope, own.RescaleIntercept = slope, intercept
                    frame.PixelValueTransformationSequence = Sequence([own])

        return edit

    def frame_type(dataset):
        kind = Dataset()
        kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "MIP"]
        dataset.PerFrameFunctionalGroupsSequence[7].CTImageFrameTypeSequence = Sequence([kind])

    order = np.random.default_rng(3).permutation(24)  # the writer's own
    to_store = hu.astype(np.int32)
    to_store[order[7]] = 2 * to_store[order[7]] + 1024  # the writer adds 1024 more
    write_enhanced(tmp_path / "own.dcm", to_store, SPACING, (0, 0, 0), axes(), edit=rescale("0.5", "-1024", 7))
    np.testing.assert_array_equal(read_study(tmp_path / "own.dcm").volume.voxels, hu)
    write_enhanced(tmp_path / "wrong.dcm", hu, SPACING, (0, 0, 0), axes(), edit=rescale("0.5", "-1024", 7))
    with pytest.raises(UserError, match=r"differ by .*wrong\.dcm, frame \d+ and .*frame \d+"):
        read_study(tmp_path / "wrong.dcm")
    for name, edit, check in (
        ("none.dcm", rescale("", "", 7), "missing_rescale"),
        ("mip.dcm", frame_type, "projection"),
    ):
        write_enhanced(tmp_path / name, hu, SPACING, (0, 0, 0), axes(), edit=edit)
        ((candidate,), *_) = read_contents(tmp_path / name)
        assert checks(candidate.findings)[check] == "refuse"


@pytest.mark.parametrize(
    ("values", "check", "level"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "projection", "refuse"),
        ({"SeriesDescription": "CTA MIP thick"}, "projection", "refuse"),
        ({"ImageType": ["DERIVED", "PRIMARY", "IODINE"]}, "not_hu_map", "refuse"),
        ({"RescaleType": "Z_EFF"}, "not_hu_map", "refuse"),
        ({"SeriesDescription": "CTA 70 keV"}, "monoenergetic", "refuse"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformatted", "warn"),
        ({"Modality": "MR"}, "not_ct", "refuse"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "monochrome1", "warn"),
    ],
)
@pytest.mark.parametrize("where", [lambda z: z == 0, lambda z: z == 13, lambda z: z > 6], ids=["0", "13", "from 7"])
def test_every_header_of_a_series_is_judged(hu, tmp_path, values, check, level, where):
    write(tmp_path, hu, put(where, **values))
    ((candidate,), *_) = read_contents(tmp_path)
    assert checks(candidate.findings)[check] == level
    assert f"{sum(map(where, range(24)))} of 24 slices" in next(f.seen for f in candidate.findings if f.check == check)


def test_case_does_not_matter(hu, tmp_path):
    write(tmp_path, hu, put(Modality="ct", PhotometricInterpretation="Monochrome2"))
    np.testing.assert_array_equal(read_study(tmp_path).volume.voxels, hu)


@pytest.mark.parametrize("is_implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("preamble", [False, True], ids=["bare", "preamble"])
def test_files_without_a_transfer_syntax_are_read_as_the_parser_finds_them(hu, tmp_path, is_implicit, preamble):
    for path in write(tmp_path, hu):
        dataset = pydicom.dcmread(path)
        dataset.file_meta = FileMetaDataset()
        dataset.preamble = b"\0" * 128 if preamble else None
        if preamble:
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        pydicom.dcmwrite(path, dataset, implicit_vr=is_implicit, little_endian=True, enforce_file_format=False)
    study = read_study(tmp_path)
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert checks(study.findings)["guessed_syntax"] == "note"


def test_a_copy_is_one_only_if_its_pixels_are_the_same(hu, tmp_path):
    write(tmp_path / "b", hu)
    shutil.copytree(tmp_path / "b", tmp_path / "packed")
    write(tmp_path / "packed", hu, syntax=uid.RLELossless)  # the same pixels, in another transfer syntax
    shutil.copytree(tmp_path / "b", tmp_path / "packed" / "again")
    study = read_study(tmp_path / "packed")
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert checks(study.findings)["copies"] == "warn"

    for name, part in {"all": hu, "one": hu[5:6]}.items():
        shutil.copytree(tmp_path / "b", tmp_path / name / "b")
        bright = put(SOPInstanceUID=f"{SERIES}.1.6") if name == "one" else None
        origin = (-60.0, -75.5, -200.0 + (20 if name == "one" else 0))
        write(tmp_path / name / "a", part + 300, bright, origin_mm=origin)
        with pytest.raises(UserError, match=r"one SOPInstanceUID and other pixels, such as a/.* and b/"):
            read_study(tmp_path / name)


def test_one_instance_in_two_series_is_no_copy(hu, tmp_path):
    write(tmp_path / "a", hu)
    write(tmp_path / "b", hu + 300, put(SeriesInstanceUID=f"{SERIES}.9"))
    candidates, *_ = read_contents(tmp_path)
    assert [len(candidate.frames) for candidate in candidates] == [24, 24]
    np.testing.assert_array_equal(read_study(tmp_path, f"{SERIES}.9").volume.voxels, hu + 300)


def test_a_screenshot_in_the_series_is_left_out(hu, tmp_path):
    paths = write(tmp_path, hu)
    shot = pydicom.dcmread(paths[0])
    shot.SOPClassUID, shot.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    shot.SamplesPerPixel, shot.PhotometricInterpretation, shot.PlanarConfiguration = 3, "RGB", 0
    shot.BitsAllocated, shot.BitsStored, shot.HighBit, shot.Rows, shot.Columns = 8, 8, 7, 10, 10
    shot.PixelData = bytes(300)
    del shot.RescaleSlope, shot.RescaleIntercept
    shot.save_as(tmp_path / "in_a_place.dcm")
    assert checks(read_study(tmp_path).findings)["other_objects"] == "warn"
    del shot.ImagePositionPatient, shot.ImageOrientationPatient, shot.PixelSpacing
    shot.save_as(tmp_path / "in_a_place.dcm")
    study = read_study(tmp_path)
    np.testing.assert_array_equal(study.volume.voxels, hu)
    assert checks(study.findings)["other_objects"] == "note"


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("PixelSpacing", b"3,0\\3,0 ", "PixelSpacing is not 2 numbers: it is written with a decimal comma"),
        ("RescaleIntercept", b"-1024,0 ", "RescaleIntercept is not a number: it is written with a decimal comma"),
        ("RescaleIntercept", b"-1024\\-1024 ", "RescaleIntercept is not a number"),
        ("PixelSpacing", b"3_0\\3_0 ", "PixelSpacing is not 2 numbers"),
    ],
)
def test_numbers_that_are_none_are_named_where_no_image_is_left(hu, tmp_path, name, raw, said):
    tag = pydicom.tag.Tag(name)

    def edit(dataset, z):
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(raw), raw, 0, False, True, True)

    write(tmp_path, hu[:3], edit)
    with pytest.raises(UserError, match=f"holds no DICOM image: 3 damaged files.*{said}"):
        read_study(tmp_path)


def test_numbers_of_other_representations(hu, tmp_path):
    def edit(dataset, z):
        for name, vr, value in (
            ("RescaleIntercept", "SS", np.int16(-1024).tobytes()),
            ("RescaleSlope", "FL", np.float32(1).tobytes()),
            ("PixelSpacing", "FD", np.array([3.0, 3.0]).tobytes()),
        ):
            tag = pydicom.tag.Tag(name)
            dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True, True)

    write(tmp_path, hu, edit)
    study = read_study(tmp_path)
    np.testing.assert_array_equal(study.volume.voxels, hu)
    np.testing.assert_allclose(study.volume.spacing_mm, SPACING)


def test_padding_in_the_middle_is_a_warning(hu, tmp_path):
    def edit(dataset, z):
        dataset.add_new("PixelPaddingValue", "US", 0)
        dataset.add_new("PixelPaddingRangeLimit", "US", 1100)  # up to 76 HU: all of the body

    write(tmp_path, hu, edit)
    study = read_study(tmp_path)
    assert checks(study.findings)["padding_inside"] == "warn"
    round_field = hu.copy()
    round_field[:, :3] = -1024
    write(tmp_path / "round", round_field, put(PixelPaddingValue=0))
    assert checks(read_study(tmp_path / "round").findings)["padding"] == "note"
