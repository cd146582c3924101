"""What long work says: lines on stderr, and bars where stderr is a terminal. The only place that uses tqdm."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

LINE_S = 2.0
"""Least seconds between lines of progress where there is no terminal; work that takes less says nothing."""
LONGEST_SILENCE_S = 60.0
"""Seconds after which a run's steps say where they are, even between evaluations."""


_silent: list[bool] = []


def be_silent() -> None:
    """Say nothing and draw no bar from here on: of several processes that train as one, the first one speaks."""
    _silent.append(True)


def _disabled() -> bool | None:
    """Return what tqdm takes: whether no bar is drawn, None for 'where there is no terminal'."""
    return True if _silent else None


def say(line: str) -> None:
    """Write a line to stderr, above any bar that is drawn there."""
    if _silent:
        return
    for timer in _waiting:
        timer.cancel()
    tqdm.write(line, file=sys.stderr)


_waiting: list[threading.Timer] = []


@contextmanager
def unless_said(line: str, seconds: float = 1.5) -> Iterator[None]:
    """Say `line` where the work inside has said nothing after `seconds`: what is refused at once stays one line."""
    timer = threading.Timer(seconds, say, [line])
    timer.daemon = True
    _waiting.append(timer)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        _waiting.remove(timer)


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it: '40 ms', '3.2 s', '12 min', '5 h', '3 days'."""
    for unit, size, below in (("ms", 1e-3, 1.0), ("s", 1.0, 100.0), ("min", 60.0, 6000.0), ("h", 3600.0, 172_800.0)):
        if seconds < below:
            number = seconds / size
            return f"{number:.1f} {unit}" if unit == "s" and number < 10 else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


class StepProgress:
    """A run's optimizer steps: a bar where stderr is a terminal, else a line at each evaluation and now and then."""

    def __init__(self, total: int, initial: int, now: Callable[[], float] = time.monotonic):
        self._bar = tqdm(total=total, initial=initial, disable=_disabled(), unit="step", smoothing=0.1)
        self._total, self._now, self._silence, self._said = total, now, LINE_S, now()
        self._words = ""

    def start(self) -> None:
        """Begin to measure the pace: called when compilation is over."""
        self._bar.unpause()
        self._said = self._now()

    def update(self, step: int, words: str, seconds_left: float | None, notable: bool) -> None:
        """Note that `step` has been taken; `words` (kept where empty) and the time left are shown with it."""
        self._words = words or self._words
        self._bar.update()
        self._bar.set_postfix_str(self._words, refresh=False)
        silent = self._now() - self._said
        if self._bar.disable and (notable or silent >= self._silence):
            left = f"about {duration(seconds_left)} left" if seconds_left and step < self._total else ""
            say("  ".join(part for part in (f"step {step}/{self._total}", self._words, left) if part))
            self._said = self._now()
            self._silence = min(2 * self._silence, LONGEST_SILENCE_S)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def bar(unit: str, now: Callable[[], float] = time.monotonic) -> Progress:
    """Return a `progress(done, total)`: a bar where stderr is a terminal, else a line for every tenth.

    It may be used for several stretches of work, one after another: each has its own bar.
    """
    bars: list[Any] = []
    began = said = now()
    tenth = -1

    def progress(done: int, total: int) -> None:
        nonlocal began, said, tenth
        if not bars:
            bars.append(tqdm(total=total, desc=unit, unit="", disable=_disabled()))
        bars[0].update(done - bars[0].n)
        if bars[0].disable and now() - said >= LINE_S and 10 * done // max(total, 1) > tenth:
            left = duration((now() - began) / max(done, 1) * (total - done))
            say(f"{unit}: {done} of {total}" + (f", about {left} left" if done < total else ""))
            said, tenth = now(), 10 * done // max(total, 1)
        if done >= total:
            bars.pop().close()
            began, said, tenth = now(), now(), -1

    return progress
