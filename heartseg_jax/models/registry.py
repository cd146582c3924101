"""From a stored batch to logits: what training, evaluation and prediction do alike. No files here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.models.unet import UNet

Batch = dict[str, jax.Array]


def build_model(model: Any, labels: LabelSet) -> UNet:
    """Return the network of a config's `model` group, with a channel for each class of `labels`."""
    return UNet(
        width=model.width,
        levels=model.levels,
        num_classes=labels.num_classes,
        norm=model.norm,
        batch_norm_momentum=model.batch_norm_momentum,
        dropout=model.dropout,
        dtype=jnp.dtype(model.dtype),
    )


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of one number of a compute dtype."""
    return jnp.dtype(dtype).itemsize


def network_input(batch: Batch) -> jax.Array:
    """Return the images as the network receives them: `[B, S, S, 3]` float32 in 0..1 through their window."""
    low, high = batch["window"][:, 0, None, None, None], batch["window"][:, 1, None, None, None]
    image = jnp.clip((batch["image"].astype(jnp.float32) - low) / (high - low), 0.0, 1.0)
    return jnp.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def apply_model(model: UNet, params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
    """Return the logits `[B, S, S, classes]` in inference mode."""
    logits: Any = model.apply({"params": params, "batch_stats": batch_stats}, image, train=False)
    return logits
