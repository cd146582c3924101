"""A run killed again and again ends as one that never was: bit-identical parameters."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heartseg_jax.workdir import Workdir, read_metrics
from tests.tiny import OVERRIDES, flags, write_tiny

ROOT = Path(__file__).resolve().parents[2]
STEPS = 150
EARLY_S = (0.5, 3.0, 5.0)
"""Three kills by the clock: while modules load, the model compiles, the first checkpoints are written."""
LATE = 7
"""Kills by progress: right after a step drawn at random has been printed."""


def command(data, workdir):
    changed = OVERRIDES | {
        "data.path": str(data),
        "data.augment": "default",
        "train.epochs": str(STEPS // 5),
        "checkpoint.every_steps": "2",
        "log.every_steps": "1",
        "log.figures": "false",
        "guards.collapse": "off",
    }
    return [sys.executable, "main.py", "--config=configs/quickstart.py", f"--workdir={workdir}", *flags(changed)]


def parameters(workdir):
    # In a process of its own, as everything here: the arrays must come from the disk alone.
    code = (
        "import sys, pathlib, numpy as np, jax; from heartseg_jax.training.checkpoints import Checkpoints;"
        "tree = Checkpoints(pathlib.Path(sys.argv[1]) / 'checkpoints').restore_arrays(int(sys.argv[2]));"
        "np.savez(sys.argv[3], *jax.tree.leaves(tree))"
    )
    file = workdir / "arrays.npz"
    subprocess.run([sys.executable, "-c", code, workdir, str(STEPS), file], cwd=ROOT, check=True)
    with np.load(file) as arrays:
        return [arrays[name] for name in arrays.files]


def reached(workdir):
    return max((row["step"] for row in read_metrics(Workdir(workdir))), default=0)


def still_runs(process, seconds):
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace(tmp_path):
    data = write_tiny(tmp_path / "data").path
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(data, whole), cwd=ROOT, check=True, capture_output=True)
    rng = np.random.default_rng(0)
    targets = sorted(int(step) for step in rng.integers(1, STEPS - 30, LATE))
    kills = [(0, seconds) for seconds in EARLY_S] + [(step, 0.0) for step in targets]
    for target, seconds in kills:
        process = subprocess.Popen(
            command(data, killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        alive = still_runs(process, seconds)
        while alive and reached(killed) < target:
            alive = still_runs(process, float(rng.uniform(0.01, 0.1)))
        assert alive, process.communicate()[1].decode()
        os.killpg(process.pid, signal.SIGKILL)
        assert b"Traceback" not in process.communicate()[1]
        assert not (killed / "DONE").exists()
        print(f"killed after step {reached(killed)}")
    last = subprocess.run(command(data, killed), cwd=ROOT, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert (killed / "DONE").exists()
    expected, found = parameters(whole), parameters(killed)
    assert len(expected) == len(found) > 20
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [row["step"] for row in read_metrics(Workdir(killed))] == list(range(1, STEPS + 1))
