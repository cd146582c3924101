"""How fast this machine computes, measured within a second. What a network costs is in `cost.py`."""

from __future__ import annotations

import time

import numpy as np

from heartseg_jax.machine import has_only_cpu

EFFICIENCY = 0.5
"""Speed of a training step as a share of a matrix product's: 0.37 to 0.96 on two CPU cores, by the network."""
NATIVE_EFFICIENCY = 1.0
"""The same with the native kernels, which need fewer FLOPs than are counted: 0.86 to 1.22."""


def network_flops_per_second(dtype: str, *, native: bool = False) -> float:
    """Return the speed of a U-Net's steps on JAX's default device, from that of a matrix product.

    In float32 on one CPU numpy's product is measured, so that JAX need not be imported; JAX's own is about as fast.
    `native`: whether the native kernels will be used there.
    """
    if dtype == "float32" and has_only_cpu():
        return (NATIVE_EFFICIENCY if native else EFFICIENCY) * _product_of_numpy(1024, 4)
    return EFFICIENCY * matmul_flops_per_second(dtype)


def matmul_flops_per_second(dtype: str, *, long: bool = False) -> float:
    """Return the speed of a product of two square matrices on JAX's default device: the best of four.

    `long`: the best of two sizes, ten times each, within a few seconds.
    """
    import jax

    small = jax.default_backend() == "cpu"
    sides, repeats = ((1024, 2048) if small else (8192, 16384), 10) if long else ((1024 if small else 8192,), 4)
    return max(_product(side, dtype, repeats) for side in sides)


def _product(side: int, dtype: str, repeats: int) -> float:
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def _product_of_numpy(side: int, repeats: int) -> float:
    matrix = np.ones((side, side), np.float32)
    found, times = np.empty_like(matrix), []
    for _ in range(repeats):
        began = time.perf_counter()
        np.matmul(matrix, matrix, out=found)
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)
