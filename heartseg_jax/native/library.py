"""Compile `kernels.c` once on this machine, check what came out, and have JAX call it.

XLA computes most convolutions of a small network on one core of a CPU, and with more products than are needed; these
kernels use all cores (docs/performance.md). They are compiled for this very processor by the C compiler that is there,
and kept beside the compiled programs. Where there is none, or anything goes wrong, XLA computes as before, and a line
says so.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from heartseg_jax.compilation_cache import default_folder, machine
from heartseg_jax.models import convolution, kernels, norm, pointwise
from heartseg_jax.native.switch import PACKAGE, compiler, is_off
from heartseg_jax.progress import say

SOURCE = Path(__file__).with_name("kernels.c")
OPTIONS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden")
HANDLERS = (
    "convolution",
    "convolution_relu",
    "convolution_image_gradient",
    "convolution_kernel_gradient",
    "convolution_gradients",
    "norm_relu",
    "norm_relu_gradients",
    "pointwise",
    "pointwise_gradients",
)
BUILD_S = 120.0
DIGEST = hashlib.sha256().digest_size


class NotBuilt(Exception):
    """The kernels cannot be used; the message says why, for the user."""


def turn_on() -> bool:
    """Use the kernels from now on where that is possible; return whether it is. Call it before anything is traced.

    It is possible on Linux, with one device, a CPU, and a C compiler (cc, gcc or clang; or the package ziglang), where
    they have not been turned off (`switch`).
    """
    if is_off() or not sys.platform.startswith("linux"):
        return False
    import jax

    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    if reason := _why_not():
        say(f"the network is computed by XLA alone, which takes longer: {reason}")
        return False
    kernels.use_native(True)
    return True


@functools.lru_cache(maxsize=1)
def _why_not() -> str | None:
    """Load, once in a process: what cannot be used will not become better, and handlers are registered but once."""
    try:
        _load()
    except NotBuilt as error:
        return str(error)
    return None


def _load() -> None:
    """Build if need be, and register the handlers.

    Raises:
      NotBuilt: there is no compiler, it failed, or the kernels compute something else than XLA.
    """
    import jax

    command = compiler()
    if command is None:
        raise NotBuilt(f"no C compiler was found; install gcc, clang or the Python package {PACKAGE}, and start again")
    version = _output([*command, "--version"]).splitlines()[:1]
    sources = [file.read_bytes() for file in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    parts = (*sources, " ".join([*command, *OPTIONS, *version]).encode(), jax.__version__.encode())
    name = f"kernels-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"
    with tempfile.TemporaryDirectory(prefix="heartseg_jax-", ignore_cleanup_errors=True) as spare:
        library = (_own_folder() or Path(spare)) / name
        handlers, is_new = _opened(library), False
        if handlers is None:
            _build(command, library)
            handlers, is_new = _opened(library), True
        if handlers is None:
            raise NotBuilt(f"what {' '.join(command)} has made of {SOURCE.name} cannot be loaded")
    for handler in HANDLERS:
        jax.ffi.register_ffi_target(
            f"heartseg_{handler}", jax.ffi.pycapsule(getattr(handlers, handler)), platform="cpu"
        )
    if is_new and not _is_right():
        library.unlink(missing_ok=True)
        raise NotBuilt(f"what {' '.join(command)} has made of {SOURCE.name} computes wrong numbers")


def _opened(library: Path) -> ctypes.CDLL | None:
    """Return the library; None where there is none, or it is damaged: the system would end a process that loads it."""
    try:
        content = library.read_bytes()
        whole = len(content) > DIGEST and hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]
        return ctypes.CDLL(str(library)) if whole else None
    except OSError:
        return None


def _own_folder() -> Path | None:
    """Return the folder of this processor's programs; None where it cannot be written to, or others may write to it."""
    try:
        folder = default_folder() / machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        safe = status.st_uid == os.getuid() and not status.st_mode & 0o022
        return folder if safe and os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None


def _build(command: list[str], library: Path) -> None:
    """Compile; the library appears whole or not at all."""
    import jax

    say(f"compiling the network's kernels for this processor ({Path(command[0]).name}; once)")
    try:
        with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as folder:
            made = Path(folder) / "library.so"
            _output([*command, *OPTIONS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(made)])
            with made.open("ab") as file:  # what follows a library's own end is not looked at
                file.write(hashlib.sha256(made.read_bytes()).digest())
            os.replace(made, library)
    except OSError as error:
        raise NotBuilt(f"{library.parent} cannot be written to ({error.strerror})") from error


def _output(command: list[str]) -> str:
    """Return what a command prints.

    Raises:
      NotBuilt: it failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=True, errors="replace")
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise NotBuilt(f"{Path(command[0]).name} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{Path(command[0]).name} failed: {error}") from error
    return done.stdout


def _is_right() -> bool:
    """Compare layers and gradients with XLA's, once after compiling: two parts, odd sizes, with ReLU and without."""
    import jax
    import numpy as np

    draws = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return draws.normal(size=shape).astype(np.float32)

    images, thin = (draw(2, 7, 5, 8), draw(2, 7, 5, 24)), draw(2, 7, 5, 3)
    weights = [draw(3, 3, 32, 24), draw(24)], [draw(3, 3, 3, 8), draw(8)], [draw(24), draw(24)]
    squares = [draw(2, 2, 16, 24), draw(16)], [draw(1, 1, 9, 24), draw(9)]

    def layers(images: Any, weights: Any, squares: Any) -> Any:
        whole, first, normed = weights
        convolved = [convolution.convolve(images, *whole, relu=relu) for relu in (False, True)]
        convolved.append(convolution.convolve([thin], *first))
        return convolved, norm.norm_relu(images[1], *normed)[0], [pointwise.pointwise(images[1], *a) for a in squares]

    def all_of_them(*args: Any) -> Any:
        out, back = jax.vjp(layers, *args)
        return out, back(out)

    def computed(on: bool) -> list[np.ndarray]:
        kernels.use_native(on)
        try:  # a function of its own each time, that none is taken for the other
            return [
                np.asarray(leaf)
                for leaf in jax.tree.leaves(jax.jit(lambda *a: all_of_them(*a))(images, weights, squares))
            ]
        finally:
            kernels.use_native(False)

    pairs = zip(computed(True), computed(False), strict=True)
    return all(np.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max()) for mine, theirs in pairs)
