"""What long work says: lines on stderr, and bars where stderr is a terminal. The only place that uses tqdm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def say(line: str) -> None:
    """Write a line to stderr, above any bar that is drawn there."""
    tqdm.write(line, file=sys.stderr)


def step_bar(total: int, initial: int) -> Any:
    """Return the bar of a run's optimizer steps, drawn where stderr is a terminal."""
    return tqdm(total=total, initial=initial, disable=None, unit="step", smoothing=0.1)


def bar(unit: str) -> Progress:
    """Return a `progress(done, total)` that draws a bar where stderr is a terminal.

    It may be used for several stretches of work, one after another: each has its own bar.
    """
    bars: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(total=total, unit=f" {unit}", disable=None))
        bars[0].update(done - bars[0].n)
        if done >= total:
            bars.pop().close()

    return progress
