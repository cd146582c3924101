"""The run's clock, with seconds given by hand."""

import pytest

from heartseg_jax.training.clock import Clock


class Seconds:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_pace_waiting_and_time_left_by_hand():
    seconds = Seconds()
    clock = Clock(seconds)
    assert clock.lap(4, 1e9) == {}
    assert clock.seconds_left(10) is None
    seconds.now = 100.0  # compilation
    clock.start()
    for _ in range(4):
        seconds.now += 2
        clock.step()
        with clock.waiting():
            seconds.now += 0.5
    with clock.paused():
        seconds.now += 10
    assert clock.seconds_left(8) == pytest.approx(8 * (4 * 2.5 + 10) / 4)
    found = clock.lap(6, 5e9)
    expected = {"perf/step_ms": 2500, "perf/images_per_s": 2.4, "perf/gflops_per_s": 12, "perf/data_wait_ms": 500}
    assert found == pytest.approx(expected)
    seconds.now += 1
    clock.step()
    assert clock.lap(6, 1e9)["perf/step_ms"] == pytest.approx(1000)
    clock.stop()
    seconds.now += 500  # another phase is compiled
    clock.start()
    assert clock.seconds == pytest.approx(21)
    assert clock.seconds_left(5) == pytest.approx(21)
