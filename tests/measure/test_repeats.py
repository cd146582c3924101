"""Labels on other grids, and valves that are refused since these show them elsewhere."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.imaging.phantom.annulus import AnnulusSpec, draw_pose, make_annulus
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure import repeats, valves
from heartseg_jax.measure.annulus import Annulus
from heartseg_jax.measure.contact import NoContact, indices_of, places_of
from heartseg_jax.measure.repeats import instability, other_grids, regridded
from heartseg_jax.measure.results import MEASURED, REFUSED, UNCERTAIN
from heartseg_jax.measure.ring import Ring
from heartseg_jax.measure.valves import valves_of_labels

OBLIQUE = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
ANGLES = 2 * np.pi * np.arange(120) / 120


@pytest.fixture(scope="module")
def blocks():
    """Two blocks of labels 2 and 3 in an oblique volume, and some of label 5."""
    labels = np.zeros((30, 40, 50), np.uint8)
    labels[4:12, 6:30, 10:40], labels[12:26, 6:34, 12:44], labels[2, 2, 2] = 2, 3, 5
    return Volume(labels, (1.5, 0.8, 0.7), (5.0, -7.0, 3.0), OBLIQUE)


def ellipse(one, other, centre=(0.0, 0.0, 0.0)):
    """A ring of two half-axes in the plane across z."""
    curve = np.stack([one * np.cos(ANGLES), other * np.sin(ANGLES), 0 * ANGLES], axis=1) + centre
    return Ring(Annulus(curve, curve[None][:0], 0.1), np.array(centre, float), np.array([0.0, 0.0, 1.0]), ())


@pytest.mark.parametrize(("degrees", "steps"), [(20.0, (1.5, 0.8, 0.8)), (0.0, (1.25, 1.25, 1.25))])
def test_each_voxel_of_another_grid_has_the_nearest_label(blocks, degrees, steps):
    grid = regridded(blocks, blocks.voxels, (2, 3), degrees, np.array(steps))
    turn = grid.direction @ blocks.direction.T
    assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(np.radians(degrees)))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert grid.spacing_mm == steps
    index = np.random.default_rng(0).integers(0, grid.voxels.shape, (4000, 3))
    exact = indices_of(blocks, places_of(grid, index))
    there = np.rint(exact).astype(int)
    clear = (np.abs(exact - there) < 0.49).all(axis=1)
    inside = ((there >= (4, 6, 10)) & (there < (26, 34, 44))).all(axis=1)  # the box of both
    expected = np.where(inside, blocks.voxels[tuple(np.where(inside[:, None], there, 0).T)], 0)
    np.testing.assert_array_equal(grid.voxels[tuple(index.T)][clear], expected[clear])
    for label in (2, 3):
        volumes = [np.count_nonzero(one.voxels == label) * one.voxel_ml for one in (grid, blocks)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.08), "all of it is in the grid"
    border = np.pad(np.zeros(np.array(grid.voxels.shape) - 6, bool), 3, constant_values=True)
    assert not grid.voxels[border].any(), "so that no border cuts them"


def test_fine_voxels_are_not_kept_where_they_cost_the_most(blocks):
    names, grids = zip(*other_grids(blocks, blocks.voxels, (2, 3)), strict=True)
    assert [grid.spacing_mm for grid in grids] == [(1.5, 0.8, 0.8), (1.25, 1.25, 1.25)]
    assert "20 degrees" in names[0]
    assert "1.25 mm" in names[1]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([ellipse(18, 14), ellipse(18.4, 14.3)], ""),
        ([ellipse(18, 14), ellipse(18.9, 13.7)], "in voxels of 1.25 mm, its major diameter changes by 1.8 mm"),
        ([ellipse(18, 13.0)], "its area changes by 7 % and its minor diameter changes by 2.0 mm"),
        ([ellipse(18, 14, (1.2, 0.0, 1.0))], "turned by 20 degrees, its centre moves by 1.6 mm"),
        ([NoContact("they do not touch")], "turned by 20 degrees, they do not touch"),
    ],
)
def test_what_changes_too_much_is_said(blocks, monkeypatch, found, said):
    rings = iter(found)

    def find_ring(*_, **__):
        ring = next(rings)
        if isinstance(ring, NoContact):
            raise ring
        return ring

    monkeypatch.setattr(repeats, "find_ring", find_ring)
    reason = instability(blocks, blocks.voxels, (2, 3), ellipse(18, 14), None, None)
    assert reason.endswith(said)
    assert bool(reason) == bool(said)


def test_coarse_slices_are_not_repeated(blocks, monkeypatch):
    monkeypatch.delattr(repeats, "find_ring")
    coarse = dataclasses.replace(blocks, spacing_mm=(2.1, 0.8, 0.7))
    assert instability(coarse, coarse.voxels, (2, 3), ellipse(18, 14), None, None) == ""


def test_an_unstable_valve_has_a_reason_and_no_number(monkeypatch):
    volume = make_annulus(AnnulusSpec(18.0, 22.0, 4.0), draw_pose(np.random.default_rng(3)), (1.5, 1.5, 1.5)).volume
    alone = {"barred": {"tricuspid": "-"}, "resamples": 0}
    monkeypatch.setattr(valves, "instability", lambda *_: "it depends on the voxels' grid")
    found = valves_of_labels(volume, volume.voxels, **alone).mitral
    assert (found.status, found.reason) == (REFUSED, "it depends on the voxels' grid")
    assert (found.quantities, found.curve_mm, found.centre_mm) == ({}, None, None)
    once = valves_of_labels(volume, volume.voxels, **alone, repeated=False).mitral
    assert once.status in (MEASURED, UNCERTAIN)
