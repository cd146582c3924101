"""Where a gap begins to open: ramps that an independent filter blurs, and an orifice in a wall of known thickness."""

import numpy as np
import pytest
from scipy import ndimage

from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.opening import ERROR_MM2, EXPECTED_MM, Openings, openings
from heartseg_jax.measure.results import MEASURED, UNCERTAIN
from heartseg_jax.measure.valves import valves_of_labels

TURN = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
FINE_MM = 0.01


def ramp(begins, slope, wall, blur):
    """Places and widths of a gap that opens at a place, with a slope, to a width, as a Gaussian blurs it."""
    places = np.arange(0, 30, FINE_MM)
    widths = ndimage.gaussian_filter1d(np.clip(slope * (places - begins), 0, wall), blur / FINE_MM)
    return places[::40], widths[::40]


@pytest.mark.parametrize("blur", [0.35, 0.6, 0.9])
@pytest.mark.parametrize(("slope", "wall"), [(1.9, 99.0), (2.0, 1.8), (2.0, 1.5), (1.25, 2.0), (0.75, 99.0)])
def test_a_blurred_ramp_begins_where_it_did_before(slope, wall, blur):
    places, widths = ramp(15.37, slope, wall, blur)
    passed = np.interp(1.0, widths, places)
    found = openings(widths[None], places[None], np.array([passed]), np.array([blur])).beginnings()
    assert found[0] == pytest.approx(15.37, abs=0.15)


def test_each_line_has_its_own_blur_and_place():
    cases = [(10.2, 2.0, 1.8, 0.4), (12.9, 1.0, 99.0, 0.8), (8.1, 2.0, 1.8, 0.8)]
    places, widths = zip(*(ramp(*case) for case in cases), strict=True)
    passed = np.array([np.interp(1.0, w, p) for p, w in zip(places, widths, strict=True)])
    found = openings(np.stack(widths), np.stack(places), passed, np.array([case[3] for case in cases]))
    np.testing.assert_allclose(found.beginnings(), [case[0] for case in cases], atol=0.15)


def test_where_two_places_fit_about_as_well_the_expected_one_is_taken():
    places = np.array([[3.0, 5.0, 9.0]])
    found = Openings(places, np.array([[1.0, 8.0, 1.1]]))
    assert found.beginnings() == [3]
    assert found.beginnings((places - 8.5) ** 2) == [9]
    worse = Openings(places, np.array([[1.0, 8.0, 1.0 + ERROR_MM2]]))
    for away, taken in ((0.9 * EXPECTED_MM, 3), (1.1 * EXPECTED_MM, 9)):
        assert worse.beginnings(np.array([[away**2, 9.0, 0.0]])) == [taken]


def orifice(radius, wall_mm, spacing_mm):
    """Labels of two chambers with a wall between them, which has a round hole, oblique to the voxels."""
    steps = np.array(spacing_mm)
    counts = np.ceil(68 / steps).astype(int)
    places = np.moveaxis(np.indices(counts), 0, -1) * steps - (counts - 1) / 2 * steps
    across, along, flow = np.moveaxis(places[..., ::-1] @ TURN, -1, 0)
    away = np.hypot(across, along)
    half = np.where(away < radius, 0, wall_mm / 2)
    inside = (away < 22) & (np.abs(flow) < 20)
    labels = np.zeros(counts, np.uint8)
    labels[inside & (flow < -half)], labels[inside & (flow >= half)] = 2, 3
    return Volume(labels, spacing_mm)


@pytest.mark.parametrize(("wall_mm", "spacing_mm"), [(3.0, (1, 1, 1)), (8.0, (1, 1, 1)), (8.0, (2, 0.8, 0.8))])
def test_an_orifice_is_as_wide_whatever_the_wall_beside_it(wall_mm, spacing_mm):
    volume = orifice(12.0, wall_mm, spacing_mm)
    found = valves_of_labels(volume, volume.voxels, repeated=False).mitral
    assert found.status == MEASURED
    assert found.quantities["area_cm2"].value == pytest.approx(np.pi * 12**2 / 100, rel=0.03)
    assert found.quantities["major_mm"].value == pytest.approx(24, abs=0.8)
    assert found.quantities["height_mm"].value < 1


@pytest.mark.parametrize("wall_mm", [0.7, 1.5])
def test_a_wall_as_thin_as_leaflets_makes_the_ring_uncertain(wall_mm):
    """The hole of 24 mm is hardly seen: the ring is the wall's outer end, of up to 44 mm."""
    volume = orifice(12.0, wall_mm, (1, 1, 1))
    found = valves_of_labels(volume, volume.voxels, repeated=False).mitral
    assert (found.status, "a thin wall" in found.reason) == (UNCERTAIN, True)
    assert found.quantities["major_mm"].value > 36
