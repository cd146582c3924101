"""3x3 convolution whose weight gradient is computed as matrix products, image by image, on a CPU.

The same numbers to rounding as XLA's own gradient, which is slow on a CPU where there are few channels: its sum runs
over all pixels of the batch, and nothing of it stays in the cache.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(image: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """As `jax.lax.conv_general_dilated`, for `flax.linen.Conv`; 3x3 with stride 1 takes the way of this module."""
    if kernel.shape[:2] == (3, 3) and image.dtype == jnp.float32:
        return _conv3x3(image, kernel)
    return jax.lax.conv_general_dilated(image, kernel, *args, **kwargs)


def _forward(image: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


@jax.custom_vjp
def _conv3x3(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in] and [3, 3, in, out] -> [B, H, W, out], zeros around the image."""
    return _forward(image, kernel)


def _saved(image: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(image, kernel), (image, kernel)


def _gradients(saved: tuple[jax.Array, jax.Array], change: jax.Array) -> tuple[jax.Array, jax.Array]:
    image, kernel = saved
    of_image = jax.vjp(lambda image: _forward(image, kernel), image)[1](change)[0]
    of_kernel = jax.lax.platform_dependent(image, change, cpu=_kernel_gradient, default=_kernel_gradient_of_xla)
    return of_image, of_kernel


_conv3x3.defvjp(_saved, _gradients)


def _kernel_gradient_of_xla(image: jax.Array, change: jax.Array) -> jax.Array:
    kernel = jnp.zeros((3, 3, image.shape[-1], change.shape[-1]), image.dtype)
    return jax.vjp(lambda kernel: _forward(image, kernel), kernel)[1](change)[0]


def _kernel_gradient(image: jax.Array, change: jax.Array) -> jax.Array:
    """[B, H, W, in] and the output's gradient [B, H, W, out] -> [3, 3, in, out].

    Tap (i, j) is the sum over pixels of `image[r + i - 1, c + j - 1] * change[r, c]`. The columns' shifts are
    taken of the image and the rows' of the gradient, so that one product `[3 in, H W] @ [H W, 3 out]` has all nine.
    """
    height, width, inside = image.shape[1:]
    outside = change.shape[-1]

    def add(total: jax.Array, example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        wide = jnp.pad(example[0], ((0, 0), (1, 1), (0, 0)))
        tall = jnp.pad(example[1], ((1, 1), (0, 0), (0, 0)))
        columns = jnp.concatenate([wide[:, j : j + width] for j in range(3)], axis=-1).reshape(-1, 3 * inside)
        rows = jnp.concatenate([tall[2 - i : 2 - i + height] for i in range(3)], axis=-1).reshape(-1, 3 * outside)
        return total + columns.T @ rows, None

    total, _ = jax.lax.scan(add, jnp.zeros((3 * inside, 3 * outside), image.dtype), (image, change))
    return total.reshape(3, inside, 3, outside).transpose(2, 0, 1, 3)
