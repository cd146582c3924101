"""Turned, scaled and shifted images, and probabilities brought back from them."""

import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.inference.views import VIEWS, View, inverse, matrix, sampled, through_views


@pytest.mark.parametrize(
    ("view", "place", "seen"),
    [
        (View(), (3, 7), (3, 7)),
        (View(down=0.25, right=-0.25), (8, 8), (4, 12)),  # of 16 pixels: 4 down, 4 to the left
        (View(scale=2.0), (7.5, 9.5), (7.5, 8.5)),  # 2 pixels from the middle show what lies 1 from it
        (View(degrees=90.0), (7.5, 10.5), (4.5, 7.5)),  # a quarter turn: 3 pixels to the right show what lies 3 above
    ],
)
def test_a_view_looks_where_it_should(view, place, seen):
    found = matrix(view, 16) @ np.array([*place, 1.0])
    np.testing.assert_allclose(found, seen, atol=1e-6)
    np.testing.assert_allclose(inverse(matrix(view, 16)) @ np.array([*found, 1.0]), place, atol=1e-6)


def test_the_first_view_is_the_image_and_none_is_mirrored():
    assert VIEWS[0] == View()
    assert all(np.linalg.det(matrix(view, 16)[:, :2]) > 0 for view in VIEWS)
    image = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(sampled(image, jnp.asarray(matrix(View(), 16), jnp.float32)), image, atol=1e-6)


def test_what_every_view_says_comes_back_to_its_place():
    """A network that repeats its image: all views together give a smooth image back, at the same place."""
    rows, columns = np.mgrid[:32, :32] / 32
    bump = np.exp(-((rows - 0.4) ** 2 + (columns - 0.6) ** 2) / 0.08).astype(np.float32)
    image = np.stack([bump, 1 - bump], axis=-1)[None]
    mean, each = through_views(lambda seen: jnp.stack([seen[..., 0], 1 - seen[..., 0]], axis=-1), jnp.asarray(image))
    assert each.shape == (len(VIEWS), *image.shape)
    np.testing.assert_allclose(mean, image, atol=0.02)
    assert np.abs(np.roll(bump, 1, axis=0) - bump)[1:].max() > 0.04  # a pixel beside it would not pass
    np.testing.assert_allclose(np.asarray(mean).sum(axis=-1), 1, atol=1e-5)
