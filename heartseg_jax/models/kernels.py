"""Whether layers are computed by the native kernels (`heartseg_jax/native`), and how these are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

LANES = 8
"""The native kernels work on channels by eight."""
SLICES = 16
PARTS_BYTES = 2**20
"""A kernel's gradient is summed in at most so many slices of the batch, which take at most so much memory until they
are added. How many is a matter of shapes alone, so that sums stay the same with any number of threads."""
_native = False


def use_native(on: bool) -> None:
    """Compute by the native kernels from now on, or no more: to be called before anything is traced.

    Their handlers must have been registered (`heartseg_jax.native.library.turn_on`).
    """
    global _native
    _native = on


def uses_native() -> bool:
    """Return whether layers are computed by the native kernels where these can."""
    return _native


def in_lanes(*images: jax.Array) -> bool:
    """Return whether the native kernels are used and can read these: of float32, not empty, channels by eight."""
    return _native and all(x.dtype == jnp.float32 and x.size > 0 and x.shape[-1] % LANES == 0 for x in images)


def call(name: str, results: Sequence[tuple[int, ...]], *given: jax.Array) -> list[jax.Array]:
    """Call a kernel; `results` are the shapes of what it returns, all float32."""
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results)
    found: Any = jax.ffi.ffi_call(f"heartseg_{name}", shapes, vmap_method="sequential")(*given)
    return list(found)
