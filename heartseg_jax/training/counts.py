"""Predictions counted on the device: merged labels, confusion matrix, foreground fraction.

`evaluation/metrics.py` computes scores from these counts. Everywhere `logits` is [B, H, W, C], `label` [B, H, W] int32
(0 to C - 1, or 255), `merge` [B, C] int32 and `mask` [B], 1 for a real example.
"""

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import counts_as
from heartseg_jax.training.losses import merged_truth


def merged_argmax(logits: jax.Array, merge: jax.Array) -> jax.Array:
    """Return the most probable label [B, H, W] int32 where channels that count as one have their probabilities summed.

    Only labels that count as themselves (`merge[k] == k`) occur.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    # Full precision: TF32 would round two close probabilities to a tie.
    merged = jnp.einsum(
        "bijc,bck->bijk", probabilities, counts_as(merge).astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.argmax(merged, axis=-1).astype(jnp.int32)


def confusion_counts(logits: jax.Array, label: jax.Array, merge: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the pixels by truth (rows) and prediction (columns), both merged: [C, C] int32, exact up to 2^31 pixels.

    Ignored pixels and padding are left out.
    """
    num_classes = logits.shape[-1]
    target, valid = merged_truth(label, merge, mask)
    cell = target * num_classes + merged_argmax(logits, merge)
    counts = jnp.zeros(num_classes**2, jnp.int32).at[cell.ravel()].add(valid.ravel().astype(jnp.int32))
    return counts.reshape(num_classes, num_classes)


def pixel_shares(logits: jax.Array, label: jax.Array, merge: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Return what a training step reports of its batch besides the loss, as shares of the pixels that count.

    They are "foreground_fraction", "true_foreground_fraction" and "pixel_accuracy", float32 scalars in [0, 1]; all 0
    where no pixel is valid. An accuracy near 1 does not show a collapse; the two fractions do.
    """
    target, valid = merged_truth(label, merge, mask)
    predicted = merged_argmax(jax.lax.stop_gradient(logits), merge)
    pixels = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    share = lambda marked: jnp.sum(valid & marked, dtype=jnp.float32) / pixels  # noqa: E731
    return {
        "foreground_fraction": share(predicted > 0),
        "true_foreground_fraction": share(target > 0),
        "pixel_accuracy": share(predicted == target),
    }
