"""Recalibrates BatchNorm's running statistics on given images. No files here."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.device import network_input
from heartseg_jax.preprocess.host import Batch


def recalibrate(model: UNet, params: Any, batch_stats: Any, batches: Iterable[Batch]) -> Any:
    """Return `batch_stats` replaced by the mean and variance of every BatchNorm's input over `batches`.

    Each batch goes through the network normalised by its own statistics, as in training, so that a deep layer is
    measured behind layers that already work. The variance is that of all pixels of all batches: the mean of the
    batches' variances plus the variance of their means.

    `batches`, at least one, are stored batches of equal shape; no augmentation is applied.
    """
    measure = _measurer(model)
    measured = [measure(params, batch_stats, batch) for batch in batches]

    averages = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *measured)

    def spread(tree: Any, every: list[Any]) -> Any:
        if "mean" in tree and "var" in tree:
            means = jnp.stack([each["mean"] for each in every])
            return {"mean": tree["mean"], "var": tree["var"] + jnp.var(means, axis=0)}
        return {name: spread(tree[name], [each[name] for each in every]) for name in tree}

    return spread(averages, measured)


@functools.lru_cache(maxsize=16)
def _measurer(model: UNet) -> Any:
    # With a momentum of 0, the statistics after one pass are those of that batch.
    measuring = model.clone(batch_norm_momentum=0.0, dropout=0.0)

    @jax.jit
    def measure(params: Any, batch_stats: Any, batch: Batch) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        _, updates = measuring.apply(variables, network_input(batch), train=True, mutable=["batch_stats"])
        return updates["batch_stats"]

    return measure
