"""Test-time augmentation: a network sees each image several times, a little turned, scaled and shifted.

No flips: they swap the heart's sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.preprocess.augment import sample_linear


class View(NamedTuple):
    """How an image is shown: turned, magnified, and moved by a share of its side."""

    degrees: float = 0.0
    scale: float = 1.0
    down: float = 0.0
    right: float = 0.0


VIEWS = (
    View(),
    View(degrees=5.0),
    View(degrees=-5.0),
    View(scale=0.95),
    View(scale=1.05),
    View(down=0.02, right=-0.02),
    View(down=-0.02, right=0.02),
)
"""Within what the augmentation of training shows (`preprocess.augment`): the first is the image itself."""


def matrix(view: View, side: int) -> np.ndarray:
    """Return the `[2, 3]` matrix from (row, column, 1) of the view to (row, column) of the image, of `side` pixels."""
    angle, middle = np.radians(view.degrees), (side - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / view.scale
    moved = np.array([middle + view.down * side, middle + view.right * side])
    return np.column_stack([turn, middle - turn @ moved])


def inverse(forward: np.ndarray) -> np.ndarray:
    """Return the `[2, 3]` matrix that undoes another."""
    whole = np.vstack([forward, [0.0, 0.0, 1.0]])
    return np.linalg.inv(whole)[:2]


def sampled(images: jax.Array, through: jax.Array) -> jax.Array:
    """Return `images [B, S, S, C]` sampled where a `[2, 3]` matrix sends each pixel; 0 outside."""
    rows, columns = jnp.arange(images.shape[1])[:, None], jnp.arange(images.shape[2])[None, :]
    at = [a * rows + b * columns + c for a, b, c in (through[0], through[1])]
    return jax.vmap(lambda image: sample_linear(image, at[0], at[1]))(images)


def through_views(network: Callable[[jax.Array], jax.Array], image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean over all views and each view's own, of a network's probabilities.

    Args:
      network: from `[B, S, S, C]` to probabilities `[B, S, S, K]`.
      image: `[B, S, S, C]`, 0 for air.

    Returns:
      `[B, S, S, K]`, and `[T, B, S, S, K]`, both on the image's grid. Where a view does not reach, it does not count;
      what it says there is zero.
    """
    forward = np.stack([matrix(view, image.shape[1]) for view in VIEWS]).astype(np.float32)
    back = np.stack([inverse(one) for one in forward]).astype(np.float32)

    def seen(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found = network(sampled(image, pair[0]))
        reached = sampled(jnp.ones((1, *image.shape[1:3], 1), found.dtype), pair[1])
        return sampled(found, pair[1]), reached

    each, reached = jax.lax.map(seen, (forward, back))  # one after the other: all at once need their memory together
    return each.sum(axis=0) / reached.sum(axis=0), each
