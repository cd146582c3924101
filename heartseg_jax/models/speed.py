"""How fast this machine computes, measured within a second. What a network costs is in `cost.py`."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

EFFICIENCY = 0.5
"""Speed of a training step as a share of a matrix product's: 0.37 to 0.96 on two CPU cores, by the network."""


def network_flops_per_second(dtype: str) -> float:
    """Return the speed of a U-Net's steps on JAX's default device, from that of a matrix product."""
    return EFFICIENCY * matmul_flops_per_second(dtype)


def matmul_flops_per_second(dtype: str, *, long: bool = False) -> float:
    """Return the speed of a product of two square matrices on JAX's default device: the best of four.

    `long`: the best of two sizes, ten times each, within a few seconds.
    """
    small = jax.default_backend() == "cpu"
    sides, repeats = ((1024, 2048) if small else (8192, 16384), 10) if long else ((1024 if small else 8192,), 4)
    return max(_product(side, dtype, repeats) for side in sides)


def _product(side: int, dtype: str, repeats: int) -> float:
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)
