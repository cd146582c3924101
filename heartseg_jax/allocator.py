"""Less memory, and in large pages, for a process that computes: it starts again with glibc's setting for them.

A step's temporaries are returned to the kernel at its end and mapped anew, page by page, in the next one. With pages of
2 MiB that costs a twentieth of it (docs/performance.md). The setting is read when a process starts, hence the restart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
COMPUTING = ("benchmark", "evaluate", "lab", "predict", "train")
"""The verbs for which it is worth the 20 ms of another start."""
OFF = "--large_pages=off"
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def start_again_with_large_pages(words: Sequence[str]) -> None:
    """Replace this process by one with large pages, for a command line that computes; else, and then, return.

    Nothing happens where the system has none (it is not Linux with glibc 2.35 or later, or they are turned off), where
    the variable GLIBC_TUNABLES names the setting already, or with --large_pages=off.
    """
    verb = words[0] if words and not words[0].startswith("-") else "train"
    if verb not in COMPUTING or OFF in words or not offered():
        return
    own = os.environ.get(VARIABLE, "")
    if TUNABLE in own:
        return
    sys.stdout.flush()
    tunables = ":".join(part for part in (own, f"{TUNABLE}=1") if part)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: tunables})


def give_back() -> None:
    """Return freed memory to the system, where the C library is glibc: a compilation leaves hundreds of MiB behind."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def least_memory() -> dict[str, str] | None:
    """Return the options of `jax.jit` for a program in the order that needs the least memory; None but on a CPU.

    XLA's own order there lets many parts of a program run at once, each with memory of its own; a convolution fills the
    cores anyway.
    """
    import jax

    on_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if on_cpu else None


def offered(system: Path = SYSTEM) -> bool:
    """Return whether the system gives large pages to a program that asks for them."""
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
        asked_for = "[never]" not in system.read_text()
    except (AttributeError, OSError, ValueError):
        return False
    version = re.fullmatch(r"glibc (\d+)\.(\d+).*", library)
    return asked_for and version is not None and (int(version[1]), int(version[2])) >= (2, 35)
