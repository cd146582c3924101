"""Smooth random fields on the device: values drawn at a few nodes, and interpolated between them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def smooth_fields(key: jax.Array, batch: int, side: int, nodes: Sequence[int]) -> jax.Array:
    """Return [len(nodes), B, S, S]: one random field for each number of nodes per side, of unit variance at its nodes.

    The more nodes, the finer the field.
    """
    fields = []
    for number, count in enumerate(nodes):
        drawn = jax.random.normal(jax.random.fold_in(key, number), (batch * count * count,))
        matrix = _upsampling(count, side)
        coarse = drawn.reshape(batch, count, count)
        fields.append(jnp.einsum("ia,bac,jc->bij", matrix, coarse, matrix))
    return jnp.stack(fields)


def _upsampling(nodes: int, side: int) -> np.ndarray:
    """[side, nodes]: linear interpolation between nodes."""
    position = np.linspace(0, nodes - 1, side)
    return np.clip(1 - np.abs(position[:, None] - np.arange(nodes)[None, :]), 0, 1).astype(np.float32)
