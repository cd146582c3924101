"""Which pixels a polygon encloses, by hand."""

import numpy as np
import pytest
from skimage.measure import points_in_poly

from heartseg_jax.imaging.masks.polygons import fill


def square(low, high):
    return np.array([(low, low), (low, high), (high, high), (high, low)], float)


def drawn(*polygons, size=9, **how):
    return fill([np.asarray(polygon, float) for polygon in polygons], (size, size), **how)


def boxes(size, *spans):
    """Bool image in which each further span switches its square."""
    found = np.zeros((size, size), bool)
    for low, high in spans:
        found[low : high + 1, low : high + 1] ^= True
    return found


def test_centres_within():
    np.testing.assert_array_equal(drawn(square(1.5, 4.5)).inside, boxes(9, (2, 4)))
    np.testing.assert_array_equal(drawn(square(1.5, 4.5)[::-1]).inside, boxes(9, (2, 4)))


def test_centres_on_the_line_are_inside_on_all_sides():
    np.testing.assert_array_equal(drawn(square(2.0, 4.0)).inside, boxes(9, (2, 4)))
    np.testing.assert_array_equal(drawn(square(2.005, 3.995)).inside, boxes(9, (2, 4)))
    np.testing.assert_array_equal(drawn(square(2.05, 3.95)).inside, boxes(9, (3, 3)))
    slanted = drawn([(0, 0), (4, 4), (0, 8)]).inside
    np.testing.assert_array_equal(slanted, [[r <= c <= 8 - r for c in range(9)] for r in range(9)])


def test_a_point_and_a_line_of_two_points():
    assert np.argwhere(drawn([(3, 5)]).inside).tolist() == [[3, 5]]
    assert np.argwhere(drawn([(3, 5), (3, 7)]).inside).tolist() == [[3, 7], [3, 5]][::-1]
    assert not drawn([(3.5, 5.2)]).inside.any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_holes_and_what_is_in_them(order):
    squares = [square(0.5, 7.5), square(1.5, 6.5), square(3.5, 4.5)]
    found = drawn(*(squares[k] for k in order))
    np.testing.assert_array_equal(found.inside, boxes(9, (1, 7), (2, 6), (4, 4)))
    assert not found.ambiguous.any()


def test_a_hole_drawn_along_centres_leaves_these():
    np.testing.assert_array_equal(drawn(square(1, 7), square(3, 5)).inside, boxes(9, (1, 7), (4, 4)))


def test_a_keyhole_is_a_hole():
    outer, hole = square(0.5, 7.5), square(2.5, 5.5)
    for way in ([], [(1.0, 1.0)], [(1.7, 1.2)]):  # straight, through a centre, and bent
        line = [*outer, outer[0], *way, *hole, hole[0], *way[::-1]]
        np.testing.assert_array_equal(drawn(line).inside, boxes(9, (1, 7), (3, 5)))


def test_copies_and_crossings():
    assert drawn(square(1.5, 4.5), square(1.4, 4.6)).copies == 1
    np.testing.assert_array_equal(drawn(square(1.5, 4.5), square(1.5, 4.5)).inside, boxes(9, (2, 4)))
    crossing = square(1.5, 4.5), square(3.5, 6.5)
    found = drawn(*crossing)
    np.testing.assert_array_equal(found.ambiguous, boxes(9, (4, 4)))
    assert found.inside.sum() == 9 + 9 - 2
    assert not drawn(*crossing, exclusive=True).ambiguous.any()


def test_beyond_the_image_is_cut():
    np.testing.assert_array_equal(drawn(square(-3.5, 1.5)).inside, boxes(9, (0, 1)))
    np.testing.assert_array_equal(drawn(square(6.5, 12.5)).inside, boxes(9, (7, 8)))
    assert not drawn(square(10.5, 12.5)).inside.any()


def test_random_polygons_as_by_an_independent_library():
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(30), np.arange(30), indexing="ij"), axis=-1).reshape(-1, 2)
    for _ in range(30):
        polygon = rng.uniform(1, 28, (7, 2))
        expected = points_in_poly(centres, polygon).reshape(30, 30)
        found = drawn(polygon, size=30).inside
        assert not (expected & ~found).any()
        for centre in np.argwhere(found & ~expected):  # such are on a line
            start, way = polygon, np.roll(polygon, -1, axis=0) - polygon
            along = np.clip(((centre - start) * way).sum(1) / (way**2).sum(1), 0, 1)
            assert np.linalg.norm(start + along[:, None] * way - centre, axis=1).min() <= 0.0101
