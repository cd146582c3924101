"""Ways to compute a 3x3 convolution of few channels and its kernel's gradient on a CPU, side by side.

    python benchmarks/convolution_forms.py [--batch=8] [--side=80] [--channels=16] [--rounds=5]

Each form gives the same numbers to rounding (checked before anything is timed). The forms take turns; a row has the
median time of a call, and its ratio to that of the form in use, the median over the rounds: below 1 it is faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.models import convolution

CALLS = 20
TOLERANCE = 1e-3


def plain(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own."""
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=convolution.LAYOUT)


def padded(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Half as many output channels again, of zeros."""
    outputs = kernel.shape[-1]
    return plain(image, jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, outputs // 2))))[..., :outputs]


def in_two_outputs(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each half of the output channels alone."""
    half = kernel.shape[-1] // 2
    return jnp.concatenate([plain(image, kernel[..., :half]), plain(image, kernel[..., half:])], axis=-1)


def in_two_inputs(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each half of the input channels alone, summed: also how `[up, skip]` need not be joined."""
    half = kernel.shape[2] // 2
    return plain(image[..., :half], kernel[:, :, :half]) + plain(image[..., half:], kernel[:, :, half:])


def folded(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Two columns as one of twice the channels: twice the products, in larger matrices."""
    batch, height, width, inputs = image.shape
    outputs = kernel.shape[-1]
    wide = jnp.zeros((3, 3, 2, inputs, 2, outputs), kernel.dtype)
    for column in range(2):
        for tap in (-1, 0, 1):
            pair, within = divmod(column + tap, 2)
            wide = wide.at[:, pair + 1, within, :, column].set(kernel[:, tap + 1])
    pairs = image.reshape(batch, height, width // 2, 2 * inputs)
    return plain(pairs, wide.reshape(3, 3, 2 * inputs, 2 * outputs)).reshape(batch, height, width, outputs)


def matrices(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """One matrix product of what the kernel sees at every pixel (im2col)."""
    return convolution._forward_of_matrices(image, kernel)


def gradient_of_xla(image: jax.Array, change: jax.Array) -> jax.Array:
    """XLA's own."""
    kernel = jnp.zeros((3, 3, image.shape[-1], change.shape[-1]))
    return jax.vjp(lambda kernel: plain(image, kernel), kernel)[1](change)[0]


def gradient_in_nine(image: jax.Array, change: jax.Array) -> jax.Array:
    """A matrix product per tap, over all pixels of the batch."""
    height, width, inputs = image.shape[1:]
    wide = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    changes = change.reshape(-1, change.shape[-1])
    parts = [wide[:, i : i + height, j : j + width].reshape(-1, inputs).T @ changes for i, j in convolution.TAPS]
    return jnp.stack(parts).reshape(3, 3, inputs, -1)


def gradient_of_matrices(image: jax.Array, change: jax.Array) -> jax.Array:
    """One matrix product over all pixels of the batch (im2col)."""
    inputs, outputs = image.shape[-1], change.shape[-1]
    return (convolution._taps(image).T @ change.reshape(-1, outputs)).reshape(3, 3, inputs, outputs)


def gradient_in_two_loops(image: jax.Array, change: jax.Array) -> jax.Array:
    """As in use, but each half of the batch in a loop of its own, which may run at the same time."""
    return sum(convolution._kernel_gradient(image[i::2], change[i::2]) for i in range(2))


FORWARD = {f.__name__: f for f in (plain, padded, in_two_outputs, in_two_inputs, folded, matrices)}
GRADIENT = {"in_use": convolution._kernel_gradient} | {
    f.__name__: f for f in (gradient_of_xla, gradient_in_nine, gradient_of_matrices, gradient_in_two_loops)
}


def compare(title: str, forms: dict[str, Callable[..., jax.Array]], arrays: tuple[jax.Array, ...], given: Any) -> None:
    """Print a row per form; the first is the one in use."""
    compiled = {name: jax.jit(form).lower(*arrays).compile() for name, form in forms.items()}
    first = np.asarray(next(iter(compiled.values()))(*arrays))
    for name, form in compiled.items():
        apart = np.abs(np.asarray(form(*arrays)) - first).max() / np.abs(first).max()
        if apart > TOLERANCE:
            raise SystemExit(f"{name} gives other numbers, by {apart:.2g}")
    rounds: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(given.rounds):
        for name, form in compiled.items():
            times = []
            for _ in range(CALLS):
                began = time.perf_counter()
                jax.block_until_ready(form(*arrays))
                times.append(time.perf_counter() - began)
            rounds[name].append(statistics.median(times))
    base = next(iter(rounds.values()))
    for name, times in rounds.items():
        ratio = statistics.median(own / of_base for own, of_base in zip(times, base, strict=True))
        print(f"| {title} | {name.replace('_', ' ')} | {1e3 * statistics.median(times):.2f} | {ratio:.2f} |")


def main() -> None:
    """Compare all forms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=80)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    shape = (given.batch, given.side, given.side, given.channels)
    image, change = (jnp.asarray(generator.normal(size=shape), jnp.float32) for _ in range(2))
    kernel = jnp.asarray(generator.normal(size=(3, 3, given.channels, given.channels)), jnp.float32)
    print(
        f"jax {jax.__version__}, {os.cpu_count()} cores, images {shape}\n\n| | form | ms | ratio |\n|---|---|---|---|"
    )
    compare("output", FORWARD, (image, kernel), given)
    compare("kernel's gradient", GRADIENT, (image, change), given)


if __name__ == "__main__":
    main()
