"""3x3 convolution in the form in which a CPU computes it fastest; the same numbers to rounding as XLA's own.

Two things are slow in XLA's convolutions on a CPU. The gradient of a kernel with few channels: its sum runs over all
pixels of the batch, and nothing of it stays in the cache. And all of a deep layer, with many channels and few pixels,
which reads a kernel that is larger than the image; its input's gradient also turns that kernel around at every step.
The first is computed image by image here (`_kernel_gradient`), the second as matrix products (`_is_deep`).

XLA also leaves the second core idle in most of them, and computes more products than are needed. Where
`heartseg_jax/native` could be compiled, all layers are computed by its kernels instead (`kernels.use_native`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from heartseg_jax.models import kernels

LAYOUT = ("NHWC", "HWIO", "NHWC")
TAPS = tuple((i, j) for i in range(3) for j in range(3))


def convolve(images: Sequence[jax.Array], kernel: jax.Array, bias: jax.Array, *, relu: bool = False) -> jax.Array:
    """Convolve 3x3 with stride 1 and zeros around the image, add the bias, and with `relu` cut at zero.

    Args:
      images: one image `[B, H, W, in]`, or two that stand side by side in its channels.
      kernel: `[3, 3, in, out]`, of the images' dtype.
      bias: `[out]`.
      relu: whether what is below zero becomes zero.

    Returns:
      `[B, H, W, out]`.
    """
    if _by_native(images, kernel):
        found: jax.Array = _native_convolution(relu, tuple(images), kernel, bias)
        return found
    image = images[0] if len(images) == 1 else jnp.concatenate(images, axis=-1)
    out = conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT) + bias
    return jax.nn.relu(out) if relu else out


def _by_native(images: Sequence[jax.Array], kernel: jax.Array) -> bool:
    fits = kernel.dtype == jnp.float32 and kernel.shape[-1] % kernels.LANES == 0 and len(images) <= 2
    return kernels.uses_native() and fits and 0 not in images[0].shape


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _native_convolution(relu: bool, images: tuple[jax.Array, ...], kernel: jax.Array, bias: jax.Array) -> jax.Array:
    name = "convolution_relu" if relu else "convolution"
    return kernels.call(name, [(*images[0].shape[:3], kernel.shape[-1])], *images, kernel, bias)[0]


def _native_saved(relu: bool, images: Any, kernel: Any, bias: Any) -> Any:
    """Each argument comes with whether it is `perturbed`: whether its gradient is asked for."""
    given = tuple(image.value for image in images)
    out = _native_convolution(relu, given, kernel.value, bias.value)
    wanted = any(image.perturbed for image in images), kernel.perturbed or bias.perturbed
    return out, (given, kernel.value, out if relu else None, wanted)


def _native_gradients(relu: bool, saved: Any, change: Any) -> Any:
    """What is not asked for is not computed; the rest is one call.

    In two calls XLA would put off the gradients of all kernels to the end of the backward pass, and keep what they are
    computed of until then.
    """
    images, kernel, out, (of_images_too, of_kernel_too) = saved
    if isinstance(change, jax.custom_derivatives.SymbolicZero):
        return None, None, None
    if relu:
        change = jnp.where(out > 0, change, 0.0)
    of_images: Any = None
    by_kernels = of_images_too and kernels.in_lanes(*images)
    if of_images_too and not by_kernels:
        image = jnp.concatenate(images, axis=-1)
        of_image = jax.vjp(lambda image: _forward(image, kernel), image)[1](change)[0]
        of_images = tuple(jnp.split(of_image, [images[0].shape[-1]][: len(images) - 1], axis=-1))
    inside, outside = kernel.shape[2:]
    slices = _slices(inside, outside)
    image_shapes = [image.shape for image in images]
    kernel_shapes = [kernel.shape, (outside,), (slices, 9 * inside + 1, outside) if slices > 1 else (1,)]
    if by_kernels and of_kernel_too:
        found = kernels.call("convolution_gradients", image_shapes + kernel_shapes, *images, kernel, change)
        return tuple(found[: len(images)]), found[-3], found[-2]
    if by_kernels:
        of_images = tuple(kernels.call("convolution_image_gradient", image_shapes, change, kernel))
    if not of_kernel_too:
        return of_images, None, None
    of_kernel, of_bias, _ = kernels.call("convolution_kernel_gradient", kernel_shapes, *images, change)
    return of_images, of_kernel, of_bias


_native_convolution.defvjp(_native_saved, _native_gradients, symbolic_zeros=True)


def _slices(inside: int, outside: int) -> int:
    """In how many slices of the batch a kernel's gradient is summed: a power of two."""
    most = max(1, min(kernels.SLICES, kernels.PARTS_BYTES // (36 * inside * outside)))
    return 1 << (most.bit_length() - 1)


def conv_general_dilated(image: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """As `jax.lax.conv_general_dilated`; 3x3 with stride 1 in float32 takes the way of this module."""
    if kernel.shape[:2] == (3, 3) and image.dtype == jnp.float32:
        return _conv3x3(image, kernel)
    return jax.lax.conv_general_dilated(image, kernel, *args, **kwargs)


@jax.custom_vjp
def _conv3x3(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B, H, W, in] and [3, 3, in, out] -> [B, H, W, out], zeros around the image."""
    on_cpu = _forward_of_matrices if _is_deep(image, kernel) else _forward
    return jax.lax.platform_dependent(image, kernel, cpu=on_cpu, default=_forward)


def _saved(image: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv3x3(image, kernel), (image, kernel)


def _gradients(saved: tuple[jax.Array, jax.Array], change: jax.Array) -> tuple[jax.Array, jax.Array]:
    if _is_deep(*saved):
        return jax.lax.platform_dependent(*saved, change, cpu=_gradients_of_matrices, default=_gradients_of_xla)
    return jax.lax.platform_dependent(*saved, change, cpu=_gradients_by_image, default=_gradients_of_xla)


_conv3x3.defvjp(_saved, _gradients)


def _is_deep(image: jax.Array, kernel: jax.Array) -> bool:
    """Whether the kernel is at least twice as large as the nine taps of all the batch's pixels."""
    batch, height, width, _ = image.shape
    return 2 * batch * height * width <= kernel.shape[-1]


def _forward(image: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


def _gradients_of_xla(image: jax.Array, kernel: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
    of_image, of_kernel = jax.vjp(_forward, image, kernel)[1](change)
    return of_image, of_kernel


def _gradients_by_image(image: jax.Array, kernel: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
    of_image = jax.vjp(lambda image: _forward(image, kernel), image)[1](change)[0]
    return of_image, _kernel_gradient(image, change)


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


def _forward_of_matrices(image: jax.Array, kernel: jax.Array) -> jax.Array:
    outside = kernel.shape[-1]
    return (_taps(image) @ kernel.reshape(-1, outside)).reshape(*image.shape[:3], outside)


def _gradients_of_matrices(image: jax.Array, kernel: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The image's gradient is what each tap sends back, shifted to where it came from and summed."""
    batch, height, width, inside = image.shape
    changes, weights = change.reshape(-1, change.shape[-1]), kernel.reshape(-1, kernel.shape[-1])
    sent = (changes @ weights.T).reshape(batch, height, width, 9, inside)
    wide = jnp.pad(sent, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
    back = [wide[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width, 3 * i + j] for i, j in TAPS]
    return sum(back[1:], back[0]), (_taps(image).T @ changes).reshape(kernel.shape)


def _taps(image: jax.Array) -> jax.Array:
    """[B, H, W, in] -> [B H W, 9 in]: what the kernel sees at each pixel, in the order of its weights."""
    height, width, inside = image.shape[1:]
    wide = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([wide[:, i : i + height, j : j + width] for i, j in TAPS], axis=-1).reshape(-1, 9 * inside)
