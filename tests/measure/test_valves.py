"""Valves of labels: a known annulus on grids of every kind, and a reason instead of a number where there is none."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.findings import NOTE, WARN, Finding
from heartseg_jax.imaging.orientation import TARGET
from heartseg_jax.imaging.phantom.annulus import AnnulusSpec, draw_pose, make_annulus
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.border import seen_pixel_mm
from heartseg_jax.measure.report import table
from heartseg_jax.measure.results import MEASURED, REFUSED
from heartseg_jax.measure.septal_offset import septal_offsets
from heartseg_jax.measure.valves import UNCERTAIN, valves_of_labels
from heartseg_jax.measure.volumes import measure
from tests.measure.predictions import of_phantom, unchecked

SPEC = AnnulusSpec(22.0, 28.0, 5.0)
POSE = draw_pose(np.random.default_rng(3))
OBLIQUE = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]


@pytest.fixture(scope="module")
def ring():
    """An annulus of 22 x 28 mm in voxels of 1 mm; not to be changed."""
    return make_annulus(SPEC, POSE)


def mitral(volume, labels=None, **options):
    labels = volume.voxels if labels is None else labels
    return valves_of_labels(volume, labels, **options).mitral


def check(found, made, mm, area):
    """A measurement against the truth: places and diameters in mm, the area as a share."""
    own = {name: quantity.value for name, quantity in found.quantities.items()}
    towards, across, along = ((made.curve_mm - made.curve_mm.mean(axis=0)) @ POSE.T).T
    assert np.linalg.norm(found.centre_mm - made.curve_mm.mean(axis=0)) < mm
    assert np.degrees(np.arccos(found.normal @ made.flow)) < 2
    assert found.septal @ made.septal > np.cos(np.radians(12))
    assert own["septolateral_mm"] == pytest.approx(np.ptp(towards), abs=mm)
    assert own["intercommissural_mm"] == pytest.approx(np.ptp(across), abs=mm)
    assert own["height_mm"] == pytest.approx(np.ptp(along), abs=mm)
    flat = np.stack([towards, across], axis=1)
    after = np.roll(flat, -1, axis=0)
    true = abs((flat[:, 0] * after[:, 1] - flat[:, 1] * after[:, 0]).sum()) / 200
    assert own["area_cm2"] == pytest.approx(true, rel=area)
    for quantity in found.quantities.values():
        assert quantity.low <= quantity.value <= quantity.high


def test_a_saddle_and_a_d(ring):
    found = mitral(ring.volume)
    assert (found.status, found.reason) == (MEASURED, "")
    check(found, ring, 1.0, 0.06)
    away = np.linalg.norm(found.curve_mm[:, None] - ring.curve_mm[None, ::4], axis=2).min(axis=1)
    assert away.max() < 1.2


@pytest.mark.parametrize(("spacing", "direction"), [((1.0, 1.0, 1.0), OBLIQUE), ((2.0, 0.8, 0.8), None)])
def test_oblique_and_anisotropic_grids(spacing, direction):
    made = make_annulus(SPEC, POSE, spacing, direction, (6.3, -4.2, 9.1))
    found = mitral(made.volume, repeated=False)
    assert found.status == MEASURED
    check(found, made, 1.5, 0.08)


def test_the_tolerance_hardly_matters(ring):
    alone = {"barred": {"tricuspid": "-"}, "repeated": False, "resamples": 0}
    found = [mitral(ring.volume, tolerance_mm=mm, **alone) for mm in (0.6, 1.5)]
    areas = [one.quantities["area_cm2"].value for one in found]
    assert areas[0] == pytest.approx(areas[1], rel=0.02)


def test_coarse_slices_are_said_and_measured():
    made = make_annulus(SPEC, POSE, (3.0, 1.0, 1.0))
    found = mitral(made.volume)
    assert (found.status, "3 mm" in found.reason) == (UNCERTAIN, True)
    assert found.quantities["area_cm2"].value > 0


def test_the_tricuspid_valve_is_measured_in_the_same_way(ring):
    swap = np.array([0, 1, 4, 5, 2, 3], np.uint8)
    found = valves_of_labels(ring.volume, swap[ring.volume.voxels], repeated=False)
    assert found.mitral.status == REFUSED
    assert found.septal_offset_mm is None
    assert found.tricuspid.status == MEASURED
    assert {"major_mm", "minor_mm"} <= set(found.tricuspid.quantities)  # no left side, so no septum
    assert np.linalg.norm(found.tricuspid.centre_mm - ring.curve_mm.mean(axis=0)) < 1


def cut_at(volume, place):
    """The part of a volume above the slice that is nearest to a place, so that the border cuts the valve there."""
    k = round(place[2] - volume.origin_mm[2])
    return dataclasses.replace(
        volume, voxels=volume.voxels[k:], origin_mm=(*volume.origin_mm[:2], volume.origin_mm[2] + k)
    )


def degenerate(ring):
    volume = ring.volume
    voxels = volume.voxels
    yield "absent", volume, np.where(voxels == 2, 0, voxels), "left_atrium"
    apart = np.where(voxels == 2, 0, voxels)
    apart[-8:, :8, :8] = 2
    yield "apart", volume, apart, "touch"
    three = np.where(voxels == 2, 0, voxels)
    edge = np.argwhere((voxels[:, :, 1:] == 2) & (voxels[:, :, :-1] == 3))
    z, y, x = edge[len(edge) // 2]
    three[z, y, x + 1 : x + 4] = 2
    yield "three voxels", volume, three, "cm2"
    yield "one to six", dataclasses.replace(volume, spacing_mm=(3.0, 0.5, 0.5)), voxels, "3 mm"
    yield "coarse", dataclasses.replace(volume, spacing_mm=(6.0, 2.0, 2.0)), voxels, "6 mm"
    part = cut_at(volume, ring.curve_mm.mean(axis=0))
    yield "cut", part, part.voxels, "border"
    middle = len(voxels) // 2
    yield "single", dataclasses.replace(volume, voxels=voxels[:1]), voxels[middle : middle + 1], "slice"


@pytest.mark.parametrize("number", range(7))
def test_degenerate_labels_get_a_reason_and_no_number(ring, number):
    name, volume, labels, said = list(degenerate(ring))[number]
    found = mitral(volume, np.ascontiguousarray(labels))
    assert found.status == REFUSED, name
    assert said in found.reason
    assert not found.quantities
    assert (found.centre_mm, found.normal, found.curve_mm) == (None, None, None)


def test_a_prediction_bars_and_doubts_a_valve(ring):
    labels = ring.volume.voxels
    without = unchecked(labels, findings=(Finding(WARN, "no_contrast", "no chamber is bright"),))
    assert "left_atrium cannot be trusted" in measure(without).mitral.reason
    few = unchecked(labels, findings=(Finding(WARN, "too_few_slices", "only 6 slices"),))
    assert (measure(few).mitral.status, measure(few).mitral.reason) == (REFUSED, "only 6 slices")
    agreement = np.array([1, 1, 0.7, 1, 1, 1, 1, 1, 1.0])
    noted = unchecked(labels, findings=(Finding(NOTE, "coarse_for_valve", "-"),), agreement=agreement)
    found = measure(noted)
    assert (found.mitral.status, "left_atrium (mean pairwise Dice 0.70)" in found.mitral.reason) == (UNCERTAIN, True)
    assert "mitral valve: " in table(found)


def with_input(prediction, **changes):
    contract = prediction.contract
    return dataclasses.replace(
        prediction, contract=dataclasses.replace(contract, input=dataclasses.replace(contract.input, **changes))
    )


def test_the_pixels_that_the_network_sees_by_hand():
    labels = np.zeros((4, 100, 50), np.uint8)
    labels[1:3, 20:52, 10:30] = 3
    prediction = unchecked(labels, (5.0, 1.2, 0.8))
    assert seen_pixel_mm(with_input(prediction, size=40)) == pytest.approx(3.0)  # 2.5 rows of 1.2 mm
    assert seen_pixel_mm(with_input(prediction, size=40, mm_per_pixel=1.7)) == pytest.approx(1.7)
    # 32 rows fill half of the square: 64 of them on 40 pixels, 1.6 of 1.2 mm.
    assert seen_pixel_mm(with_input(prediction, size=40, closer=(0.25, 0.5))) == pytest.approx(1.92)
    assert seen_pixel_mm(with_input(prediction, size=40, mm_per_pixel=1.7, closer=(0.5,))) == pytest.approx(1.7)
    turned = unchecked(labels.transpose(2, 0, 1), (0.8, 5.0, 1.2), direction=TARGET[:, [2, 0, 1]])
    assert seen_pixel_mm(with_input(turned, size=40)) == pytest.approx(3.0)


def test_labels_of_a_network_that_saw_too_little_detail_are_uncertain(ring):
    given = unchecked(ring.volume.voxels)
    longest = max(ring.volume.voxels.shape)
    fine, coarse = (measure(with_input(given, size=size)).mitral for size in (longest, longest // 3))
    assert (fine.status, fine.reason) == (MEASURED, "")
    assert (coarse.status, "the model sees pixels of 3 mm" in coarse.reason) == (UNCERTAIN, True)
    assert coarse.quantities["area_cm2"].value == fine.quantities["area_cm2"].value


def test_unknown_spacing_refuses_both(phantom):
    prediction = of_phantom(phantom)
    intake = dataclasses.replace(prediction.intake, spacing_known=False)
    found = measure(dataclasses.replace(prediction, intake=intake))
    assert {found.mitral.status, found.tricuspid.status} == {REFUSED}
    assert "spacing" in found.mitral.reason


def test_the_septal_offset_of_two_rings_by_hand():
    angles = 2 * np.pi * np.arange(90) / 90
    flat = np.stack([15 * np.cos(angles), 15 * np.sin(angles), 0 * angles], axis=1)
    lower = flat + [34.0, 0, -7.0]
    assert septal_offsets(flat[None], lower[None], np.array([0, 0, -80.0])) == pytest.approx([7], abs=0.01)
    assert septal_offsets(lower[None], flat[None], np.array([34, 0, -80.0])) == pytest.approx([-7], abs=0.01)


def test_a_block_of_nothing_is_refused():
    volume = Volume(np.zeros((8, 8, 8), np.uint8), (1.0, 1.0, 1.0))
    found = valves_of_labels(volume, volume.voxels)
    assert (found.mitral.status, found.tricuspid.status, found.septal_offset_mm) == (REFUSED, REFUSED, None)
