"""A valve's region of interest: where its voxels lie, and what they take from a volume."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.region import axes_of, box, images_in, labels_in, side_mm
from tests.valves import saddle


def test_the_box_lies_along_the_valve():
    """Half-axes of 10 and 8 mm: 1.3 * 20 mm are 52 voxels of 0.5 mm."""
    valve = saddle((10, 20, 30), (0, 0, 1), (1, 0, 0), (10.0, 8.0))
    grid = box(valve)
    assert side_mm(valve) == pytest.approx(26.0)
    assert grid.voxels.shape == (90, 52, 52)
    assert grid.spacing_mm == (0.5, 0.5, 0.5)
    np.testing.assert_allclose(grid.origin_mm, [10 - 13 + 0.25, 20 - 13 + 0.25, 30 - 20 + 0.25])
    np.testing.assert_allclose(grid.direction, [[0, 0, 1], [0, 1, 0], [1, 0, 0]])  # of slices, rows, columns


def test_a_tilted_valve_turns_the_box():
    valve = saddle((1, 2, 3), (0, 1, 1), (0, 1, -1), (8.0, 10.0))
    grid, half = box(valve), np.sqrt(0.5)
    np.testing.assert_allclose(grid.direction[:, 0], [0, half, half])
    np.testing.assert_allclose(grid.direction[:, 2], [0, half, -half])
    assert np.linalg.det(grid.direction[:, ::-1]) == pytest.approx(1)
    middle = grid.origin_mm + grid.direction @ [0.5 * (40 - 0.5), 0.5 * 25.5, 0.5 * 25.5]  # 20 mm from the first face
    np.testing.assert_allclose(middle, [1, 2, 3], atol=1e-9)


def test_without_a_septum_the_longest_diameter_leads():
    valve = dataclasses.replace(saddle(along=(-1, -1, 0), half_mm=(12.0, 9.0)), septal=None)
    np.testing.assert_allclose(axes_of(valve)[0], [np.sqrt(0.5), np.sqrt(0.5), 0], atol=1e-9)


def test_a_septal_direction_is_laid_into_the_plane():
    valve = dataclasses.replace(saddle(), septal=np.array([0.8, 0.0, 0.6]))
    np.testing.assert_allclose(axes_of(valve), np.eye(3))


RAMP = Volume(np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2) * 10, (2.0, 1.0, 1.0))


def grid_at(*xyz):
    """A grid of one voxel."""
    return Volume(np.zeros((1, 1, 1), np.uint8), (0.5, 0.5, 0.5), xyz)


@pytest.mark.parametrize(
    ("xyz", "expected"),
    [
        ((0, 0, 0), 0),
        ((0.25, 0, 0), 2),  # 2.5, to even
        ((0, 0, 1.0), 30),  # halfway between slices of 0 and 60
        ((1, 2, 6), 230),
        ((1.5, 2.5, 7), 230),  # on the outer faces of the last voxel
        ((1.51, 2, 6), -1024),
        ((0, 0, -1.01), -1024),
    ],
)
def test_images_are_linear_to_the_outer_faces_and_air_beyond(xyz, expected):
    images, outside = images_in(grid_at(*xyz), RAMP)
    assert images.voxels.dtype == np.int16
    assert images.voxels.item() == expected
    assert outside == (expected == -1024)


def test_pictures_are_black_outside():
    images, _ = images_in(grid_at(9, 9, 9), dataclasses.replace(RAMP, voxels=RAMP.voxels.astype(np.uint8)))
    assert (images.voxels.dtype, images.voxels.item()) == (np.uint8, 0)


@pytest.mark.parametrize(
    ("xyz", "expected"), [((0.4, 0, 0), 0), ((0.6, 0, 0), 1), ((0, 0, 6.9), 18), ((0, 0, 7.1), 255)]
)
def test_labels_are_those_of_the_nearest_voxel(xyz, expected):
    labels = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    assert labels_in(grid_at(*xyz), RAMP, labels).voxels.item() == expected


def test_only_what_lies_beyond_the_field_of_view_is_marked():
    volume = Volume(np.full((60, 60, 60), 3, np.int16), (1.0, 1.0, 1.0), (-30.0, -30.0, -30.0))
    labels = volume.voxels.astype(np.uint8)
    inside, leaving = (box(saddle((0, 0, z), half_mm=(5.0, 6.0))) for z in (0, 14.75))  # the latter's end: 39.75 mm
    assert (images_in(inside, volume)[1], np.unique(labels_in(inside, volume, labels).voxels)) == (0, [3])
    images, share = images_in(leaving, volume)
    marked = labels_in(leaving, volume, labels).voxels == 255
    assert share == pytest.approx(20 / 90)  # beyond the last face, at 29.5 mm, lie 20 of 90 slices
    np.testing.assert_array_equal(marked, np.broadcast_to(np.arange(90)[:, None, None] >= 70, marked.shape))
    np.testing.assert_array_equal(images.voxels == -1024, marked)
