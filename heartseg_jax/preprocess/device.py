"""From a stored batch to what the network receives, inside the jitted step. No files here."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from heartseg_jax.preprocess.augment import augment
from heartseg_jax.preprocess.augment_settings import PRESETS, AugmentSettings
from heartseg_jax.preprocess.host import Batch

SYNTHESIS = 0x7155
"""Folded into a step's key for `synthesise`, so that augmentation draws the same with and without tissue maps."""


def network_input(batch: Batch, key: jax.Array | None = None) -> jax.Array:
    """Return the images of a stored batch as the network receives them: `[B, S, S, C]` float32 in 0..1.

    Images of tissue codes are synthesised by `key`; by a fixed one where only prediction or a score is asked for.
    """
    image = _windowed(batch)
    return image if batch.tissue is None else _drawn(batch, image, batch.image, key)


def _windowed(batch: Batch) -> jax.Array:
    low, high = batch.window[:, None, None, :, 0], batch.window[:, None, None, :, 1]
    return jnp.clip((batch.image.astype(jnp.float32) - low) / (high - low), 0.0, 1.0)


def _drawn(
    batch: Batch,
    image: jax.Array,
    codes: jax.Array,
    key: jax.Array | None,
    settings: AugmentSettings = PRESETS["none"],
) -> jax.Array:
    """Return `image [B, S, S, C]`, where an example is of tissue codes `[B, S, S, P]` made from them."""
    from heartseg_jax.preprocess.synthesis import synthesise  # most trainings, and all predictions, do without

    drawn = jax.random.fold_in(jax.random.key(0) if key is None else key, SYNTHESIS)
    marked = batch.tissue[:, None, None, None]
    codes = jnp.where(marked, codes, 0).astype(jnp.int32)
    # One key for all planes: neighbours share their contrast, and the generator is compiled once.
    chances = (settings.unmixed_probability, settings.dissection_probability)
    made = jax.vmap(lambda plane: synthesise(drawn, plane, *chances), in_axes=-1, out_axes=-1)(codes)
    return jnp.where(marked, jnp.broadcast_to(made, image.shape), image)


def prepared(batch: Batch, key: jax.Array | None = None) -> Batch:
    """Return the batch with its image as the network receives it (see `network_input`) and its label as int32."""
    return batch._replace(image=network_input(batch, key), window=None, label=batch.label.astype(jnp.int32))


def augmented(batch: Batch, key: jax.Array, settings: AugmentSettings, size: int | None = None) -> Batch:
    """Return `prepared(batch, key)` with image and label augmented, at `size` where the stored slices are larger.

    Tissue codes are moved before an image is made from them, so that it is as sharp in a closer view.
    """
    codes = None if batch.tissue is None else batch.image
    draw = None if codes is None else lambda image, moved: _drawn(batch, image, moved, key, settings)
    label = batch.label.astype(jnp.int32)
    image, label = augment(key, _windowed(batch), label, settings, size=size, codes=codes, draw=draw)
    return batch._replace(image=image, window=None, label=label)
