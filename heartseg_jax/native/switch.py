"""Whether the kernels may be used, for this process and those that it starts. Needs no JAX."""

import os

OFF = "off"
VARIABLE = "HEARTSEG_JAX_NATIVE_KERNELS"


def remember(asked: str) -> None:
    """Take the flag --native_kernels, 'on' or 'off', to heart."""
    if asked == OFF:
        os.environ[VARIABLE] = OFF


def is_off() -> bool:
    """Return whether they have been turned off."""
    return os.environ.get(VARIABLE) == OFF
