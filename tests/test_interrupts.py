"""Ctrl-C: one line of advice and status 130, also while code that is not Python's does not return."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heartseg_jax.interrupts import ending_soon
from tests.tiny import OVERRIDES, flags, write_tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _sigint_is_heeded():
    """A process that a shell started in the background ignores SIGINT, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_advice_is_given_where_python_can_unwind():
    before = signal.set_wakeup_fd(-1)
    with pytest.raises(KeyboardInterrupt, match="^interrupted; again$"), ending_soon(lambda: "again"):
        signal.raise_signal(signal.SIGINT)
    assert signal.set_wakeup_fd(before) == before


def test_nothing_happens_without_a_signal():
    with ending_soon(lambda: "again"):
        pass


def test_a_call_that_does_not_return_is_ended():
    # A mutex that is locked twice blocks for ever in C, also after a signal, as XLA does for as long as it compiles.
    code = """
import ctypes, os, signal, threading
from heartseg_jax.interrupts import ending_soon
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
with ending_soon(lambda: "again", 0.2):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    lock(mutex), lock(mutex)
"""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted; again\n")
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_run_that_compiles_is_ended(tmp_path):
    write_tiny(tmp_path / "d")
    words = ["--config=configs/quickstart.py", f"--config.data.path={tmp_path / 'd'}", f"--workdir={tmp_path / 'run'}"]
    changes = flags(OVERRIDES | {"model.width": "32", "model.levels": "4"})
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "main.py", *words, *changes], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert any(line.startswith("compiling") for line in process.stderr)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].strip()
    assert process.returncode == 130
    assert said.startswith("interrupted; no checkpoint")
    assert "\n" not in said
    assert time.monotonic() - began < 10  # two seconds on a machine that is not busy
