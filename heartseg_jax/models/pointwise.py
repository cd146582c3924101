"""A matrix product at each pixel, whose results lie in a square: the 1x1 and the transposed 2x2 convolution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.models import kernels


def pointwise(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return the square `kernel @ x[b, i, j] + bias` at each place (side * i, side * j).

    Args:
      x: `[B, H, W, in]`.
      kernel: `[side, side, out, in]`, of x's dtype.
      bias: `[out]`, of x's dtype.

    Returns:
      `[B, side * H, side * W, out]`.
    """
    if kernels.in_lanes(x) and kernel.dtype == jnp.float32:
        found: jax.Array = _by_kernels(x, kernel, bias)
        return found
    batch, height, width, _ = x.shape
    side, _, outside, _ = kernel.shape
    y = jnp.einsum("bijc,xyoc->bixjyo", x, kernel)
    return y.reshape(batch, side * height, side * width, outside) + bias


@jax.custom_vjp
def _by_kernels(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    batch, height, width, _ = x.shape
    side, _, outside, _ = kernel.shape
    return kernels.call("pointwise", [(batch, side * height, side * width, outside)], x, kernel, bias)[0]


def _saved(x: Any, kernel: Any, bias: Any) -> Any:
    """Each argument comes with whether it is `perturbed`: whether its gradient is asked for."""
    wanted = x.perturbed, kernel.perturbed or bias.perturbed
    return _by_kernels(x.value, kernel.value, bias.value), (x.value, kernel.value, wanted)


def _gradients(saved: Any, change: Any) -> Any:
    x, kernel, (of_x_too, of_kernel_too) = saved
    if isinstance(change, jax.custom_derivatives.SymbolicZero):
        return None, None, None
    side, _, outside, inside = kernel.shape
    results, rows = side * side * outside, x.shape[0] * x.shape[1]
    slices = max(1, min(kernels.SLICES, rows, kernels.PARTS_BYTES // (4 * results * (inside + 1))))
    shapes = [x.shape if of_x_too else (0,), kernel.shape if of_kernel_too else (0,), (outside,)]
    of_x, of_kernel, of_bias, _ = kernels.call(
        "pointwise_gradients", [*shapes, (slices, results, inside + 1)], x, kernel, change
    )
    return of_x if of_x_too else None, *((of_kernel, of_bias) if of_kernel_too else (None, None))


_by_kernels.defvjp(_saved, _gradients, symbolic_zeros=True)
