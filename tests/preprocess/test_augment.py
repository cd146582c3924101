import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.preprocess.augment import CHANGES, augment
from heartseg_jax.preprocess.augment_settings import PRESETS, AugmentSettings

CHANCES = [field.name for field in dataclasses.fields(AugmentSettings) if field.name.endswith("_probability")]
MANY = 48
"""Examples a batch where presets run: one number, so that each preset is compiled once."""

run = partial(jax.jit, static_argnums=3)(augment)


def blobs(count=4, side=24, channels=3, seed=0):
    """Smooth images in 0..1 with repeated channels, and label squares."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(side)[None, :, None] / 3 + rng.uniform(0, 6, (count, 1, 1)))
    waves = waves * np.cos(np.arange(side)[None, None, :] / 4 + rng.uniform(0, 6, (count, 1, 1)))
    label = np.zeros((count, side, side), np.int32)
    label[:, 4:12, 6:14] = 3
    label[:, 14:20, 10:20] = 8
    image = np.repeat((waves[..., None] + 1) / 2, channels, axis=-1).astype(np.float32)
    return jnp.asarray(image), jnp.asarray(label)


def test_nothing_happens_when_all_is_off():
    image, label = blobs()
    out_image, out_label = augment(jax.random.key(0), image, label, PRESETS["none"])
    assert out_image is image
    assert out_label is label


def test_changes_that_are_drawn_not_to_happen_leave_the_example_as_it_was():
    image, label = blobs()
    settings = AugmentSettings(**dict.fromkeys(CHANCES, 1e-9))
    out_image, out_label = run(jax.random.key(0), image, label, settings)
    np.testing.assert_allclose(out_image, image, atol=2e-6)
    np.testing.assert_array_equal(out_label, label)


@pytest.mark.parametrize("preset", ["default", "as_original", "randomised"])
def test_shapes_ranges_and_determinism(preset):
    image, label = blobs(count=MANY)
    first = run(jax.random.key(1), image, label, PRESETS[preset])
    again = run(jax.random.key(1), image, label, PRESETS[preset])
    other = run(jax.random.key(2), image, label, PRESETS[preset])
    assert (first[0].shape, first[0].dtype) == (image.shape, jnp.float32)
    assert (first[1].shape, first[1].dtype) == (label.shape, jnp.int32)
    assert 0 <= float(first[0].min()) <= float(first[0].max()) <= 1
    assert set(np.unique(first[1])) <= {0, 3, 8, 255}
    np.testing.assert_array_equal(first[0][..., 0], first[0][..., 2])
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert len({np.asarray(example).tobytes() for example in first[0]}) == MANY, "examples must draw by themselves"


def test_image_and_label_move_together():
    """An image painted from the label, then moved, is what would be painted from the moved label."""
    _, label = blobs(count=8, side=48)
    image = jnp.repeat((label / 10)[..., None], 3, axis=-1)
    settings = AugmentSettings(
        rotation_probability=1.0, scale_probability=1.0, shift_probability=1.0, elastic_probability=1.0
    )
    moved, moved_label = run(jax.random.key(3), image, label, settings)
    assert not np.array_equal(moved_label, label)
    known = np.asarray(moved_label) != 255
    difference = np.abs(np.asarray(moved)[..., 0] - np.asarray(moved_label) / 10)[known]
    # Linear and nearest differ on the edges of the squares alone.
    assert (difference > 1e-5).mean() < 0.08
    for value in (3, 8):
        inside = np.asarray(moved_label) == value
        assert abs(np.median(np.asarray(moved)[..., 0][inside]) - value / 10) < 1e-5


def test_a_shift_brings_in_air_and_ignored_labels():
    image, label = jnp.ones((16, 16, 16, 1)), jnp.ones((16, 16, 16), jnp.int32)
    moved, moved_label = run(jax.random.key(0), image, label, AugmentSettings(shift_probability=1.0, shift=0.5))
    outside = np.asarray(moved_label) == 255
    assert 0.1 < outside.mean() < 0.9
    # Within half a pixel of the image's edge the label is the edge's and the image is on its way to air: at least
    # a half along each axis.
    assert np.asarray(moved)[..., 0][outside].max() <= 0.5
    assert np.asarray(moved)[..., 0][~outside].min() >= 0.25


def sides(label):
    """Sign of (mean column of 8 - mean column of 3) by example."""
    columns = np.arange(label.shape[2])
    mean = [[columns[np.nonzero(example == value)[1]].mean() for value in (3, 8)] for example in np.asarray(label)]
    return np.sign(np.diff(mean, axis=1))[:, 0]


def left_and_right(count, side):
    label = np.zeros((count, side, side), np.int32)
    middle = side // 2
    label[:, middle - 2 : middle + 2, middle - 5 : middle - 2] = 3
    label[:, middle - 2 : middle + 2, middle + 2 : middle + 5] = 8
    return jnp.asarray(label)


@pytest.mark.parametrize("preset", ["default", "randomised"])
def test_left_and_right_never_swap_outside_the_original_s_preset(preset):
    settings = PRESETS[preset]
    assert settings.flip_left_right_probability == settings.flip_up_down_probability == 0
    label = left_and_right(MANY, side=24)
    _, moved = run(jax.random.key(0), jnp.zeros((*label.shape, 3)), label, settings)
    assert (sides(moved) == 1).all()


def test_the_original_s_preset_does_each_of_three_things_with_a_chance_of_a_quarter():
    label = left_and_right(1024, side=16).at[:, 0, :].set(5)
    image = jnp.repeat((label == 5)[..., None].astype(jnp.float32), 1, axis=-1).at[:, 8, 8].set(1.0)
    moved_image, moved = run(jax.random.key(0), image, label, PRESETS["as_original"])
    mirrored = sides(moved) == -1
    upside_down = np.asarray(moved)[:, -1, 4] == 5
    blurred = np.asarray(moved_image).max(axis=(1, 2, 3)) < 0.999
    # The standard deviation of a share of 1024 at 25 % is 1.35 %.
    for happened in (mirrored, upside_down, blurred):
        assert 0.20 < happened.mean() < 0.30
    assert 0.03 < (mirrored & upside_down).mean() < 0.10, "each by its own draw"
    exact = np.asarray(moved_image)[mirrored & ~upside_down & ~blurred]
    np.testing.assert_allclose(exact, np.asarray(image)[: len(exact), :, ::-1], atol=1e-6)


def test_blur_is_scipy_s_gaussian_in_the_middle():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.zeros((1, 17, 17, 1), np.float32)
    image[0, 8, 8] = 1
    settings = AugmentSettings(blur_probability=1.0, blur_px=(1.2, 1.2))
    blurred, _ = run(jax.random.key(0), jnp.asarray(image), jnp.zeros((1, 17, 17), jnp.int32), settings)
    expected = ndimage.gaussian_filter(image[0, ..., 0], 1.2, truncate=6)
    np.testing.assert_allclose(np.asarray(blurred)[0, ..., 0], expected, atol=1e-6)


def test_low_resolution_averages_pairs_and_interpolates_between_them():
    image = jnp.asarray([0.0, 0.4, 0.8, 0.8, 0.2, 0.0]).reshape(1, 1, 6, 1).repeat(6, axis=1)
    settings = AugmentSettings(low_resolution_probability=1.0, low_resolution=(2.0, 2.0))
    coarse, _ = run(jax.random.key(0), image, jnp.zeros((1, 6, 6), jnp.int32), settings)
    # Pairs 0.2, 0.8, 0.1; between their centres in quarters: 1 is 0.75 of its own pair and 0.25 of the next.
    expected = [0.2, 0.35, 0.65, 0.625, 0.275, 0.1]
    np.testing.assert_allclose(np.asarray(coarse)[0, 2, :, 0], expected, atol=1e-5)


def test_intensity_curve_is_monotone_and_keeps_black_and_white():
    ramp = jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1).repeat(5, axis=0)
    settings = AugmentSettings(remap_probability=1.0)
    curved, _ = run(jax.random.key(0), ramp, jnp.zeros((5, 8, 8), jnp.int32), settings)
    curves = np.asarray(curved).reshape(5, 64)
    assert (np.diff(curves, axis=1) >= 0).all()
    np.testing.assert_allclose(curves[:, [0, -1]], [[0, 1]] * 5, atol=1e-6)
    assert np.abs(curves - np.asarray(ramp).reshape(5, 64)).max() > 0.05


def test_gamma_and_contrast_are_their_formulas():
    image, label = blobs(count=1)
    gamma, _ = run(jax.random.key(0), image, label, AugmentSettings(gamma_probability=1.0, gamma=(2.0, 2.0)))
    np.testing.assert_allclose(gamma, image**2, atol=1e-5)
    contrast, _ = run(jax.random.key(0), image, label, AugmentSettings(contrast_probability=1.0, contrast=(0.5, 0.5)))
    np.testing.assert_allclose(contrast, image.mean() + 0.5 * (image - image.mean()), atol=1e-5)


def test_noise_is_never_stronger_than_said():
    image = jnp.full((64, 16, 16, 1), 0.5)
    settings = AugmentSettings(noise_probability=1.0, noise=0.04)
    noisy, _ = run(jax.random.key(0), image, jnp.zeros((64, 16, 16), jnp.int32), settings)
    spread = np.asarray(noisy).std(axis=(1, 2, 3))
    assert 0.03 < spread.max() < 0.048
    assert spread.min() < 0.01


def test_every_change_has_a_chance():
    names = {name.removesuffix("_probability") for name in CHANCES}
    changes = {change.replace("_rows", "").replace("_columns", "") for change in CHANGES}
    assert names == changes | {"focus", "unmixed", "dissection"}  # these draw apart from the others


def test_focus_moves_the_view_to_the_labels_at_the_share_asked_for():
    settings = AugmentSettings(focus_probability=1.0, focus=(0.5, 0.5))
    label = np.zeros((1, 64, 64), np.int32)
    label[0, 10:26, 30:46] = 4
    image = (label > 0).astype(np.float32)[..., None]
    seen, moved = augment(jax.random.key(0), jnp.asarray(image), jnp.asarray(label), settings)
    rows, columns = np.nonzero(np.asarray(moved[0]) == 4)
    # 16 of 64 pixels become half of 64, in the middle.
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 32
    assert (rows.min() + rows.max()) / 2 == (columns.min() + columns.max()) / 2 == 31.5
    assert np.asarray(seen)[0, 31, 31, 0] == 1.0


def test_focus_leaves_slices_without_labels_as_they_are():
    settings = AugmentSettings(focus_probability=1.0)
    image = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    seen, _ = augment(jax.random.key(0), jnp.asarray(image), jnp.zeros((1, 16, 16), jnp.int32), settings)
    np.testing.assert_allclose(seen, image, atol=1e-6)


def test_larger_stored_slices_come_out_at_the_size_asked_for():
    label = np.zeros((1, 32, 32), np.int32)
    label[0, 8:24, 8:24] = 1
    image = np.repeat((label > 0).astype(np.float32)[..., None], 2, axis=-1)
    seen, moved = augment(jax.random.key(0), jnp.asarray(image), jnp.asarray(label), PRESETS["none"], size=16)
    assert seen.shape == (1, 16, 16, 2)
    expected = np.zeros((16, 16), np.int32)
    expected[4:12, 4:12] = 1
    np.testing.assert_array_equal(moved[0], expected)


def test_codes_move_with_the_image_by_nearest_neighbour_before_they_are_drawn():
    codes = np.zeros((1, 32, 32, 1), np.uint8)
    codes[0, 8:24, 8:24] = 12
    label = (codes[..., 0] > 0).astype(np.int32) * 2
    seen, moved = augment(
        jax.random.key(1),
        jnp.zeros((1, 32, 32, 1)),
        jnp.asarray(label),
        AugmentSettings(rotation_probability=1.0, rotation_degrees=30.0),
        size=16,
        codes=jnp.asarray(codes),
        draw=lambda image, codes: (codes == 12).astype(jnp.float32),
    )
    inside = np.asarray(moved[0]) != 255
    np.testing.assert_array_equal(np.asarray(seen)[0, inside, 0] == 1.0, np.asarray(moved[0])[inside] == 2)


def test_flips_turn_codes_with_the_label():
    codes = np.zeros((8, 16, 16, 1), np.uint8)
    codes[:, 2:6, 3:9] = 14
    label = (codes[..., 0] > 0).astype(np.int32)
    settings = AugmentSettings(flip_left_right_probability=0.5, flip_up_down_probability=0.5)
    seen, moved = augment(
        jax.random.key(0),
        jnp.zeros((8, 16, 16, 1)),
        jnp.asarray(label),
        settings,
        codes=jnp.asarray(codes),
        draw=lambda image, codes: (codes == 14).astype(jnp.float32),
    )
    np.testing.assert_array_equal(np.asarray(seen)[..., 0], moved)
    assert not np.array_equal(moved, label)  # some were turned
