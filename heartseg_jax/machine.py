"""What this machine has and lacks: the devices that JAX computes on; errors that say that room, permission or memory is
lacking, which are no bugs.
"""

from __future__ import annotations

import os
import sys

from heartseg_jax.files import is_full_disk

PLUGINS = "jax_plugins"
"""The package, and the group of entry points, in which JAX looks for what computes on accelerators."""


def has_only_cpu() -> bool:
    """Return whether JAX can compute on one CPU device only, without importing it (a second).

    False where something is installed that it would ask for accelerators (a plugin, or libtpu), or where a variable
    names platforms or a number of devices: then JAX itself must say.
    """
    named = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME") or "cpu"
    if named != "cpu" or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return False
    import importlib.metadata  # which reads e-mail headers; most who import this module do without
    import importlib.util

    installed = any(importlib.util.find_spec(name) is not None for name in (PLUGINS, "libtpu"))
    return not installed and not importlib.metadata.entry_points(group=PLUGINS)


def devices() -> tuple[str, list[str]]:
    """Return JAX's platform, such as 'cpu', and the kind of each of its devices."""
    if has_only_cpu():
        return "cpu", ["cpu"]
    import jax

    return jax.default_backend(), [device.device_kind for device in jax.devices()]


def refused_by_machine(error: BaseException) -> str | None:
    """Return one line that names what is lacking and what to do, or None for any other error."""
    text = " ".join(str(error).split())
    if out_of_memory(error):
        return f"out of memory{f' ({text})' if text else ''}; lower data.batch_size, data.size or model.width"
    if is_full_disk(error):
        place = getattr(error, "filename", None)
        return f"{f'{place}: ' if place else ''}the disk is full; free some space, or name another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; name another place, or change its permissions"
    if isinstance(error, RuntimeError | AssertionError) and _has_no_device():
        asked = os.environ.get("JAX_PLATFORMS")
        if asked:
            return f"JAX finds no device for JAX_PLATFORMS={asked}; unset it, or install JAX for that platform"
        return f"JAX finds no device that it can use ({text}); JAX_PLATFORMS=cpu computes without it"
    return None


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the machine, or of a device, did not suffice."""
    of_jax = "RuntimeError" in type(error).__name__
    return isinstance(error, MemoryError) or (of_jax and "RESOURCE_EXHAUSTED" in str(error))


def _has_no_device() -> bool:
    """Return whether JAX was imported and cannot initialise any backend."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    try:
        return not jax.devices()
    except (RuntimeError, AssertionError):
        return True
