"""Muon: kernels learn by orthogonalised momentum, everything else by Adam. No files here.

Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), kellerjordan.github.io/posts/muon.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from heartseg_jax.models.tree import is_within, path_name

UPDATE_RMS = 0.2
"""Of an orthogonalised update: about that of Adam's, so that one learning rate serves both (Liu et al., "Muon is
scalable for LLM training", arXiv 2502.16982)."""
ITERATIONS = ((3.4445, -4.7750, 2.0315),) * 5
"""Jordan's coefficients, of each Newton-Schulz iteration: given one by one, optax loops over them, which is
less to compile than five iterations in a row."""


def scale_by_muon_or_adam() -> optax.GradientTransformation:
    """Return Muon for the kernels of convolutions, and Adam for the head, biases and BatchNorm.

    A kernel is the matrix of its first three axes by its last one, a transposed convolution's too, since a matrix is
    orthogonalised like its transpose. The head is left to Adam, as Jordan advises for the last layer.
    """
    muon = optax.chain(
        scale_by_muon(ns_coeffs=ITERATIONS, weight_dimension_numbers=_axes),
        optax.stateless(lambda updates, _: jax.tree.map(_with_adams_size, updates)),
    )
    kinds = {"muon": muon, "adam": optax.scale_by_adam()}
    return optax.multi_transform(kinds, lambda params: jax.tree_util.tree_map_with_path(_kind, params))


def _kind(path: Any, leaf: Any) -> str:
    return "muon" if leaf.ndim == 4 and not is_within(path_name(path), "head") else "adam"


def _axes(kernels: Any) -> Any:
    return jax.tree.map(lambda _: MuonDimensionNumbers((0, 1, 2), 3), kernels)


def _with_adams_size(kernel: jax.Array) -> jax.Array:
    """Scale a matrix `[.., .., .., n]` whose singular values are 1 to `UPDATE_RMS`."""
    columns = kernel.shape[3]
    return kernel * (UPDATE_RMS * math.sqrt(max(columns, kernel.size // columns)))
