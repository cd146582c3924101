"""How a run ends early: on purpose, or because the machine refuses something. Anything else that escapes is a bug."""

from __future__ import annotations

import errno
import os
import sys


class UserError(Exception):
    """A user's mistake: one line that names the thing and the fix. `main.py` exits with status 2."""


class GuardStop(Exception):
    """A guard stopped the run: the message says what was seen, the likely cause and what to try. Exit status 3."""


def refused_by_machine(error: BaseException) -> str | None:
    """Return one line for an error that says what this machine lacks (disk, permission, memory, device), else None."""
    text = str(error)
    exhausted = "RESOURCE_EXHAUSTED" in text
    if isinstance(error, MemoryError) or (exhausted and "RuntimeError" in type(error).__name__):
        wanted = f" ({text.splitlines()[0]})" if text else ""
        return f"out of memory{wanted}; lower data.batch_size, data.size or model.width"
    # Tensorstore raises a ValueError and numpy an OSError without a number where the disk is full.
    full = exhausted or " requested and " in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError | ValueError) and full:
        place = getattr(error, "filename", None)
        return f"{f'{place}: ' if place else ''}the disk is full; free some space, or name another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; name another place, or change its permissions"
    if isinstance(error, RuntimeError | AssertionError) and _no_device():
        asked = os.environ.get("JAX_PLATFORMS")
        if asked:
            return f"JAX finds no device for JAX_PLATFORMS={asked}; unset it, or install JAX for that platform"
        return f"JAX finds no device that it can use ({text}); JAX_PLATFORMS=cpu computes without it"
    return None


def _no_device() -> bool:
    """Whether JAX was imported and cannot initialise any backend."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    try:
        return not jax.devices()
    except (RuntimeError, AssertionError):
        return True
