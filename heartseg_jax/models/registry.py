"""The network of a config, and its logits. No files here.

To add an architecture: a module beside `unet.py` with a Linen class, a line in `ARCHITECTURES` and its name among the
choices of `model.architecture` in config/schema.py.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.models.unet import UNet

ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet}
"""Networks by the name that `model.architecture` gives.

Each has the attributes of `UNet` and its call, `(image, train, frozen) -> logits`. Its parameters lie below `encoder`
(in `stage1` ... `stageN`, finest first), `decoder` and `head`: phases freeze and thaw these groups.
"""


def build_model(model: Any, labels: LabelSet) -> Any:
    """Return the network of a config's `model` group, with a channel for each class of `labels`."""
    return ARCHITECTURES[model.architecture](
        width=model.width,
        levels=model.levels,
        num_classes=labels.num_classes,
        norm=model.norm,
        batch_norm_momentum=model.batch_norm_momentum,
        dropout=model.dropout,
        fold=model.fold,
        dtype=jnp.dtype(model.dtype),
    )


def apply_model(model: nn.Module, params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
    """Return the logits `[B, S, S, classes]` in inference mode."""
    logits: Any = model.apply({"params": params, "batch_stats": batch_stats}, image, train=False)
    return logits
