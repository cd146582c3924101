"""From a stored batch to what the network receives, inside the jitted step. No files here."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from heartseg_jax.preprocess.augment import AugmentSettings, augment
from heartseg_jax.preprocess.host import Batch


def network_input(batch: Batch) -> jax.Array:
    """Return the images of a stored batch as the network receives them: `[B, S, S, C]` float32 in 0..1."""
    low, high = batch.window[:, None, None, :, 0], batch.window[:, None, None, :, 1]
    return jnp.clip((batch.image.astype(jnp.float32) - low) / (high - low), 0.0, 1.0)


def prepared(batch: Batch) -> Batch:
    """Return the batch with its image as the network receives it and its label as int32."""
    return batch._replace(image=network_input(batch), window=None, label=batch.label.astype(jnp.int32))


def augmented(batch: Batch, key: jax.Array, settings: AugmentSettings) -> Batch:
    """Return `prepared(batch)` with image and label augmented."""
    ready = prepared(batch)
    image, label = augment(key, ready.image, ready.label, settings)
    return ready._replace(image=image, label=label)
