"""How sure the networks are of what they label: the mean probability of a structure's own voxels, from two sums."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def sums_on_device(probabilities: Any, labels: Any) -> Any:
    """Return `[2, K]` float32 of one slice: how many pixels have each label, and the sum of its probability in them.

    Args:
      probabilities: `[H, W, K]` float32.
      labels: `[H, W]`, the index of the largest of these.

    Background is not summed. Up to 2^24 pixels are counted exactly.
    """
    own = labels[..., None] == jnp.arange(1, probabilities.shape[-1], dtype=labels.dtype)
    pixels = own.sum(axis=(0, 1), dtype=jnp.float32)
    probability = jnp.where(own, probabilities[..., 1:], 0.0).sum(axis=(0, 1))
    return jnp.pad(jnp.stack([pixels, probability]), ((0, 0), (1, 0)))


def sums_on_host(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the same as float64, of `probabilities [..., K]` and `labels [...]` of any number of slices."""
    classes, marked = probabilities.shape[-1], labels > 0
    own, largest = labels[marked], probabilities[marked].max(axis=-1)
    return np.stack([np.bincount(own, weights, classes) for weights in (None, largest)]).astype(np.float64)


def mean_probability(sums: np.ndarray) -> np.ndarray:
    """Return the mean probability `[K]` of each label's own pixels, of sums `[2, K]`; NaN where it has none."""
    pixels, probability = np.asarray(sums, np.float64)
    mean = np.divide(probability, pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
    return np.minimum(mean, 1)  # sums of float32 may be a little too large
