"""Lung beside the heart, and none in the abdomen or the head."""

import numpy as np
import pytest

from heartseg_jax.findings import WARN
from heartseg_jax.imaging import block_checks
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.dicom.study import read_contents
from heartseg_jax.imaging.lung import LEAST, lung_share
from heartseg_jax.imaging.nifti import read_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate


def read(path):
    volume, found = read_block(read_contents(path).candidates[0])
    return volume.voxels, volume.spacing_mm, {finding.check: finding.level for finding in found}


def round_field(hu):
    """Padding outside of the circle that fits into a slice."""
    rows, columns = (np.linspace(-1, 1, n) for n in hu.shape[1:])
    return np.where(np.hypot(rows[:, None], columns[None]) > 1, -1000, hu).astype(np.int16)


@pytest.mark.parametrize(("shape", "spacing"), [((24, 64, 64), (5.0, 4.0, 4.0)), ((6, 128, 128), (16.0, 2.0, 2.0))])
def test_phantoms_show_lung_whole_and_cropped(shape, spacing):
    for index in (2, 20):  # an adult and a child
        hu = generate(5, index, PhantomSpec(shape, spacing)).volume.voxels
        middle = hu[:, shape[1] // 6 : -shape[1] // 6, shape[2] // 6 : -shape[2] // 6]
        assert min(lung_share(part, spacing) for part in (hu, middle, round_field(middle))) > 4 * LEAST


def test_real_chests_show_lung_whole_and_cropped(shared):
    hu, spacing, found = read(shared / "data/dicom/chest_native/siemens_8mm.zip")
    assert "no_lung" not in found
    middle = hu[:, 110:400, 110:400]  # 187 mm
    assert min(lung_share(part, spacing) for part in (hu, middle, round_field(middle))) > 4 * LEAST
    volume, _ = patient_axial(read_nifti(shared / "data/heart_cta_volume/ct.nii.gz"))
    assert lung_share(volume.voxels, volume.spacing_mm) > 4 * LEAST
    for name in ("CT1_J2KR", "CTImage.dcm"):
        assert "no_lung" not in read(shared / "data/dicom/transfer_syntaxes" / name)[2]


def test_the_abdomen_and_the_head_show_none(shared):
    hu, spacing, found = read(shared / "data/dicom/siemens_series_j2k")
    assert found["no_lung"] == WARN
    assert lung_share(hu, spacing) < LEAST / 2  # although the couch is as dark as lung
    middle = hu[:, 110:300, 160:350]  # 186 mm
    assert max(lung_share(part, spacing) for part in (middle, round_field(middle))) < LEAST
    for name in ("transfer_syntaxes/CT2_J2KR", "odd/J2K_pixelrep_mismatch.dcm", "odd/693_J2KI.dcm"):  # heads
        assert read(shared / "data/dicom" / name)[2]["no_lung"] == WARN


def test_small_fields_and_large_pixels_are_not_asked():
    solid = np.full((20, 64, 64), 40, np.int16)
    solid[:, 20:40, 20:40] = 300

    def checks(spacing):
        return {finding.check for finding in block_checks.of_values(solid, spacing)}

    solid[0, :20] = -1000
    solid[1:, :10] = -1000
    assert "no_lung" in checks((2.0, 3.0, 3.0))
    assert "no_lung" not in checks((2.0, 2.0, 2.0))  # 128 mm
    assert "no_lung" not in checks((2.0, 7.0, 7.0))
