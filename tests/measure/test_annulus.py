"""Curves and what is measured of them, against ellipses whose values are known."""

import numpy as np
import pytest
from scipy.special import ellipe

from heartseg_jax.measure.annulus import closed_curve, fitted_plane, planes, quantities, with_intervals

A, B = 20.0, 15.0
ANGLES = 2 * np.pi * np.arange(72) / 72
TURN = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
TURN *= np.sign(np.linalg.det(TURN))
CENTRE = np.array([12.0, -40.0, 7.0])
X, Y, NORMAL = TURN


def ring(height=0.0, count=72):
    """An ellipse of half axes A and B along X and Y, bent into a saddle."""
    t = 2 * np.pi * np.arange(count) / count
    return CENTRE + np.stack([A * np.cos(t), B * np.sin(t), height / 2 * np.cos(2 * t)], axis=1) @ TURN


def test_an_ellipse():
    found = quantities(ring(count=720)[None], NORMAL, CENTRE + 50 * Y, aortic_normal=-X)
    assert found["area_cm2"][0] == pytest.approx(np.pi * A * B / 100, rel=1e-4)
    assert found["perimeter_mm"][0] == pytest.approx(4 * A * ellipe(1 - (B / A) ** 2), rel=1e-4)
    assert found["septolateral_mm"][0] == pytest.approx(2 * B, abs=0.01)
    assert found["intercommissural_mm"][0] == pytest.approx(2 * A, abs=0.01)
    assert found["height_mm"][0] == pytest.approx(0, abs=1e-6)
    assert found["eccentricity"][0] == pytest.approx(np.sqrt(1 - (B / A) ** 2), abs=1e-3)
    assert found["angle_to_aortic_valve_degrees"][0] == pytest.approx(90)


def test_without_an_aortic_root_diameters_have_no_anatomical_name():
    found = quantities(ring()[None], NORMAL, None, None)
    assert (found["major_mm"][0], found["minor_mm"][0]) == (
        pytest.approx(2 * A, abs=0.1),
        pytest.approx(2 * B, abs=0.1),
    )
    assert not {"septolateral_mm", "intercommissural_mm", "angle_to_aortic_valve_degrees"} & set(found)


def test_a_saddle_has_a_height_and_the_flat_ring_s_area():
    found = quantities(ring(6.0, 720)[None], NORMAL, None, None)
    assert found["height_mm"][0] == pytest.approx(6, abs=0.05)
    assert found["area_cm2"][0] == pytest.approx(np.pi * A * B / 100, rel=1e-3)


def test_the_plane_of_a_rim_and_not_of_its_outliers():
    points = ring()
    points[:7] += 9 * NORMAL
    centre, normal = fitted_plane(points, NORMAL)
    assert np.degrees(np.arccos(normal @ NORMAL)) < 0.5
    assert abs((centre - CENTRE) @ NORMAL) < 0.2
    assert fitted_plane(points, -NORMAL)[1] @ NORMAL < 0


def test_the_curve_is_closed_smooth_evenly_spaced_and_robust():
    points = ring(5.0) + np.random.default_rng(0).normal(0, 0.3, (72, 3))
    points[10] += 12 * X
    found = closed_curve(points, CENTRE, NORMAL, 40)
    steps = np.linalg.norm(np.roll(found.curve, -1, axis=0) - found.curve, axis=1)
    assert steps.std() < 0.01 * steps.mean()
    true = ring(5.0, 720)
    away = np.linalg.norm(found.curve[:, None] - true[None], axis=2).min(axis=1)
    assert away.max() < 0.6
    assert found.resampled.shape == (40, len(found.curve), 3)
    again = closed_curve(points, CENTRE, NORMAL, 40)
    np.testing.assert_array_equal(found.resampled, again.resampled)


def test_a_more_uneven_rim_has_a_wider_interval():
    widths = []
    for noise in (0.1, 0.6):
        points = ring() + np.random.default_rng(1).normal(0, noise, (72, 3))
        found = closed_curve(points, CENTRE, NORMAL, 100)
        value, others = (quantities(c, NORMAL, None, None)["area_cm2"] for c in (found.curve[None], found.resampled))
        interval = with_intervals(value[0], others)
        assert interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.3 * widths[0]


def test_planes_weigh_by_length_not_by_points():
    curve = ring(count=720)
    dense = np.concatenate([curve[:360], curve[360::4]])
    np.testing.assert_allclose(planes(dense[None], NORMAL)[0][0], CENTRE, atol=0.05)
