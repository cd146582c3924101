"""What a block of CT shows: contrast in blood or none, HU or none, and what it is fit for."""

import numpy as np
import pytest

from heartseg_jax.findings import REFUSE, WARN
from heartseg_jax.imaging import block_checks, hu_checks
from heartseg_jax.imaging.blood import blood_cm2
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.dicom.study import read_contents, read_study
from heartseg_jax.imaging.nifti import read_nifti
from heartseg_jax.imaging.phantom import contrast, generator
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate

GRIDS = [((32, 80, 80), (4.5, 3.0, 3.0)), ((6, 128, 128), (16.0, 2.0, 2.0)), ((24, 64, 64), (4.0, 4.0, 4.0))]
PATIENTS = (2, 3, 20, 21, 23)
"""Of population 5: venous, pulmonary, a child of two thirds the size, triphasic, coronary."""


def checks(hu, spacing_mm):
    return {finding.check: finding.level for finding in block_checks.of_values(hu, spacing_mm)}


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_every_phase_of_contrast_is_seen_and_none_where_there_is_none(shape, spacing, monkeypatch):
    draw, phases = contrast.draw_contrast, set()

    def native(rng, randomised):
        """The same patient without contrast: bones as they are, soft tissue as a scan without contrast shows it."""
        drawn = draw(rng, randomised)
        mean = drawn.mean.copy()
        mean[contrast.ID["blood_aa"] :] = 42
        mean[contrast.ID["myocardium"]], mean[contrast.ID["liver"]] = 48, 60
        return drawn._replace(mean=mean, streak_hu=0)

    for index in PATIENTS:
        monkeypatch.setattr(generator, "draw_contrast", draw)
        phantom = generate(5, index, PhantomSpec(shape, spacing))
        phases.add(phantom.description["phase"])
        assert "no_contrast" not in checks(phantom.volume.voxels, spacing), phantom.description
        monkeypatch.setattr(generator, "draw_contrast", native)
        plain = generate(5, index, PhantomSpec(shape, spacing)).volume.voxels
        assert (plain > 150).any(), "bones are there"
        assert checks(plain, spacing)["no_contrast"] == WARN, phantom.description
    assert phases == {name for name, *_ in contrast.PHASES}


def test_a_real_scan_without_contrast_at_several_slice_thicknesses(shared):
    (candidate,), *_ = read_contents(shared / "data/dicom/chest_native/siemens_8mm.zip")
    volume, found = read_block(candidate)
    assert {finding.check: finding.level for finding in found} == {"no_contrast": WARN}
    hu, spacing = volume.voxels, volume.spacing_mm
    assert blood_cm2(hu, spacing) < 1
    thick = (hu[0::2].astype(int) + hu[1::2]) // 2
    assert checks(thick.astype(np.int16), (16.0, *spacing[1:])) == {"no_contrast": WARN}
    small = hu[:, ::2, ::2].astype(float)
    between = np.repeat(small, 4, axis=0)[:-3]
    for k in range(1, 4):
        between[k::4] = small[:-1] + (small[1:] - small[:-1]) * k / 4
    fine = between.astype(np.int16)
    assert checks(fine, (2.0, spacing[1] * 2, spacing[2] * 2)) == {"no_contrast": WARN}
    assert all(blood_cm2(hu[z : z + 1], spacing) < 2 for z in range(0, 30, 3)), "nor in any slice by itself"


def test_real_scans_with_contrast(shared):
    (candidate,), *_ = read_contents(shared / "data/dicom/transfer_syntaxes/CT1_J2KR")
    assert [finding.check for finding in read_block(candidate)[1]] == ["padding"]  # one slice of the mediastinum
    assert "no_contrast" not in {f.check for f in read_study(shared / "data/dicom/siemens_series_j2k").findings}
    volume = read_nifti(shared / "data/heart_cta_volume/ct.nii.gz")
    assert "no_contrast" not in {finding.check for finding in block_checks.in_hu(volume)[1]}


def test_what_is_asked_of_values_is_asked_once_for_all():
    grey = np.random.default_rng(0).integers(0, 255, (4, 16, 16)).astype(np.int16)
    assert [f.check for f in hu_checks.of_pixels(grey, "HU")] == ["not_hu"]
    assert hu_checks.of_pixels(grey, "uint8") == []
    grey[:3] = 7
    (finding,) = hu_checks.of_pixels(grey, "uint8")
    assert (finding.level, finding.check) == (REFUSE, "constant")
    grey[2] = np.arange(256).reshape(16, 16)
    assert [f.level for f in hu_checks.of_pixels(grey, "uint8")] == [WARN]


FITNESS = [
    (300, (512, 512), (0.6, 0.4, 0.4), ("slices", "volumes", "valve")),
    (80, (512, 512), (1.5, 0.7, 0.7), ("slices", "volumes", "valve")),
    (60, (512, 512), (3.0, 0.7, 0.7), ("slices", "volumes")),
    (30, (512, 512), (8.0, 0.65, 0.65), ("slices",)),
    (3, (512, 512), (1.0, 0.5, 0.5), ("slices",)),
    (40, (256, 256), (1.0, 0.7, 0.7), ("slices", "valve")),  # 40 mm from end to end
    (40, (64, 64), (4.0, 6.0, 6.0), ("slices",)),
    (60, (16, 16), (2.0, 4.0, 4.0), ("slices",)),
    (1, (512, 512), (1.0, 0.5, 0.5), ()),
]


@pytest.mark.parametrize(("count", "shape", "spacing", "uses"), FITNESS)
def test_what_a_block_is_fit_for(count, shape, spacing, uses):
    found = block_checks.of_extent(count, shape, spacing)
    assert block_checks.fit_for(found) == uses
    said = block_checks.verdict(found)
    assert all((block_checks.USES[use] in said) == (use in uses) for use in block_checks.USES)
    assert (said == "not fit for use") == (not uses)
