"""Images made from tissue maps on the device, inside the jitted step. No files here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

GREYS = np.array([0, 5, 15, 32, 95, 50, 42, 38, 35, 0, *[65] * 14], np.float32) / 100
"""Grey of each tissue code."""


def synthesise(key: jax.Array, tissue: jax.Array) -> jax.Array:
    """Return images `[B, S, S]` float32 in 0..1 of tissue codes `[B, S, S]`, drawn by `key`."""
    return jnp.clip(jnp.asarray(GREYS)[tissue] + 0.02 * jax.random.normal(key, tissue.shape), 0.0, 1.0)
