"""Two processes on one machine train as one: killed, started again, and compared with runs that nothing stopped.

They are processes of their own, joined by JAX's runtime over the loopback interface, with Gloo's collectives.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import main
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_metrics
from tests.tiny import OVERRIDES, flags, write_tiny

pytestmark = pytest.mark.slow  # eight processes, each of which imports and compiles for itself

ROOT = Path(__file__).resolve().parents[2]
STEPS, KILLED_AT = 8, 5
SMALL = OVERRIDES | {
    "model.width": "4",
    "model.levels": "2",
    "model.norm": "batch",
    "data.augment": "default",
    "train.steps": str(STEPS),
    "checkpoint.every_steps": "2",
    "log.every_steps": "1",
    "log.figures": "false",
    "guards.collapse": "off",
}
PATIENT_S = 3600
"""For a machine that is busy with something else, or stops these processes for a while: only what hangs fails."""
PROGRAM = f"""
import runpy
from heartseg_jax import distributed
distributed.CONNECT_S = distributed.SILENCE_S = {PATIENT_S}
runpy.run_path("main.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny").path


def words(data, workdir, **changes):
    return [
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        *flags(SMALL | {"data.path": str(data)} | changes),
    ]


def start(data, workdir, number, port, **changes):
    own = [*words(data, workdir, **changes), f"--distributed=127.0.0.1:{port},2,{number}"]
    command = [sys.executable, "-c", PROGRAM, *own]
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ended(processes):
    """What each process printed, once all have ended."""
    try:
        return [process.communicate(timeout=PATIENT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()


def trained(data, workdir, **changes):
    port = free_port()
    processes = [start(data, workdir, number, port, **changes) for number in (0, 1)]
    said = ended(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    return Workdir(path), trained(data, path)


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """A run whose process 1 is killed after some steps, and what process 0 then printed, with its exit status."""
    path = tmp_path_factory.mktemp("runs") / "killed"
    port = free_port()
    first, second = (start(data, path, number, port) for number in (0, 1))
    try:
        for line in first.stderr:  # no step is taken without process 1: it is at most one behind
            if f"step {KILLED_AT}/{STEPS}" in line:
                break
        second.kill()
        said = ended([first, second])
    finally:
        for process in (first, second):
            process.kill()
    return Workdir(path), said[0][1], first.returncode


def arrays(folder, step=STEPS):
    import jax

    return jax.tree.leaves(Checkpoints(folder.checkpoints).restore_arrays(step))


def losses(folder):
    """The loss of each step, as far as rows have one."""
    return {row["step"]: row["train/loss"] for row in read_metrics(folder) if "train/loss" in row}


def test_the_first_process_writes_and_speaks_and_both_write_checkpoints(whole):
    folder, said = whole
    assert [row["step"] for row in read_metrics(folder)] == list(range(1, STEPS + 1))
    assert folder.done.read_text() == f"step {STEPS}\n"
    assert json.loads((folder.evaluation / "summary.json").read_text())["patients"] == 1
    assert len(json.loads(folder.run.read_text())["devices"]) == 2
    assert json.loads(folder.run.read_text())["earlier_starts"] == []
    state = folder.checkpoints / str(STEPS) / "state"
    assert {path.name for path in state.glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}
    (printed, log), silent = said
    assert "2 processes with 2 devices" in log
    assert "mean Dice" in printed
    assert not [word for word in (f"/{STEPS}", "Dice", "patients:") if word in "".join(silent)]


def test_two_processes_have_the_loss_of_one(whole, data, tmp_path):
    assert main.main(words(data, tmp_path / "one")) == 0
    two, one = losses(whole[0]), losses(Workdir(tmp_path / "one"))
    assert list(two) == list(one)
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=0, atol=1e-5)


def test_a_process_that_is_left_alone_ends_with_one_line(killed):
    folder, log, status = killed
    assert status == 2, log
    [line] = [line for line in log.splitlines() if line.startswith("error: ")]
    assert "another process" in line
    assert "same command" in line
    assert "Traceback" not in log
    assert not folder.done.exists()


def test_both_started_again_end_bit_identical_to_a_run_that_was_not_stopped(whole, killed, data):
    folder = killed[0]
    assert Checkpoints(folder.checkpoints).steps()[-1] in range(2, STEPS)
    (_, log), _ = trained(data, folder.path)
    assert "going on from step" in log
    expected, found = arrays(whole[0]), arrays(folder)
    assert len(expected) == len(found) > 20
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [row["step"] for row in read_metrics(folder)] == list(range(1, STEPS + 1))


def test_processes_of_different_commands_are_refused_in_both(data, tmp_path):
    port = free_port()
    first = start(data, tmp_path / "run", 0, port)
    second = start(data, tmp_path / "run", 1, port, seed="1")
    for _, log in ended([first, second]):
        assert "error: process 1 has another config than process 0" in log
    assert (first.returncode, second.returncode) == (2, 2)
    assert not (tmp_path / "run").exists()
