"""The run's clock: pace, waiting for data, pauses, and the time that is left. It decides nothing about the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Measures the steps since `start`, in stretches that `lap` ends. Nothing is measured before `start`.

    `now` gives seconds; tests pass their own.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._lap_began: float | None = None
        self._lap_steps, self._waited_s, self._paused_s = 0, 0.0, 0.0
        self._steps, self._seconds = 0, 0.0

    def start(self) -> None:
        """Start measuring: called when a phase is compiled, so that compilation is not counted as part of the pace."""
        self.stop()
        self._lap_began, self._lap_steps, self._waited_s, self._paused_s = self._now(), 0, 0.0, 0.0

    def stop(self) -> None:
        """Stop measuring until the next `start`."""
        self._steps, self._seconds = self._total()
        self._lap_began = None

    @property
    def seconds(self) -> float:
        """The seconds measured so far, pauses included."""
        return self._total()[1]

    def step(self) -> None:
        """Count one step."""
        self._lap_steps += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        began = self._now()
        yield
        self._waited_s += self._now() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count the time inside as an evaluation or a checkpoint: part of the time left, not of a step."""
        began = self._now()
        yield
        self._paused_s += self._now() - began

    def lap(self, batch_size: int, flops_per_image: float) -> dict[str, float]:
        """Return the `perf/` metrics since the last lap, all of whose steps took so many FLOPs; start the next one."""
        if self._lap_began is None or not self._lap_steps:
            return {}
        spent = max(self._now() - self._lap_began - self._paused_s, 1e-9)
        images_per_s = batch_size * self._lap_steps / spent
        found = {
            "perf/step_ms": 1e3 * spent / self._lap_steps,
            "perf/images_per_s": images_per_s,
            "perf/gflops_per_s": images_per_s * flops_per_image / 1e9,
            "perf/data_wait_ms": 1e3 * self._waited_s / self._lap_steps,
        }
        self.start()
        return found

    def seconds_left(self, steps_left: int) -> float | None:
        """Return the estimated seconds that `steps_left` steps take, pauses included; None before the first step."""
        steps, seconds = self._total()
        return steps_left * seconds / steps if steps else None

    def _total(self) -> tuple[int, float]:
        """Return the steps and seconds measured so far."""
        if self._lap_began is None:
            return self._steps, self._seconds
        return self._steps + self._lap_steps, self._seconds + self._now() - self._lap_began
