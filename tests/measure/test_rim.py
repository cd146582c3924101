"""A rim's points, and those that agree with a curve, on lines that are laid by hand."""

import numpy as np
import pytest

from heartseg_jax.measure.opening import Openings
from heartseg_jax.measure.rim import RAYS, Rim

TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
CENTRE = np.array([4.0, -30.0, 11.0])


def straight(errors, steep=None, rays=None):
    """Lines straight outwards in a plane, along which the gap may open after 10, 12 or 15 mm."""
    rays = np.arange(RAYS) if rays is None else rays
    angles = 2 * np.pi * rays / RAYS
    out = np.cos(angles)[:, None] * TURN[0] + np.sin(angles)[:, None] * TURN[1]
    walked = np.tile(np.arange(0, 20, 0.5), (len(rays), 1))
    lines = CENTRE + walked[..., None] * out[:, None]
    steep = np.zeros(walked.shape, bool) if steep is None else np.tile(steep, (len(rays), 1))
    places = np.tile([10.0, 12.0, 15.0], (len(rays), 1))
    errors = np.tile(errors, (len(rays), 1))
    return Rim(lines[:, 20], rays, CENTRE, TURN, lines, walked, steep, Openings(places, errors), 0 * walked)


def circle(radius):
    angles = 2 * np.pi * np.arange(300) / 300
    flat = np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles], axis=1)
    return CENTRE + flat @ TURN


def radii(points):
    return np.linalg.norm(points - CENTRE, axis=1)


@pytest.mark.parametrize(("radius", "expected"), [(10.6, 10), (11.6, 12), (16.0, 15)])
def test_the_place_is_taken_that_agrees_with_the_curve(radius, expected):
    rim = straight([1.0, 1.0, 1.0], rays=np.arange(5, 70))
    points = rim.beside(circle(radius))
    np.testing.assert_allclose(radii(points), expected)
    np.testing.assert_allclose(points @ TURN[2], CENTRE @ TURN[2], atol=1e-9)
    assert rim.share == 65 / 72


def test_a_place_where_the_gap_opens_clearly_is_kept():
    np.testing.assert_allclose(radii(straight([0.0, 40.0, 40.0]).beside(circle(12.0))), 10)


def test_a_line_that_turned_up_for_its_last_piece_ends_where_it_did():
    steep = np.zeros(40, bool)
    steep[17:23] = True  # from 8.5 to 11.5 mm, and the gap opens at 12
    np.testing.assert_allclose(radii(straight([9.0, 0.0, 9.0], steep).beside(circle(12.0))), 8)


def test_a_gap_that_is_wider_by_the_rim_than_in_the_middle_is_a_wall_s():
    rim = straight([0.0, 0.0, 0.0])
    wide = np.where((rim.walked_mm > 6) & (np.arange(RAYS) < 45)[:, None], 0.9, 0.3)  # the rim is at 10 mm
    assert rim._replace(gaps=wide).walled_share() == 45 / 72
    assert rim._replace(gaps=wide - 0.2 * (wide > 0.5)).walled_share() == 0
    narrow = np.where((rim.walked_mm > 8.6) | (rim.walked_mm < 5), 0.9, 0.3)  # by the rim only, or in the middle
    assert rim._replace(gaps=narrow).walled_share() == 0
