"""The annulus of version 2: its dimensions are those asked for, within what is published."""

import numpy as np
import pytest

from heartseg_jax.imaging.phantom.annulus import (
    AORTA,
    ATRIUM,
    VENTRICLE,
    AnnulusSpec,
    draw_annulus,
    draw_pose,
    make_annulus,
)

SPEC = AnnulusSpec(24.0, 31.0, 5.0)
POSE = draw_pose(np.random.default_rng(0))


def test_the_curve_has_the_dimensions_asked_for():
    made = make_annulus(SPEC, POSE, (4.0, 4.0, 4.0))
    towards, across, along = (made.curve_mm @ POSE.T).T
    assert np.ptp(towards) == pytest.approx(24, abs=0.01)
    assert np.ptp(across) == pytest.approx(31, abs=0.01)
    # z = -5 (0.425 cos 2t + 0.075 cos t + 0.075): at the horn -5 x 0.575; its valley is where cos t = -0.075 / 1.7.
    cosine = -0.075 / (4 * 0.425)
    valley = 0.425 * (2 * cosine**2 - 1) + 0.075 * cosine + 0.075
    assert np.ptp(along) == pytest.approx(5 * (0.575 - valley), abs=0.01)
    assert towards.max() < -towards.min()  # the D's flat side is towards the aortic root


def test_the_labels_meet_at_the_curve():
    made = make_annulus(SPEC, POSE, (2.0, 2.0, 2.0))
    labels = made.volume.voxels
    assert set(np.unique(labels)) == {0, AORTA, ATRIUM, VENTRICLE}
    steps = made.volume.direction * np.array(made.volume.spacing_mm)
    for step, expected in ((-0.8, ATRIUM), (0.8, VENTRICLE)):  # just within the rim, upstream and downstream
        places = 0.85 * made.curve_mm + step * 5 * made.flow
        index = np.rint(np.linalg.solve(steps, (places - made.volume.origin_mm).T)).astype(int)
        assert (labels[tuple(index)] == expected).mean() > 0.95


def test_drawn_annuli_lie_within_what_is_published():
    drawn = [draw_annulus(np.random.default_rng(seed)) for seed in range(60)]
    aspects = [one.intercommissural_mm / one.septolateral_mm for one in drawn]
    assert 1.2 <= min(aspects) < 1.25
    assert 1.35 < max(aspects) <= 1.4
    assert 3 <= min(one.height_mm for one in drawn) < max(one.height_mm for one in drawn) <= 11
    assert min(one.septolateral_mm for one in drawn) < 22  # children
    assert make_annulus(drawn[0], POSE, (4.0, 4.0, 4.0)).volume.voxels.any()
