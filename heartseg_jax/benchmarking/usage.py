"""What the process and the machine use: peak memory, and other processes' share of the CPU time. No JAX here."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


def clear_peak(proc: Path = PROC) -> bool:
    """Begin to measure the peak of resident memory again; return whether the system can (Linux)."""
    try:
        (proc / "self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(proc: Path = PROC) -> int:
    """Return the peak of resident memory since `clear_peak`, or since the process began where that returned False."""
    try:
        lines = (proc / "self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Usage(NamedTuple):
    """Seconds of CPU time so far: of this process; of the machine while working and in all (None where unknown)."""

    own_s: float
    busy_s: float | None
    all_s: float | None


def usage(proc: Path = PROC) -> Usage:
    """Return what has been used so far."""
    own = time.process_time()
    try:
        ticks = [int(word) for word in (proc / "stat").read_text().split("\n")[0].split()[1:9]]
        hertz = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return Usage(own, None, None)
    idle, waiting = ticks[3:5]
    return Usage(own, (sum(ticks) - idle - waiting) / hertz, sum(ticks) / hertz)


def others_share(before: Usage, after: Usage) -> float | None:
    """Return the share of the machine's CPU time that other processes had between the two; None where unknown."""
    if before.busy_s is None or after.busy_s is None or before.all_s is None or after.all_s is None:
        return None
    passed = after.all_s - before.all_s
    busy = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    return min(max(busy / passed, 0.0), 1.0) if passed > 0 else None
