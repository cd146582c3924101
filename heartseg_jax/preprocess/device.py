"""From a stored batch to what the network receives, inside the jitted step. No files here."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from heartseg_jax.preprocess.augment import AugmentSettings, augment
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.preprocess.synthesis import synthesise

SYNTHESIS = 0x7155
"""Folded into a step's key for `synthesise`, so that augmentation draws the same with and without tissue maps."""


def network_input(batch: Batch, key: jax.Array | None = None) -> jax.Array:
    """Return the images of a stored batch as the network receives them: `[B, S, S, C]` float32 in 0..1.

    Images of tissue codes are synthesised by `key`; by a fixed one where only prediction or a score is asked for.
    """
    low, high = batch.window[:, None, None, :, 0], batch.window[:, None, None, :, 1]
    image = jnp.clip((batch.image.astype(jnp.float32) - low) / (high - low), 0.0, 1.0)
    if batch.tissue is None:
        return image
    drawn = jax.random.fold_in(jax.random.key(0) if key is None else key, SYNTHESIS)
    marked = batch.tissue[:, None, None, None]
    codes = jnp.where(marked, batch.image, 0).astype(jnp.int32)
    # One key for all planes: neighbours share their contrast, and the generator is compiled once.
    made = jax.vmap(synthesise, in_axes=(None, -1), out_axes=-1)(drawn, codes)
    return jnp.where(marked, jnp.broadcast_to(made, image.shape), image)


def prepared(batch: Batch, key: jax.Array | None = None) -> Batch:
    """Return the batch with its image as the network receives it (see `network_input`) and its label as int32."""
    return batch._replace(image=network_input(batch, key), window=None, label=batch.label.astype(jnp.int32))


def augmented(batch: Batch, key: jax.Array, settings: AugmentSettings) -> Batch:
    """Return `prepared(batch, key)` with image and label augmented."""
    ready = prepared(batch, key)
    image, label = augment(key, ready.image, ready.label, settings)
    return ready._replace(image=image, label=label)
