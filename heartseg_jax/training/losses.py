"""The loss: batch Dice + cross-entropy over merged labels. Pure functions of arrays; counts are in `counts.py`.

Labels must be below the number of classes C, or 255: a label out of range cannot be seen under `jit` (indexing
clamps it), so the host checks them before any cast.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.preprocess.host import Batch


def loss_of(train: Any) -> Callable[[jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]:
    """Return the loss of a config's `train` group: `(logits, batch) -> (loss, its unweighted parts)`."""
    weights = train.dice_weight, train.cross_entropy_weight
    return lambda logits, batch: segmentation_loss(logits, batch.label, batch.merge, batch.mask, *weights)


def merged_truth(label: jax.Array, merge: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (target, valid), both [B, H, W]: what each pixel counts as, and whether it counts at all.

    Channel c counts as `merge[b, c]`. Where a pixel is not valid its target is background's.
    """
    ignored = label == IGNORED
    valid = ~ignored & (mask > 0)[:, None, None]
    # 255 would be clamped to the last class: it must be gone before anything is indexed with it.
    safe = jnp.where(ignored, 0, label)
    target = jax.vmap(lambda table, index: table[index])(merge, safe)
    return target, valid


def segmentation_loss(
    logits: jax.Array,
    label: jax.Array,
    merge: jax.Array,
    mask: jax.Array,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of batch Dice loss and cross-entropy, both over merged labels.

    The probability of a merged class is the sum over its channels,
    q_k = sum_{c: merge[c] = k} softmax(logits)_c: the marginal loss of Shi et al., "Marginal loss and exclusion
    loss for partially supervised multi-organ segmentation", Medical Image Analysis 70 (2021) 101979. Moving
    probability between channels that count as one changes nothing.

    Cross-entropy is the mean of -log q_target over valid pixels (label is not 255, mask is 1).

    The Dice term is 1 - 2 sum(q_k t_k) / (sum(q_k) + sum(t_k)), the sums taken over all valid pixels of the
    batch, averaged over the foreground classes which the truth has in this batch. Absent classes are left out
    (cross-entropy punishes false positives there); with none present the term is 0. An example whose source
    does not know class k (`merge[k] != k`) adds nothing to it.

    Args:
        logits: [B, H, W, C].
        label: [B, H, W] int32, 0 to C - 1 or 255 (ignored).
        merge: [B, C] int32, as `LabelSet.check_merge` accepts it.
        mask: [B], 1 for a real example, 0 for padding.
        dice_weight: factor of the Dice term.
        cross_entropy_weight: factor of the cross-entropy.

    Returns:
        (loss, {"dice_loss", "cross_entropy"}), float32 scalars; the parts are unweighted.
    """
    target, valid = merged_truth(label, merge, mask)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    counts_as_target = merge[:, None, None, :] == target[..., None]
    log_q = jax.nn.logsumexp(log_probabilities, axis=-1, where=counts_as_target)

    valid_pixels = jnp.sum(valid, dtype=jnp.float32)
    cross_entropy = -jnp.sum(jnp.where(valid, log_q, 0.0)) / jnp.maximum(valid_pixels, 1.0)

    dice_loss = _batch_dice_loss(log_probabilities, log_q, target, valid, merge)
    loss = dice_weight * dice_loss + cross_entropy_weight * cross_entropy
    return loss, {"dice_loss": dice_loss, "cross_entropy": cross_entropy}


def _batch_dice_loss(
    log_probabilities: jax.Array, log_q: jax.Array, target: jax.Array, valid: jax.Array, merge: jax.Array
) -> jax.Array:
    """Mean of 1 - Dice over the foreground classes present; `log_q` is the log-probability of the target."""
    num_classes = log_probabilities.shape[-1]
    classes = jnp.arange(num_classes)
    truth = (target[..., None] == classes) & valid[..., None]
    # q_k is only ever multiplied by t_k where k is the target, and there it is exp(log_q).
    intersection = jnp.sum(jnp.where(truth, jnp.exp(log_q)[..., None], 0.0), axis=(0, 1, 2))
    true_pixels = jnp.sum(truth, axis=(0, 1, 2), dtype=jnp.float32)
    # Merging commutes with the sum over pixels, so it is done on [B, C] and not on every pixel. A class that
    # the source does not know receives nothing here, since no channel counts as it.
    by_channel = jnp.sum(jnp.where(valid[..., None], jnp.exp(log_probabilities), 0.0), axis=(1, 2))
    counts_as = merge[:, :, None] == classes
    predicted = jnp.sum(jnp.where(counts_as, by_channel[:, :, None], 0.0), axis=(0, 1))

    present = (true_pixels > 0) & (classes > 0)
    dice = 2 * intersection / jnp.where(present, predicted + true_pixels, 1.0)
    return jnp.sum(jnp.where(present, 1 - dice, 0.0)) / jnp.maximum(jnp.sum(present), 1)
