"""Phantoms drawn in processes of their own: drawing makes many small numpy calls, and two threads take as long as one.

Each thread that asks has one process. That ends when the thread does, or with this process, however it ends: it reads
the end of its input. Not `multiprocessing`, which runs a user's script again in each process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from heartseg_jax.imaging.phantom.generator import Phantom, PhantomSpec, generate

_own = threading.local()


def generate_in_process(seed: int, index: int, spec: PhantomSpec) -> Phantom:
    """Return `generate(seed, index, spec)`, the same bytes, from this thread's process; without one, from here.

    Raises:
      Exception: what `generate` raises.
    """
    if threading.current_thread() is threading.main_thread():
        return generate(seed, index, spec)
    if not hasattr(_own, "process"):
        _own.process = _Process()
    try:
        found = _own.process.ask((seed, index, spec))
    except (OSError, EOFError, pickle.UnpicklingError):  # it could not be started, or was ended
        return generate(seed, index, spec)
    if isinstance(found, Exception):
        raise found
    return found


class _Process:
    """One process that serves; it is started at the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: Any) -> Any:
        """Return the answer to a request.

        Raises:
          OSError, EOFError, UnpicklingError: there is no process.
        """
        if self._process is None:
            root = str(Path(__file__).resolve().parents[3])
            code = f"import sys; sys.path.insert(0, {root!r}); from {__name__} import serve; serve()"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def __del__(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.__exit__(None, None, None)  # closes its input, and waits


def serve() -> None:
    """Answer requests from stdin on stdout until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the one that asks decides
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            seed, index, spec = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found: Any = generate(seed, index, spec)
        except Exception as error:
            found = error
        try:
            pickle.dump(found, answers)
            answers.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody reads any more; the interpreter's own end would complain
