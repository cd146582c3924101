"""How much the members of an ensemble, or the views of one network, agree: what two of them share, and their Dice."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def shared_pixels(labels: jax.Array, mask: jax.Array, classes: int) -> jax.Array:
    """Return `[M, M, K]` int32: the pixels that members i and j both label k, of `labels [M, B, S, S]`.

    `mask [B]` is 1 for the examples that count.
    """
    real = jnp.where(mask[None, :, None, None] > 0, labels, classes)

    def shared(one: jax.Array) -> jax.Array:
        both = jnp.where(real == one[None], real, classes)
        return jnp.stack([(both == k).sum(axis=(1, 2, 3), dtype=jnp.int32) for k in range(classes)], axis=-1)

    return jax.lax.map(shared, real)


def mean_pairwise_dice(shared: np.ndarray) -> np.ndarray:
    """Return the mean Dice `[K]` over all pairs of members, of `shared [M, M, K]`.

    Pairs in which neither has the label are left out; NaN where that leaves none.
    """
    own = shared[np.arange(len(shared)), np.arange(len(shared))].astype(np.float64)
    first, second = np.triu_indices(len(shared), 1)
    either = own[first] + own[second]
    dice = np.divide(2.0 * shared[first, second], either, out=np.zeros_like(either), where=either > 0)
    pairs = (either > 0).sum(axis=0)
    return np.divide(dice.sum(axis=0), pairs, out=np.full(shared.shape[-1], np.nan), where=pairs > 0)
