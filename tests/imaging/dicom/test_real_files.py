"""Every file of the DICOM test set and what must come of it: HU with these statistics, or this finding.

The statistics were taken from pydicom's pixels by numpy alone: slope and intercept applied, padding and what lies
below -1100 set to air.
"""

import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.dicom.study import read_contents, read_study

HU = {
    # file: (lowest, highest, mean) HU
    "odd/693_J2KI.dcm": (-1100, 1812, -599.017),
    "odd/CT_small.dcm": (-896, 1167, -119.074),
    "odd/J2K_pixelrep_mismatch.dcm": (-1047, 1896, -443.852),
    "transfer_syntaxes/CT1_J2KR": (-1024, 1254, -440.691),
    "transfer_syntaxes/CT2_J2KR": (-1040, 1433, -529.408),
    "transfer_syntaxes/CTImage.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm": (
        -1024,
        1378,
        -518.464,
    ),
    "transfer_syntaxes/CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm": (
        -1024,
        1378,
        -518.464,
    ),
    "transfer_syntaxes/CTImage.dcm_JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91.dcm": (-1027, 1377, -518.510),
    "transfer_syntaxes/CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm": (-1024, 1377, -518.463),
    "transfer_syntaxes/CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm": (-1060, 1349, -531.385),
    "transfer_syntaxes/CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2.dcm": (-1024, 1378, -518.464),
    "transfer_syntaxes/CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm": (-1024, 1378, -518.464),
}
REFUSED = {
    # file: the check that refuses it
    "odd/ExplVR_BigEnd.dcm": "not_ct",
    "odd/JPEG-lossy.dcm": "not_ct",
    "odd/JPEG2000-embedded-sequence-delimiter.dcm": "not_ct",
    "odd/JPEG2000.dcm": "not_ct",
    "odd/JPEGLSNearLossless_16.dcm": "not_ct",
    "odd/JPGExtended.dcm": "not_ct",
    "odd/MR_small.dcm": "not_ct",
    "odd/MR_small_RLE.dcm": "not_ct",
    "odd/MR_small_jpeg_ls_lossless.dcm": "not_ct",
    "odd/MR_small_padded.dcm": "not_ct",
    "odd/MR_truncated.dcm": "not_ct",
    "odd/SC_rgb_jpeg_dcmd.dcm": "not_ct",
    "odd/SC_rgb_rle_16bit.dcm": "not_ct",
    "odd/examples_overlay.dcm": "not_ct",
    "odd/examples_palette.dcm": "not_ct",
    "odd/examples_ybr_color.dcm": "not_ct",
    "odd/image_dfl.dcm": "not_ct",
    "odd/meta_missing_tsyntax.dcm": "not_ct",
    "odd/rtdose.dcm": "not_ct",
    "transfer_syntaxes/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": "not_hu_map",
    "transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm": "not_ct",
    "transfer_syntaxes/no-pixel-spacing.dcm": "not_ct",
}
NO_IMAGE = {
    # file: what is said of it
    "odd/badVR.dcm": "its NumberOfFrames is not a number",
    "odd/empty_charset_LEI.dcm": "without an image",
    "odd/liver_1frame.dcm": "it has 1 frames and positions of 3",
    "odd/no_meta.dcm": "not DICOM",
    "odd/no_meta_group_length.dcm": "without an image",
    "odd/rtplan.dcm": "without an image",
    "odd/rtplan_truncated.dcm": "without an image",
    "odd/rtstruct.dcm": "1 structure set",
    "transfer_syntaxes/no-pixel-data.dcm": "without an image",
}
NO_DECODER = {
    # file: the transfer syntax that is named
    "transfer_syntaxes/CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "JPEG Full Progression",
    "transfer_syntaxes/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm": "JPEG Extended",
    "transfer_syntaxes/CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": "JPEG Spectral Selection",
}


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "dicom"


def test_no_file_is_without_its_row(folder):
    there = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")}
    series = {name for name in there if name.startswith("siemens_series_j2k/")}
    assert len(series) == 20
    assert there - series - {"chest_native/siemens_8mm.zip"} == {*HU, *REFUSED, *NO_IMAGE, *NO_DECODER}


@pytest.mark.parametrize(("name", "expected"), HU.items(), ids=HU)
def test_ct_is_read_in_hu(folder, name, expected):
    (candidate,), *_ = read_contents(folder / name)
    volume, _ = read_block(candidate)
    hu = volume.voxels
    assert (int(hu.min()), int(hu.max())) == expected[:2]
    assert hu.mean() == pytest.approx(expected[2], abs=1e-3)
    # A slice alone is read, and is no study.
    assert {f.check: f.level for f in candidate.findings}["too_few_slices"] == "refuse"
    with pytest.raises(UserError, match="a single slice"):
        read_study(folder / name)


@pytest.mark.parametrize(("name", "check"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_ct_in_hu_is_refused(folder, name, check):
    (candidate,), *_ = read_contents(folder / name)
    assert {f.check: f.level for f in candidate.findings}[check] == "refuse"
    with pytest.raises(UserError):
        read_study(folder / name)


@pytest.mark.parametrize(("name", "said"), NO_IMAGE.items(), ids=NO_IMAGE)
def test_what_holds_no_image_is_left_out_and_said(folder, name, said):
    candidates, found, *_ = read_contents(folder / name)
    assert candidates == []
    assert any(said in finding.shown for finding in found)
    with pytest.raises(UserError):
        read_study(folder / name)


@pytest.mark.parametrize(("name", "syntax"), NO_DECODER.items(), ids=NO_DECODER)
def test_what_cannot_be_decoded_names_the_syntax_and_the_plugin(folder, name, syntax):
    (candidate,), *_ = read_contents(folder / name)
    with pytest.raises(UserError, match=f"no decoder for its transfer syntax {syntax}.*; plugin: "):
        read_block(candidate)


def test_a_real_series(folder):
    study = read_study(folder / "siemens_series_j2k")
    volume = study.volume
    # From the headers by eye: z from -804.5 to -766.5 in steps of 2 mm, although the slices are 3 mm thick.
    assert volume.voxels.shape == (20, 512, 512)
    np.testing.assert_allclose(volume.spacing_mm, (2, 0.9765625, 0.9765625))
    np.testing.assert_allclose(volume.origin_mm, (-249.51171875, -437.51171875, -804.5))
    assert (int(volume.voxels.min()), int(volume.voxels.max())) == (-1024, 1839)
    assert volume.voxels.mean() == pytest.approx(-624.126, abs=1e-3)
    assert {f.check for f in study.findings} == {"same_instance", "short_block", "no_lung"}


def test_a_real_series_without_contrast_in_a_zip(folder):
    study = read_study(folder / "chest_native" / "siemens_8mm.zip")
    volume = study.volume
    assert volume.voxels.shape == (30, 512, 512)
    np.testing.assert_allclose(volume.spacing_mm, (8, 0.646484375, 0.646484375))
    np.testing.assert_allclose(volume.origin_mm, (-173.1767578125, -294.1767578125, 80))
    assert (int(volume.voxels.min()), int(volume.voxels.max())) == (-1024, 1548)
    assert volume.voxels.mean() == pytest.approx(-535.668, abs=1e-3)
