"""BatchNorm and the ReLU behind it as one function, whose gradient keeps and computes no more than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from heartseg_jax.models import kernels

BATCH_NORM_EPSILON = 1e-3
"""Keras's default, which the brain model was trained with."""
OVER = (0, 1, 2)
"""Batch, height and width: what statistics are taken over."""


class NormReLU(nn.Module):
    """BatchNorm over all axes but the last, then ReLU; variables and numbers as those of `nn.BatchNorm`, to rounding.

    Attributes:
        momentum: share of the old statistics kept at each training step.
        dtype: of the result; statistics and parameters are float32.
    """

    momentum: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> the same shape. With `train` by the batch's own statistics, which the running ones follow."""
        features = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        if not train:
            out = (x - mean.value) * (jax.lax.rsqrt(var.value + BATCH_NORM_EPSILON) * scale) + bias
            return nn.relu(out.astype(self.dtype))
        out, found, spread = norm_relu(x, scale, bias)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * found
            var.value = self.momentum * var.value + (1 - self.momentum) * spread
        return out


def scale_and_shift(variables: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Return what BatchNorm of these variables multiplies by and adds in inference mode, [features] each."""
    params, stats = variables["params"], variables["batch_stats"]
    scale = params["scale"] * jax.lax.rsqrt(stats["var"] + BATCH_NORM_EPSILON)
    return {"scale": scale, "shift": params["bias"] - stats["mean"] * scale}


def norm_relu(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return relu(scale * (x - mean) / sqrt(var + epsilon) + bias), and mean and variance, which pass no gradient on.

    [B, H, W, C], [C] and [C] -> [B, H, W, C] of x's dtype, [C] and [C] float32.
    """
    out, mean, var = _norm_relu(x, scale, bias)
    return out, jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var)


@jax.custom_vjp
def _norm_relu(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    if kernels.in_lanes(x):
        epsilon = jnp.full((1,), BATCH_NORM_EPSILON)
        out, mean, var = kernels.call("norm_relu", [x.shape, scale.shape, scale.shape], x, scale, bias, epsilon)
        return out, mean, var
    wide = x.astype(jnp.float32)
    mean = wide.mean(OVER)
    var = jnp.maximum((wide * wide).mean(OVER) - mean * mean, 0.0)  # rounding may bring it below zero
    out = (wide - mean) * (jax.lax.rsqrt(var + BATCH_NORM_EPSILON) * scale) + bias
    return nn.relu(out.astype(x.dtype)), mean, var


def _saved(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
    out, mean, var = _norm_relu(x, scale, bias)
    return (out, mean, var), (x, out, mean, jax.lax.rsqrt(var + BATCH_NORM_EPSILON), scale)


def _gradients(saved: Any, changes: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The sums that are the gradients of scale and bias are also what the mean and the variance pass back."""
    x, out, mean, inverse, scale = saved
    if kernels.in_lanes(x):
        shapes = [x.shape, scale.shape, scale.shape]
        of_x, of_scale, of_bias = kernels.call("norm_relu_gradients", shapes, *saved, changes[0])
        return of_x, of_scale, of_bias
    change = jnp.where(out > 0, changes[0], 0).astype(jnp.float32)
    centred, count = x.astype(jnp.float32) - mean, x.size // x.shape[-1]
    of_bias, of_scale = change.sum(OVER), (change * centred).sum(OVER) * inverse
    slope = scale * inverse
    of_x = slope * change - centred * (slope * inverse * of_scale / count) - slope * of_bias / count
    return of_x.astype(x.dtype), of_scale, of_bias


_norm_relu.defvjp(_saved, _gradients)
