"""The network of a config, and its logits. No files here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.models.unet import UNet


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


def apply_model(model: UNet, params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
    """Return the logits `[B, S, S, classes]` in inference mode."""
    logits: Any = model.apply({"params": params, "batch_stats": batch_stats}, image, train=False)
    return logits
