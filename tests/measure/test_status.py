"""Which answer a structure gets: the rules, and real studies from reading to the answer."""

from dataclasses import replace

import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.block_checks import EXCLUDES, fit_for
from heartseg_jax.imaging.dicom.study import read_study
from heartseg_jax.imaging.intake import Intake, of_volume
from heartseg_jax.imaging.nifti import read_nifti
from heartseg_jax.measure.report import table
from heartseg_jax.measure.results import ABSENT, MEASURED, PARTIAL, REFUSED
from heartseg_jax.measure.status import CUT, RULES, answer
from heartseg_jax.measure.volumes import measure, released
from tests.measure.predictions import predicted, unchecked

FOUND, NOT_FOUND = (1000, 300.0, 0.0), (0, None, None)
TOUCHING = (1000, 300.0, 0.02)


def of(structure, *checks, agreement=None, spacing_known=True, is_heart=True):
    findings = [Finding(WARN, check, f"seen by {check}") for check in checks]
    return answer(*structure, agreement, findings, spacing_known, is_heart)


def test_the_rules_are_those_of_check():
    """What `check` calls unfit for whole-heart volumes refuses at least what is cut; nothing else refuses."""
    assert set(RULES) == {check for check, uses in EXCLUDES.items() if "volumes" in uses}
    assert {check for check, rule in RULES.items() if rule.refuses == CUT} == {"small_field", "short_block"}


@pytest.mark.parametrize("check", RULES)
def test_each_check(check):
    only_cut = check in ("small_field", "short_block")
    assert of(TOUCHING, check).status == REFUSED
    assert check in of(TOUCHING, check).reason
    assert of(FOUND, check).status == (MEASURED if only_cut else REFUSED)
    assert of(NOT_FOUND, check).status == (ABSENT if only_cut else REFUSED)


@pytest.mark.parametrize(
    ("structure", "how", "status", "withheld"),
    [
        (FOUND, {}, MEASURED, False),
        (TOUCHING, {}, PARTIAL, False),
        (NOT_FOUND, {}, ABSENT, False),
        (FOUND, {"agreement": 0.79}, MEASURED, False),
        (FOUND, {"agreement": 0.49}, REFUSED, True),
        (TOUCHING, {"agreement": 0.51}, PARTIAL, False),
        (NOT_FOUND, {"agreement": 0.0}, REFUSED, True),
        (FOUND, {"spacing_known": False}, REFUSED, False),
        (NOT_FOUND, {"spacing_known": False}, ABSENT, False),
        ((1000, None, 0.0), {}, MEASURED, False),
        ((1000, -20.0, 0.0), {}, REFUSED, True),
        ((1000, 1600.0, 0.0), {}, REFUSED, True),
    ],
)
def test_each_answer(structure, how, status, withheld):
    found = of(structure, **how)
    assert (found.status, found.withheld) == (status, withheld)
    assert bool(found.reason) == (status != MEASURED)


def test_blood_and_lung_are_asked_of_the_heart_only():
    for check in ("no_contrast", "no_lung"):
        assert of(FOUND, check, is_heart=False).status == MEASURED
    assert of((1000, -20.0, 0.0), is_heart=False).status == MEASURED
    for check in set(RULES) - {"no_contrast", "no_lung"}:
        assert of(TOUCHING, check, is_heart=False).status == REFUSED


def test_a_tumour_in_a_scan_without_contrast_is_measured():
    found = [Finding(WARN, "no_contrast", "no blood is bright"), Finding(WARN, "no_lung", "no lung is there")]
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[8:16, 8:16, 8:16] = 1
    made = unchecked(labels, hu=np.full(labels.shape, -20, np.int16), findings=tuple(found))
    assert measure(made).structures[0].withheld
    (row,) = measure(replace(made, contract=replace(made.contract, task="tumour"))).structures
    assert (row.status, row.withheld, row.voxels) == (MEASURED, False, 512)


def test_of_several_reasons_the_gravest_is_given():
    found = of(FOUND, "coarse_slices", "no_contrast", spacing_known=False)
    assert found.withheld
    assert "no_contrast" in found.reason


def ball(volume, label=3, radius_mm=20.0, centre=(0.5, 0.5, 0.5)):
    """A ball of a label, as a model may put it anywhere."""
    axes = [
        (np.arange(n) - n * middle) * mm
        for n, middle, mm in zip(volume.voxels.shape, centre, volume.spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return label * (z**2 + y**2 + x**2 < radius_mm**2).astype(np.uint8)


def test_the_upper_abdomen_gets_no_volume_and_says_why(shared):
    study = read_study(shared / "data/dicom/siemens_series_j2k")
    prediction = predicted(Intake("dicom", study.volume, study.findings), ball(study.volume))
    found = measure(prediction)
    assert {row.status for row in found.structures} == {REFUSED}
    assert all("no lung" in row.reason for row in found.structures)
    assert {text.partition(":")[0] for text in found.warnings} >= {"no_lung", "short_block", "few_structures"}
    assert not released(prediction, found).labels.any()
    assert "volumes" not in fit_for(study.findings)
    assert "no lung" in table(found)


def test_a_chest_without_contrast_gets_no_volume_and_says_why(shared):
    study = read_study(shared / "data/dicom/chest_native/siemens_8mm.zip")
    prediction = predicted(Intake("dicom", study.volume, study.findings), ball(study.volume))
    found = measure(prediction)
    assert {row.status for row in found.structures} == {REFUSED}
    assert all("contrast" in row.reason for row in found.structures)
    assert {text.partition(":")[0] for text in found.warnings} >= {"no_contrast", "coarse_slices"}
    assert fit_for(study.findings) == ("slices",)


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "rtdose.dcm"])
def test_what_is_no_ct_of_a_heart_is_refused_on_reading(shared, name):
    with pytest.raises(UserError):
        read_study(shared / "data/dicom/odd" / name)


def test_a_cta_of_the_chest_is_measured(shared):
    intake = of_volume(read_nifti(shared / "data/heart_cta_volume/ct.nii.gz"))
    centre = (0.36, 0.5, 0.5)  # in the heart, found by eye
    found = measure(predicted(intake, ball(intake.volume, centre=centre)))
    row = found.of("left_ventricle")
    assert row.status == MEASURED
    assert row.volume_ml == pytest.approx(4 / 3 * np.pi * 2**3, rel=0.01)
    assert [text for text in found.warnings if not text.startswith(("few_structures", "dim_blood"))] == []
    assert {one.status for one in found.structures} == {MEASURED, ABSENT}
