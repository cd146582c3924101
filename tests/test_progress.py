"""Progress where stderr is no terminal: lines at sensible intervals, with the time left. Seconds are given by hand."""

from heartseg_jax import progress
from tests.training.test_clock import Seconds


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def test_long_work_says_a_line_per_tenth_and_short_work_none(capsys):
    seconds = Seconds()
    report = progress.bar("patients", seconds)
    for done in range(1, 101):
        seconds.now += 3
        report(done, 100)
    found = lines(capsys)
    assert len(found) == 11  # the first patient, then every tenth
    assert found[0] == "patients: 1 of 100, about 5 min left"
    assert found[5] == "patients: 50 of 100, about 2 min left"
    assert found[-1] == "patients: 100 of 100"
    for done in range(1, 101):
        report(done, 100)
    assert lines(capsys) == []


def test_steps_say_where_they_are_at_evaluations_and_now_and_then(capsys):
    seconds = Seconds()
    shown = progress.StepProgress(100, 0, seconds)
    seconds.now = 50  # compilation
    shown.start()
    for step in range(1, 101):
        seconds.now += 3
        shown.update(step, "loss 1.0000" if step == 1 else "", 3.0 * (100 - step), notable=step == 100)
    shown.close()
    found = lines(capsys)
    assert found[0] == "step 1/100  loss 1.0000  about 5 min left"
    assert found[-1] == "step 100/100  loss 1.0000"
    assert len(found) == 9  # after 3 s, then 2, 4, 8, 16, 32 s ... rounded up to whole steps, at most a minute apart


def test_a_start_is_announced_only_where_nothing_else_is_said_first(capsys):
    with progress.unless_said("starting", seconds=0):
        (timer,) = progress._waiting
        timer.join()
    assert lines(capsys) == ["starting"]
    with progress.unless_said("starting", seconds=60):
        (timer,) = progress._waiting
        progress.say("data: 3 patients")
        assert timer.finished.is_set()
    assert lines(capsys) == ["data: 3 patients"]
    assert progress._waiting == []


def test_times_as_a_person_says_them():
    found = [progress.duration(s) for s in (0.04, 3.24, 89, 150, 7800, 260_000)]
    assert found == ["40 ms", "3.2 s", "89 s", "2 min", "2 h", "3 days"]
