"""Measurements against values worked out by hand, and against scikit-image on phantoms."""

import dataclasses

import numpy as np
import pytest
from skimage.measure import regionprops

from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.results import ABSENT, MEASURED, PARTIAL, REFUSED
from heartseg_jax.measure.volumes import measure, released
from tests.measure.predictions import CONTRACT, of_phantom, predicted, unchecked
from tests.preprocess.specs import spec

LV = "left_ventricle"


def block(shape=(20, 24, 28), start=(5, 6, 7), size=(4, 5, 6), label=3):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return labels


def test_a_block_of_known_voxels():
    hu = np.full((20, 24, 28), -50, np.int16)
    hu[5:9, 6:11, 7:10] = 200  # half of the block's 4 x 5 x 6 voxels
    hu[5:9, 6:11, 10:13] = 300
    row = measure(unchecked(block(), (2.5, 0.5, 0.8), hu)).of(LV)
    assert (row.status, row.reason, row.voxels) == (MEASURED, "", 120)
    assert row.volume_ml == pytest.approx(120 * 2.5 * 0.5 * 0.8 / 1000)
    assert (row.mean_hu, row.sd_hu) == (250, 50)
    assert row.extent_mm == pytest.approx((6 * 0.8, 5 * 0.5, 4 * 2.5))  # right-left, anterior-posterior, up-down
    assert row.cut_face_share == 0


def test_extents_are_along_the_patient_axes_whatever_the_order_and_the_angle():
    cosine, sine = np.cos(np.radians(30)), np.sin(np.radians(30))
    # Voxel axis 0 runs to the right, axis 1 upwards, axis 2 to the front.
    turned = np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    row = measure(unchecked(block(), (2.0, 3.0, 5.0), direction=turned)).of(LV)
    assert row.extent_mm == pytest.approx((4 * 2, 6 * 5, 5 * 3))
    # Turned by 30 degrees about the patient's long axis, a box of a x b reaches a cos + b sin.
    oblique = np.array([[0, -sine, cosine], [0, cosine, sine], [1, 0, 0]])
    row = measure(unchecked(block(), (2.0, 3.0, 5.0), direction=oblique)).of(LV)
    a, b = 6 * 5, 5 * 3
    assert row.extent_mm == pytest.approx((a * cosine + b * sine, a * sine + b * cosine, 4 * 2))


def test_extents_of_an_oblique_shape_are_those_of_all_its_voxels():
    rng = np.random.default_rng(3)
    labels = np.zeros((9, 11, 13), np.uint8)
    labels[2:8, 3:9, 2:11] = 3 * (rng.random((6, 6, 9)) < 0.3)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    spacing = np.array([2.0, 0.7, 1.1])
    corners = np.argwhere(labels == 3)[:, None] + np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), -1).reshape(-1, 3)
    places = (corners * spacing).reshape(-1, 3) @ q.T
    row = measure(unchecked(labels, tuple(spacing), direction=q)).of(LV)
    assert row.extent_mm == pytest.approx(np.ptp(places, axis=0))


def test_faces_on_the_border_counted_by_hand():
    # 4 x 5 x 6 voxels have 2 (4*5 + 5*6 + 4*6) = 148 faces; in the corner of the block, half of them are cut.
    row = measure(unchecked(block(start=(0, 0, 0)))).of(LV)
    assert (row.status, row.cut_face_share) == (PARTIAL, pytest.approx(74 / 148))
    assert "lower bound" in row.reason
    row = measure(unchecked(block(start=(16, 6, 7)))).of(LV)  # its last slice is the block's: 5 x 6 faces
    assert row.cut_face_share == pytest.approx(30 / 148)
    # A neighbour takes the place of the background, not of the surface: 4 x 5 faces towards it still count.
    labels = block(start=(0, 0, 0))
    labels[0:4, 0:5, 6] = 2
    found = measure(unchecked(labels))
    assert found.of(LV).cut_face_share == pytest.approx(74 / 148)
    assert found.of("left_atrium").cut_face_share == pytest.approx((5 + 4) / (2 * (4 * 5 + 4 + 5)))


def test_the_border_of_what_the_network_saw():
    # 64 pixels of 0.5 mm see 32 mm in the middle of 24 x 28 pixels of 2 mm: rows 4 to 19, columns 6 to 21.
    contract = dataclasses.replace(CONTRACT, input=spec(size=64, mm_per_pixel=0.5))
    inside = unchecked(block(start=(5, 5, 7)), (1.0, 2.0, 2.0), contract=contract)
    assert measure(inside).of(LV).cut_face_share == 0
    left = unchecked(block(start=(5, 5, 6)), (1.0, 2.0, 2.0), contract=contract)
    assert measure(left).of(LV).cut_face_share == pytest.approx(4 * 5 / 148)
    below = unchecked(block(start=(5, 15, 7)), (1.0, 2.0, 2.0), contract=contract)
    assert measure(below).of(LV).cut_face_share == pytest.approx(4 * 6 / 148)
    # The same patient with rows and columns exchanged and turned round.
    labels = block(start=(5, 5, 6)).transpose(0, 2, 1)[:, ::-1]
    direction = np.array([[0.0, -1, 0], [0, 0, 1], [1, 0, 0]])
    turned = unchecked(labels, (1.0, 2.0, 2.0), direction=direction, contract=contract)
    assert measure(turned).of(LV).cut_face_share == pytest.approx(4 * 5 / 148)


def test_the_rim_of_a_round_field_of_view_is_a_border():
    rows, columns = np.mgrid[:40, :40]
    outside = np.hypot(rows - 19.5, columns - 19.5) > 19
    hu = np.random.default_rng(0).integers(200, 300, (20, 40, 40)).astype(np.int16)
    hu[:, outside] = -1000
    labels = np.zeros(hu.shape, np.uint8)
    labels[5:10, 18:22, 1:6] = 3  # column 1 is the first inside in rows 18 to 21
    assert outside[18:22, 0].all()
    assert not outside[18:22, 1].any()
    row = measure(unchecked(labels, hu=hu)).of(LV)
    assert row.cut_face_share == pytest.approx(5 * 4 / (2 * (5 * 4 + 4 * 5 + 5 * 5)))
    # Frames along another axis: the rim is the same.
    turned = unchecked(
        labels.transpose(2, 0, 1), hu=hu.transpose(2, 0, 1), direction=np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    )
    assert measure(turned).of(LV).cut_face_share == row.cut_face_share
    hu[7, 0, 0] = -990  # no padding: the corner differs in a slice
    assert measure(unchecked(labels, hu=hu)).of(LV).cut_face_share == 0


def test_phantoms_agree_with_scikit_image():
    phantom = generate(5, 1, PhantomSpec((30, 48, 48), (5.0, 5.0, 5.0)))
    found = measure(of_phantom(phantom))
    assert [row.name for row in found.structures] == [s.name for s in HEART.foreground]
    labels = np.where(phantom.labels == 255, 0, phantom.labels)
    for region in regionprops(labels, phantom.volume.voxels):
        row = found.structures[region.label - 1]
        assert row.voxels == region.area
        assert row.mean_hu == pytest.approx(region.intensity_mean)
        assert row.sd_hu == pytest.approx(region.intensity_std)
        z, y, x = (5 * (stop - start) for start, stop in zip(region.bbox[:3], region.bbox[3:], strict=True))
        assert row.extent_mm == pytest.approx((x, y, z))
        touches = min(region.bbox[:3]) == 0 or any(np.array(region.bbox[3:]) == labels.shape)
        assert row.status == (PARTIAL if touches else MEASURED)
        assert row.volume_ml == pytest.approx(region.area * 0.125)


def test_a_missing_structure_is_absent_and_has_no_volume():
    row = measure(unchecked(block())).of("right_atrium")
    assert (row.status, row.voxels, row.volume_ml, row.mean_hu, row.cut_face_share) == (ABSENT, 0, None, None, None)
    assert row.reason
    empty = measure(unchecked(np.zeros((4, 5, 6), np.uint8)))
    assert {row.status for row in empty.structures} == {ABSENT}
    assert "few_structures" in {text.partition(":")[0] for text in empty.warnings}


def test_members_that_disagree():
    agreement = np.array([0.99, np.nan, 0.2, 0.7, 0.95, np.nan, np.nan, np.nan, 0.0])
    labels = block()
    labels[12:15, 3:6, 3:6] = 2
    labels[12:15, 3:6, 9:12] = 4
    found = measure(unchecked(labels, agreement=agreement))
    assert [found.of(name).status for name in ("left_atrium", LV, "right_atrium")] == [REFUSED, MEASURED, MEASURED]
    assert "0.20" in found.of("left_atrium").reason
    assert found.of("left_atrium").volume_ml is None
    assert (found.of(LV).agreement, found.of(LV).confidence) == (0.7, None)
    (low,) = [text for text in found.warnings if text.startswith("low_agreement")]
    assert LV in low
    assert "right_atrium" not in low
    assert found.of("pulmonary_artery").status == ABSENT  # nobody finds it: they agree
    assert found.of("pulmonary_artery").agreement is None
    assert found.of("vena_cava").status == REFUSED  # some find it, their mean does not
    assert found.withheld == (2, 8)


def test_a_low_confidence_is_stated_and_refuses_nothing():
    confidence = np.array([np.nan, np.nan, np.nan, 0.3, np.nan, np.nan, np.nan, np.nan, np.nan])
    found = measure(unchecked(block(), confidence=confidence))
    assert (found.of(LV).status, found.of(LV).confidence, found.of(LV).agreement) == (MEASURED, 0.3, None)
    assert found.of("left_atrium").confidence is None


def test_withheld_labels_are_not_released():
    labels = block()
    labels[12:15, 3:6, 3:6] = 2
    prediction = unchecked(labels, agreement=np.array([1, 1, 0.2, 1, 1, 1, 1, 1, 1.0]))
    kept = released(prediction, measure(prediction))
    assert set(np.unique(kept.labels)) == {0, 3}
    assert np.array_equal(kept.labels == 3, labels == 3)
    whole = unchecked(block())
    assert released(whole, measure(whole)) is whole


def test_unknown_spacing_refuses_volumes_but_not_labels():
    voxels = np.full((20, 24, 28), 120, np.uint8)
    prediction = predicted(Intake("pictures", Volume(voxels, (1.0, 1.0, 1.0)), spacing_known=False), block())
    found = measure(prediction)
    row = found.of(LV)
    assert (row.status, row.voxels, row.volume_ml, row.extent_mm) == (REFUSED, 120, None, None)
    assert (row.mean_hu, row.sd_hu) == (None, None)
    assert "spacing" in row.reason
    assert found.withheld == ()
    assert found.of("left_atrium").status == ABSENT


def test_what_is_not_blood_is_refused():
    hu = np.full((20, 24, 28), -700, np.int16)
    row = measure(unchecked(block(), hu=hu)).of(LV)
    assert (row.status, row.withheld) == (REFUSED, True)
    assert "-700" in row.reason


def test_within_the_published_range():
    def of(voxels, start=(4, 4, 4)):
        side = round(voxels ** (1 / 3))
        labels = block((60, 60, 60), start, (side,) * 3)
        return measure(unchecked(labels))

    assert of(30**3).of(LV).within_normal_range is True  # 27 mL
    assert of(10**3).of(LV).within_normal_range is False  # 1 mL
    assert of(30**3, (0, 4, 4)).of(LV).within_normal_range is None  # a lower bound
    assert of(55**3).of(LV).within_normal_range is True  # 166 mL
    huge = unchecked(block((70, 70, 70), (0, 1, 1), (62,) * 3))  # 238 mL, and more beyond the border
    assert measure(huge).of(LV).within_normal_range is False
    assert any(text.startswith("unusual_volume") and LV in text for text in measure(huge).warnings)
