"""Whether the kernels may be used, for this process and those that it starts. Needs no JAX."""

import importlib.util
import os
import shutil
import sys

OFF = "off"
VARIABLE = "HEARTSEG_JAX_NATIVE_KERNELS"
COMPILERS = ("cc", "gcc", "clang")
PACKAGE = "ziglang"
"""A package with a C compiler in it."""


def remember(asked: str) -> None:
    """Take the flag --native_kernels, 'on' or 'off', to heart."""
    if asked == OFF:
        os.environ[VARIABLE] = OFF


def is_off() -> bool:
    """Return whether they have been turned off."""
    return os.environ.get(VARIABLE) == OFF


def compiler() -> list[str] | None:
    """Return the command of the C compiler; None where there is none."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", PACKAGE, "cc"] if importlib.util.find_spec(PACKAGE) else None


def are_possible() -> bool:
    """Return whether they can be used where JAX computes on one CPU; only compiling them tells whether they will be."""
    return not is_off() and sys.platform.startswith("linux") and compiler() is not None
