"""Ctrl-C: the process ends within two seconds, also while XLA compiles, and says how to go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 1.0
"""How long a run may take to unwind, such as to finish a checkpoint. What is cut off is never taken for whole."""


@contextmanager
def ending_soon(advice: Callable[[], str], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Within the block, Ctrl-C raises KeyboardInterrupt with `advice()` as its message, or ends the process with 130.

    Python raises it only once control is back in Python code, XLA compiles for minutes without returning, and in the
    callback of a weak reference the exception is lost. A thread, which the C signal handler wakes through a pipe, then
    prints the advice and ends the process. Only the main thread receives signals: in others the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    left = threading.Event()
    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else report(lost)

    def watch() -> None:
        while received := os.read(receiving, 1):
            if received[0] == signal.SIGINT and not left.wait(patience_s) and not left.is_set():
                print(message(advice), file=sys.stderr, flush=True)
                for child in multiprocessing.active_children():
                    child.terminate()  # os._exit leaves out what would have ended them
                os._exit(130)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(message(advice)) from None
    finally:
        left.set()
        sys.unraisablehook = report
        signal.set_wakeup_fd(before)
        os.close(sending)  # ends the thread's read
        watcher.join()
        os.close(receiving)


def message(advice: Callable[[], str]) -> str:
    """Return 'interrupted', and how to go on where `advice` knows it."""
    said = advice()
    return "interrupted" + (f"; {said}" if said else "")
