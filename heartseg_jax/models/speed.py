"""How fast this machine computes, measured within a second. What a network costs is in `cost.py`."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

EFFICIENCY = 0.5
"""Speed of a training step as a share of a matrix product's: 0.37 to 0.96 on two CPU cores, by the network."""


def network_flops_per_second(dtype: str) -> float:
    """Return the speed of a U-Net's steps on JAX's default device, from that of a matrix product: the best of four."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a).lower(matrix).compile()
    times = []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        times.append(time.perf_counter() - began)
    return EFFICIENCY * 2 * side**3 / min(times)
