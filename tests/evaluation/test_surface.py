"""Surface distances: worked by hand, by brute force, and against the numbers of the library surface-distance."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from heartseg_jax.evaluation import surface
from heartseg_jax.evaluation.surface import borders, mean_shift, surface_elements

# What surface-distance 0.1 gives for the two ellipsoids of the test that names it: HD95, ASSD, NSD.
LIBRARY_3D = (2.118962010041709, 0.8621129944857032, 0.9339081889373652)
LIBRARY_2D = (1.8, 0.9881119425705508, 0.47771862754281147)


def surface_distances(truth, prediction, spacing, tolerance):
    return surface.surface_distances(borders(truth, prediction, spacing), tolerance)


def one_pixel(shape, *where):
    mask = np.zeros(shape, dtype=bool)
    mask[where] = True
    return mask


def ellipsoid(shape, centre, radii):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) < 1


def brute_force(truth, prediction, spacing, tolerance):
    """The same definition, corner by corner and with every pair's distance."""

    def elements(mask):
        padded = np.pad(mask, 1)
        points, areas = [], []
        for corner in itertools.product(*(range(n - 1) for n in padded.shape)):
            cube = padded[tuple(slice(c, c + 2) for c in corner)]
            if cube.any() and not cube.all():
                squares = 0.0
                for axis in range(mask.ndim):
                    crossings = int((cube.take(0, axis) != cube.take(1, axis)).sum())
                    face = math.prod(spacing[k] for k in range(mask.ndim) if k != axis)
                    squares += (crossings * face / 2 ** (mask.ndim - 1)) ** 2
                points.append([c * s for c, s in zip(corner, spacing, strict=True)])
                areas.append(math.sqrt(squares))
        return np.array(points), np.array(areas)

    (p, a), (q, b) = elements(truth), elements(prediction)
    pairs = cdist(p, q)
    there, back = pairs.min(axis=1), pairs.min(axis=0)

    def percentile(d, w):
        done = 0.0
        for value, area in sorted(zip(d, w, strict=True)):
            done += area
            if done >= 0.95 * w.sum() - 1e-9:
                return value

    hd95 = max(percentile(there, a), percentile(back, b))
    assd = ((there * a).sum() + (back * b).sum()) / (a.sum() + b.sum())
    within = a[there <= tolerance + 1e-9].sum() + b[back <= tolerance + 1e-9].sum()
    return hd95, assd, within / (a.sum() + b.sum())


def test_two_pixels_by_hand():
    # Pixels in columns 0 and 3, 2 mm apart by column. Their corners lie in columns 0, 1 and 3, 4: from the first,
    # 3 and 2 columns = 6 and 4 mm to the nearest corner of the other, and the same back; all elements are alike.
    a, b = one_pixel((1, 4), 0, 0), one_pixel((1, 4), 0, 3)
    assert surface_distances(a, b, (1.0, 2.0), 2.0) == pytest.approx((6.0, 5.0, 0.0))
    assert surface_distances(a, b, (1.0, 2.0), 4.0)[2] == pytest.approx(0.5)
    assert surface_distances(a, b, (1.0, 2.0), 6.0)[2] == pytest.approx(1.0)


def test_parallel_slabs_by_hand():
    # Slabs that fill the picture but for their height: rows 0-1 and rows 0-3, 1.5 mm a row. The lower border moves
    # by 2 rows = 3 mm; the upper ones coincide. Columns are 2000, so the sides weigh next to nothing.
    a, b = np.zeros((5, 2000), dtype=bool), np.zeros((5, 2000), dtype=bool)
    a[:2], b[:4] = True, True
    hd95, assd, nsd = surface_distances(a, b, (1.5, 1.0), 2.0)
    assert hd95 == pytest.approx(3.0)
    assert assd == pytest.approx(1.5, rel=0.003)
    assert nsd == pytest.approx(0.5, rel=0.003)


def test_a_mask_equals_itself():
    mask = ellipsoid((10, 12, 14), (5, 6, 7), (3, 4, 5))
    assert surface_distances(mask, mask, (2.0, 1.0, 0.5), 2.0) == (0.0, 0.0, 1.0)


def test_elements_have_the_length_and_area_of_what_they_cover():
    # A pixel of 2 mm by 1 mm: each corner has half of two sides, sqrt((1/2)^2 + (2/2)^2) mm.
    corners = surface_elements(one_pixel((1, 1), 0, 0), (2.0, 1.0))
    assert corners.shape == (2, 2)
    np.testing.assert_allclose(corners, math.sqrt(0.25 + 1.0))
    # The middle of a block's face has the face's own area: 3 mm x 0.5 mm across the rows.
    block = surface_elements(np.ones((4, 4, 4), dtype=bool), (3.0, 1.0, 0.5))
    assert block[2, 0, 2] == pytest.approx(3.0 * 0.5)
    assert block[0, 2, 2] == pytest.approx(1.0 * 0.5)
    assert block[2, 2, 2] == 0.0
    # A 45-degree staircase is the diagonal: 40 steps of sqrt(2).
    rows, columns = np.mgrid[:60, :60]
    stairs = surface_elements(columns < rows, (1.0, 1.0))
    assert stairs[10:50, 1:-1].sum() == pytest.approx(40 * math.sqrt(2.0), rel=1e-9)


@pytest.mark.parametrize(
    ("spacing", "excess"), [((1.0, 1.0, 1.0), 0.08), ((2.0, 0.7, 0.7), 0.13), ((5.0, 0.8, 0.9), 0.21)]
)
def test_area_of_a_ball(spacing, excess):
    # Thick slices make a staircase of a ball, whose area is larger; marching cubes on the mask sees it too.
    shape = tuple(int(44 / s) + 3 for s in spacing)
    ball = ellipsoid(shape, [n / 2 for n in shape], [20 / s for s in spacing])
    assert surface_elements(ball, spacing).sum() == pytest.approx(4 * math.pi * 400, rel=excess)


@pytest.mark.parametrize("shape", [(7, 9, 10), (12, 15)])
def test_against_brute_force(shape):
    rng = np.random.default_rng(3)
    spacing = (2.5, 0.8, 1.1)[: len(shape)]
    for _ in range(4):
        a, b = (ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > 0.1 for _ in range(2))
        expected = brute_force(a, b, spacing, 2.0)
        assert surface_distances(a, b, spacing, 2.0) == pytest.approx(expected, rel=1e-9)


def test_against_the_library_surface_distance():
    # surface-distance 0.1 (google-deepmind) said so of these two ellipsoids, its two average distances joined by area.
    # It takes areas from marching cubes, which differ a little in 3-D.
    a = ellipsoid((30, 64, 64), (15, 32, 32), (10, 20, 20))
    b = ellipsoid((30, 64, 64), (16, 31, 30), (10, 19.4, 20))
    hd95, assd, nsd = surface_distances(a, b, (2.0, 0.7, 0.7), 2.0)
    assert hd95 == pytest.approx(LIBRARY_3D[0], rel=1e-6)
    assert assd == pytest.approx(LIBRARY_3D[1], rel=0.01)
    assert nsd == pytest.approx(LIBRARY_3D[2], abs=0.01)
    # In 2-D the elements are the same.
    found = surface_distances(a[15], b[15], (0.9, 0.7), 1.0)
    assert found == pytest.approx(LIBRARY_2D, rel=1e-6)


def test_empty_surroundings_change_nothing():
    a, b = ellipsoid((9, 9, 9), (4, 4, 4), (3, 3, 3)), ellipsoid((9, 9, 9), (4, 5, 4), (3, 3, 3))
    far = [np.pad(mask, ((7, 2), (0, 9), (30, 1))) for mask in (a, b)]
    spacing = (1.0, 1.2, 0.9)
    assert surface_distances(*far, spacing, 1.0) == pytest.approx(surface_distances(a, b, spacing, 1.0), rel=1e-12)


def test_what_has_no_surface_is_refused():
    full, empty = np.ones((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)
    with pytest.raises(ValueError, match="empty"):
        surface_distances(full, empty, (1.0, 1.0), 2.0)
    with pytest.raises(ValueError, match="spacings"):
        surface_distances(full, full, (1.0, 1.0, 1.0), 2.0)
    with pytest.raises(ValueError, match="positive"):
        surface_distances(full, full, (1.0, 0.0), 2.0)


def half(shape, columns, axis=-1):
    """A mask that fills the image up to a border across one axis."""
    mask = np.zeros(shape, dtype=bool)
    mask.swapaxes(0, axis)[:columns] = True
    return mask


def test_a_straight_edge_one_pixel_too_far_inside_is_exactly_minus_one():
    truth, small, large = (half((12, 20), columns) for columns in (10, 9, 11))
    assert mean_shift([borders(truth, small, (1.0, 1.0))]) == -1.0
    assert mean_shift([borders(truth, large, (1.0, 1.0))]) == 1.0
    assert mean_shift([borders(truth, truth, (1.0, 1.0))]) == 0.0
    # In mm by the spacing of the axis that it is moved along, in 2-D and in 3-D.
    assert mean_shift([borders(truth, small, (3.0, 0.5))]) == -0.5
    deep = [half((8, 6, 7), layers, axis=0) for layers in (5, 3)]
    assert mean_shift([borders(*deep, (0.5, 1.0, 2.0))]) == -1.0


def test_a_disc_that_is_too_small_and_one_that_is_shifted():
    disc, small, large = (ellipsoid((60, 60), (30, 30), (radius, radius)) for radius in (20, 19, 21))
    # To the nearest corner of a staircase it is a little less than the difference of the radii.
    assert mean_shift([borders(disc, small, (1.0, 1.0))]) == pytest.approx(-0.85, abs=0.03)
    assert mean_shift([borders(disc, large, (1.0, 1.0))]) == pytest.approx(0.85, abs=0.03)
    shifted = np.roll(disc, 3, axis=1)
    assert mean_shift([borders(disc, shifted, (1.0, 1.0))]) == pytest.approx(0.0, abs=1e-9)
    assert surface_distances(disc, shifted, (1.0, 1.0), 2.0)[1] > 1.5


def test_borders_at_ignored_pixels_and_at_the_image_s_edge_do_not_count():
    truth, small = np.zeros((10, 30), dtype=bool), np.zeros((10, 30), dtype=bool)
    truth[:, 5:15], small[:, 6:15] = True, True
    ignored = np.zeros_like(truth)
    ignored[:, 15:] = True
    # The right borders agree, so that the mean over both sides is half of the left one's.
    assert mean_shift([borders(truth, small, (1.0, 1.0))]) == -0.5
    assert mean_shift([borders(truth, small, (1.0, 1.0), ignored)]) == -1.0
    assert mean_shift([borders(truth[:, :15], small[:, :15], (1.0, 1.0))]) == -1.0
    everything = np.ones((4, 4), dtype=bool)
    assert mean_shift([borders(everything, everything, (1.0, 1.0))]) is None
    assert mean_shift([]) is None


def test_several_slices_are_weighted_by_the_length_of_their_borders():
    # Borders of 9 counted corners each moved by -1, and of 4 each moved by +1.
    tall, low = (half((10, 20), 10), half((10, 20), 9)), (half((5, 20), 10), half((5, 20), 11))
    pairs = [borders(*masks, (1.0, 1.0)) for masks in (tall, low)]
    assert mean_shift(pairs) == pytest.approx((9 * -1 + 4 * 1) / 13)


@pytest.mark.parametrize("shape", [(7, 9, 10), (12, 15)])
def test_the_signed_distance_against_brute_force(shape):
    rng = np.random.default_rng(5)
    spacing = np.array((2.5, 0.8, 1.1)[: len(shape)])
    truth, guess, ignored = (ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > level for level in (0.1, 0.05, 0.3))
    truth, guess = truth & ~ignored, guess & ~ignored
    cubes = {
        corner: tuple(slice(c, c + 2) for c in corner) for corner in itertools.product(*(range(n + 1) for n in shape))
    }
    padded = {name: np.pad(mask, 1) for name, mask in (("truth", truth), ("guess", guess))}
    unknown = np.pad(ignored, 1, constant_values=True)
    areas = {name: surface_elements(mask, spacing) for name, mask in (("truth", truth), ("guess", guess))}
    moved = total = 0.0
    for own, other, sign in (("truth", "guess", 1), ("guess", "truth", -1)):
        nearest = np.array([c for c in cubes if areas[other][c] > 0]) * spacing
        for corner, cube in cubes.items():
            if areas[own][corner] > 0 and not unknown[cube].any():
                distance = cdist([np.array(corner) * spacing], nearest).min()
                moved += areas[own][corner] * distance * (sign if padded[other][cube].all() else -sign)
                total += areas[own][corner]
    found = mean_shift([borders(truth, guess, tuple(spacing), ignored)])
    assert found == pytest.approx(moved / total, rel=1e-9)
    assert abs(found) > 0.01
