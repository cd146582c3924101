"""Several processes that train as one: JAX's runtime starts them, and here they agree and end together.

Every process runs the same program. What is written, and what is said, is process 0's; what may fail in one process
only (a folder, a file) is done within `together` or `first`, so that all end where one of them must.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from heartseg_jax.errors import UserError

OFF, AUTO = "off", "auto"
CONNECT_S = 300
"""How long a process waits for the others to start."""
SILENCE_S = 300
"""After so long without a sign of life a process counts as gone. One that ends is missed at once, by its connections;
this is for a machine that vanishes, and longer than one may be held up, as by its storage."""
PATIENCE_S = 10
"""How long a process that ends early waits for the others to end too, before it leaves them."""
LOST = re.compile(r"gloo|nccl|coordination service|heartbeat|barrier|UNAVAILABLE|DEADLINE_EXCEEDED", re.IGNORECASE)
"""What JAX, Orbax and the libraries below them say where another process is gone."""

T = TypeVar("T")


class Start(NamedTuple):
    """Where process 0 listens (HOST:PORT), how many processes there are, and which this one is, from 0."""

    coordinator_address: str
    num_processes: int
    process_id: int


def parsed(asked: str) -> Start | None:
    """Return the parts of 'HOST:PORT,PROCESSES,NUMBER'; None for 'auto'.

    Raises:
      UserError: it is neither.
    """
    if asked == AUTO:
        return None
    match = re.fullmatch(r"([^,\s]+:\d{1,5}),(\d{1,6}),(\d{1,6})", asked, re.ASCII)
    start = Start(match[1], int(match[2]), int(match[3])) if match else Start("", 0, 0)
    if not start.process_id < start.num_processes:
        raise UserError(
            "--distributed needs off, auto or HOST:PORT,PROCESSES,NUMBER with NUMBER from 0 to PROCESSES - 1, such as "
            f"10.0.0.1:1234,2,0, not '{asked}'"
        )
    return start


def start(asked: str) -> None:
    """Connect this process with the others, before JAX computes anything; nothing for 'off'.

    For 'auto' JAX finds the others: on SLURM, Kubernetes, Open MPI and Cloud TPUs. Processes other than 0 are silent
    from here on, except for what ends them.

    Raises:
      UserError: the others cannot be found or reached within `CONNECT_S`.
    """
    if asked == OFF:
        return
    known = parsed(asked)
    import jax

    from heartseg_jax import progress  # the front door does without

    given = {} if known is None else {**known._asdict(), "cluster_detection_method": "deactivate"}
    # JAX would catch SIGTERM and leave it to the program to look for it; like this it ends the process, as ever.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**given, initialization_timeout=CONNECT_S, heartbeat_timeout_seconds=SILENCE_S)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        # Where the environment names no cluster, JAX's word for it is 'coordinator_address should be defined'.
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--distributed={asked} did not connect the processes ({reason}); outside SLURM, Kubernetes and Open MPI "
            "give HOST:PORT,PROCESSES,NUMBER, of a port that is free on HOST and that all can reach"
        ) from error
    if not is_first():
        progress.be_silent()
    progress.say(f"{count()} processes with {jax.device_count()} devices")


def count() -> int:
    """Return the number of processes; 1 where JAX is not distributed, and without importing it."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def number() -> int:
    """Return which process this is, from 0."""
    return sys.modules["jax"].process_index() if count() > 1 else 0


def is_first() -> bool:
    """Return whether this is process 0, the only one that writes and speaks."""
    return number() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """Return every N-th item, from this process's on; all where it is the only one."""
    return items[number() :: count()]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within the block, each process does its part; where one fails, all end when they leave the block.

    Nothing in the block may compute over all devices: a process that failed would be missing there.

    Raises:
      UserError: in the processes that did not fail, if another did.
    """
    if count() == 1:
        yield
        return
    failure: BaseException | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = _gathered(failure is not None)
    if failure is not None:
        raise failure
    if any(failed):
        raise UserError(f"process {failed.index(1)} of 0 to {count() - 1} has ended; its own messages have the reason")


def first(work: Callable[[], T]) -> T | None:
    """Let process 0 do `work` while the others wait; return what it returned, None in the others.

    Raises:
      UserError: in the others, if it failed.
    """
    done = None
    with together():
        if is_first():
            done = work()
    return done


def agree(text: str, what: str) -> None:
    """Raise a UserError unless all processes have the same text; `what` it is of is named.

    Raises:
      UserError: a process differs from process 0.
    """
    if count() == 1:
        return
    found = _gathered(zlib.crc32(text.encode()))
    differing = [number for number, value in enumerate(found) if value != found[0]]
    if differing:
        raise UserError(f"process {differing[0]} has another {what} than process 0; give all the same command and data")


def _gathered(value: int) -> list[int]:
    """Return every process's number, of 32 bits, by process."""
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    with jax.transfer_guard("allow"):
        return process_allgather(np.uint32(value)).tolist()


def lost(error: BaseException) -> str | None:
    """Return one line for an error that another process's end caused; None for any other."""
    text = " ".join(str(error).split())
    if count() == 1 or isinstance(error, UserError) or not LOST.search(text):
        return None
    return (
        f"another process of this run has ended or cannot be reached ({text[:200]}); start all of them again with the "
        "same command: the run goes on from its last checkpoint"
    )


@contextlib.contextmanager
def ending_if_lost() -> Iterator[None]:
    """Within the block, end this process with one line where another one is gone.

    At once, with exit status 2: closing what is open would wait for the process that is gone.
    """
    try:
        yield
    except Exception as error:
        line = lost(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr, flush=True)
        os._exit(2)


def leave(status: int) -> None:
    """End this process, of several, with an exit status that is not 0: with the others if they end too.

    The runtime would wait for minutes for those that do not.
    """
    import jax

    thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
