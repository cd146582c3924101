"""A full disk, at any moment: exit status 2, one line, and nothing half-written that is taken for whole."""

import subprocess
import sys
from pathlib import Path

import pytest

import main
from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.training.checkpoints import Checkpoints
from tests.tiny import OVERRIDES, flags, write_tiny

ROOT = Path(__file__).resolve().parents[2]


def refused(capfd, words):
    status = main.main([str(word) for word in words])
    error = capfd.readouterr().err
    assert status == 2, error
    assert "disk is full" in error
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("small_disk", ["16k", "100k", "200k", "260k"], indirect=True)
def test_training(tmp_path, small_disk, capfd):
    data = write_tiny(tmp_path / "data").path
    changed = OVERRIDES | {"data.path": data, "log.figures": "false", "model.width": "8"}
    words = ["--config=configs/quickstart.py", f"--workdir={small_disk / 'run'}", *flags(changed)]
    refused(capfd, words)
    run = small_disk / "run"
    assert not (run / "DONE").exists()
    if (run / "checkpoints").is_dir():
        checkpoints = Checkpoints(run / "checkpoints")
        for step in checkpoints.steps():
            checkpoints.restore_arrays(step)
        checkpoints.close()
    assert not list(run.rglob(".partial-*"))
    # With room the same command goes on, or starts where nothing whole was written.
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert main.main([str(word) for word in words]) == 0
    assert (run / "DONE").exists()


def test_a_dataset(small_disk):
    with pytest.raises(UserError, match="disk is full"):
        write_tiny(small_disk / "data", splits={f"p{k}": "train" for k in range(40)})
    assert list(small_disk.iterdir()) == []


def test_prepare(small_disk, capfd):
    refused(capfd, ["prepare", "--source=phantom", "--config=configs/quickstart.py", f"--output={small_disk / 'ds'}"])
    assert list(small_disk.iterdir()) == []
    with pytest.raises(UserError):
        read_dataset(small_disk / "ds")


@pytest.mark.parametrize("small_disk", ["100k"], indirect=True)
def test_convert(small_disk, capfd):
    refused(capfd, ["convert", "--input=brain16", f"--output={small_disk / 'out'}"])
    assert not list(small_disk.rglob("*.json"))


def test_a_limit_on_the_size_of_files(tmp_path):
    """Where no disk can be mounted, this stands for one: EFBIG instead of ENOSPC."""
    words = "prepare --source=phantom --config=configs/quickstart.py --output"
    command = f"ulimit -f 100; exec {sys.executable} main.py {words}={tmp_path / 'ds'}"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert "disk is full" in run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
