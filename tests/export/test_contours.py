"""Polygons around masks: pixels whose centre is inside are the mask, however a reader combines a slice's polygons."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from skimage.draw import polygon2mask

from heartseg_jax.export.contours import corners, keyholed, outlines


def both_ways(polygons, shape) -> tuple[np.ndarray, np.ndarray]:
    """The pixels inside any polygon, and those inside an odd number of them."""
    masks = [polygon2mask(shape, polygon) for polygon in polygons]
    return np.any(masks, axis=0), np.logical_xor.reduce(masks)


def smooth(seed: int) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=(48, 61)), 2.5) > 0


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((17, 23)) > 0.4


@pytest.mark.parametrize("make", [smooth, noise])
@pytest.mark.parametrize("seed", range(6))
def test_any_mask_comes_back(make, seed):
    mask = make(seed)
    for found in both_ways(outlines(np.where(mask, 5, 2), 5), mask.shape):
        np.testing.assert_array_equal(found, mask)


def test_the_border_of_the_image_is_no_hindrance():
    mask = np.ones((5, 7), bool)
    (polygon,) = outlines(mask.astype(int), 1)
    assert len(polygon) == 8, "a rectangle with its corners cut"
    assert (polygon.min(), *polygon.max(0)) == (-0.5, 4.5, 6.5)


def test_one_pixel_is_a_diamond():
    plane = np.zeros((5, 5), int)
    plane[2, 3] = 1
    (polygon,) = outlines(plane, 1)
    assert {tuple(point) for point in polygon} == {(1.5, 3.0), (2.5, 3.0), (2.0, 2.5), (2.0, 3.5)}


def test_nothing_is_no_polygon():
    assert outlines(np.zeros((4, 4), int), 1) == []


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    plane = np.zeros((15, 15), int)
    plane[1:14, 1:14] = 1
    plane[3:12, 3:12] = 0
    plane[6:9, 6:9] = 1
    polygons = outlines(plane, 1)
    assert len(polygons) == 2
    for found in both_ways(polygons, plane.shape):
        np.testing.assert_array_equal(found, plane == 1)


def test_each_piece_is_one_polygon_and_corners_do_not_join():
    mask = noise(3)
    assert len(outlines(mask.astype(int), 1)) == label(mask)[1]


def test_channels_to_holes_stay_inside_the_structure():
    """Every point of the line has a pixel of the structure beside it: none lies within a hole."""
    plane = np.ones((20, 60), int)
    for row, column in ((6, 8), (6, 18), (7, 28), (4, 44)):
        plane[row : row + 7, column : column + 7] = 0
    (polygon,) = outlines(plane, 1)
    ends = np.roll(polygon, -1, 0)
    points = np.concatenate([polygon + (ends - polygon) * share for share in np.linspace(0, 1, 21)])
    beside = [plane[tuple(np.clip(way(points).astype(int), 0, (19, 59)).T)] for way in (np.floor, np.ceil)]
    assert np.logical_or(*beside).all()
    for found in both_ways([polygon], plane.shape):
        np.testing.assert_array_equal(found, plane == 1)


def test_only_points_on_straight_lines_are_left_out():
    polygon = np.array([[0, 0], [0, 1], [0, 2.5], [1, 2.5], [2, 2.5], [2, 0.5], [1.5, 0], [1, 0]])
    assert corners(polygon).tolist() == [[0, 0], [0, 2.5], [2, 2.5], [2, 0.5], [1.5, 0]]


def test_a_keyhole_goes_to_the_hole_and_back():
    square = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
    hole = np.array([[4.0, 4], [2, 2], [4, 2]])
    assert keyholed(square, [hole]).tolist() == [
        *([0, 0], [2, 2], [4, 2], [4, 4], [2, 2], [0, 0]),
        *([0, 10], [10, 10], [10, 0]),
    ]
