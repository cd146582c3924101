"""Muon: kernels learn by orthogonalised momentum, everything else by Adam. No files here.

Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), kellerjordan.github.io/posts/muon.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from heartseg_jax.models.tree import is_within, path_name

MOMENTUM = 0.95
UPDATE_RMS = 0.2
"""Of an orthogonalised update: about that of Adam's, so that one learning rate serves both (Liu et al., "Muon is
scalable for LLM training", arXiv 2502.16982)."""
ITERATIONS = ((3.4445, -4.7750, 2.0315),) * 5
"""Jordan's coefficients, of each Newton-Schulz iteration."""


def scale_by_muon_or_adam() -> optax.GradientTransformation:
    """Return Muon for the kernels of convolutions, and Adam for the head, biases and BatchNorm.

    A kernel is the matrix of its first three axes by its last one, a transposed convolution's too, since a matrix is
    orthogonalised like its transpose. The head is left to Adam, as Jordan advises for the last layer.
    """
    muon = optax.chain(
        optax.trace(MOMENTUM, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(_with_adams_size, updates)),
    )
    kinds = {"muon": muon, "adam": optax.scale_by_adam()}
    return optax.multi_transform(kinds, lambda params: jax.tree_util.tree_map_with_path(_kind, params))


def orthogonalised(matrix: jax.Array) -> jax.Array:
    """Bring the singular values of a matrix `[n, m]` near 1, as `optax.contrib.scale_by_muon` does, for less.

    Every Newton-Schulz iteration multiplies the wide matrix by a polynomial of its product with its own transpose.
    These polynomials commute, so they are gathered in the small square matrices, and the wide one is multiplied twice
    instead of ten times: 2 m²n + 20 m³ products instead of 10 m²n + 5 m³. That needs full 32-bit products, since small
    negative eigenvalues that rounding makes would grow.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (jnp.linalg.norm(wide) + 1e-8)
    identity = jnp.eye(len(wide), dtype=wide.dtype)

    def iterate(carry: tuple[jax.Array, jax.Array], weights: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        gathered, square = carry
        factor = weights[0] * identity + weights[1] * square + weights[2] * (square @ square)
        return (factor @ gathered, factor @ square @ factor), None

    with jax.default_matmul_precision("float32"):
        weights = jnp.asarray(ITERATIONS, wide.dtype)  # looped over, which is less to compile than five in a row
        (gathered, _), _ = jax.lax.scan(iterate, (identity, wide @ wide.T), weights)
        wide = gathered @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _kind(path: Any, leaf: Any) -> str:
    return "muon" if leaf.ndim == 4 and not is_within(path_name(path), "head") else "adam"


def _with_adams_size(momentum: jax.Array) -> jax.Array:
    """Orthogonalise a kernel `[.., .., .., n]`, and scale its singular values from 1 to `UPDATE_RMS`."""
    matrix = momentum.reshape(-1, momentum.shape[3])
    return orthogonalised(matrix).reshape(momentum.shape) * (UPDATE_RMS * math.sqrt(max(matrix.shape)))
