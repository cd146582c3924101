"""The laboratory's processes: how jobs are shared out, and how they end."""

import subprocess
import sys
from pathlib import Path

from heartseg_jax.lab.arms import Job
from heartseg_jax.lab.workers import share


def test_an_arm_stays_in_one_process_and_the_most_expensive_come_first():
    arms = ("scratch", "brain_full", "brain_staged")
    jobs = [Job(arm, "patient", 0, seed) for seed in (0, 1) for arm in arms]
    first, second = share(jobs, 2)
    assert first == [Job("brain_staged", "patient", 0, seed) for seed in (0, 1)]
    assert second == [Job(arm, "patient", 0, seed) for seed in (0, 1) for arm in ("scratch", "brain_full")]
    assert share(jobs, 1) == [jobs]


def test_processes_that_still_import_end_without_a_traceback(tmp_path):
    """A terminal sends Ctrl-C to the whole group of processes, about a second after the children were started here."""
    code = f"""
import multiprocessing.process, os, pathlib, signal, sys
from heartseg_jax.config import load
from heartseg_jax.lab import workers
from heartseg_jax.lab.arms import Job
signal.signal(signal.SIGINT, signal.default_int_handler)
join, calls = multiprocessing.process.BaseProcess.join, []
def interrupting(child, timeout=None):
    calls.append(child)
    if len(calls) == 2:
        os.killpg(0, signal.SIGINT)
    join(child, timeout)
multiprocessing.process.BaseProcess.join = interrupting
jobs = [Job(arm, "patient", 0, 0) for arm in ("scratch", "brain_full")]
try:
    workers.work_all(load.load("configs/lab.py")[1], pathlib.Path({str(tmp_path)!r}), jobs, 2, False)
except KeyboardInterrupt:
    sys.exit(7)
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert (process.returncode, process.stderr) == (7, "")
