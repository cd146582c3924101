"""A run with a moving average of its weights: saved, resumed, and what every command uses."""

import json

import jax
import numpy as np
import pytest

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.models.registry import build_model
from heartseg_jax.training import initial_weights, steps
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.verbs.models import load_model
from heartseg_jax.workdir import Workdir
from tests.end_to_end.interruption import train_until_interrupted
from tests.tiny import OVERRIDES, flags, write_tiny

SMALL = OVERRIDES | {"model.width": "4", "model.levels": "2", "model.norm": "batch", "log.figures": "false"}


def words(data, workdir, **changes):
    changed = SMALL | {"data.path": str(data), "train.ema_decay": "0.9"} | changes
    return ["--config=configs/quickstart.py", f"--workdir={workdir}", *flags(changed)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny").path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of 10 steps (5 an epoch)."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main.main(words(data, path)) == 0
    return Workdir(path)


def arrays(folder, step=10):
    return Checkpoints(folder.checkpoints).restore_arrays(step)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_cut_short_ends_bit_identical_to_one_that_was_not(run, data, tmp_path):
    path = tmp_path / "cut"
    train_until_interrupted(words(data, path), 8)  # after the checkpoint of step 6
    assert main.main(words(data, path)) == 0
    assert set(arrays(run)) == {"step", "params", "batch_stats", "opt_state", "ema"}
    same(arrays(run), arrays(Workdir(path)))


def test_another_decay_is_another_run(run, data, capsys):
    assert main.main(words(data, run.path, **{"train.ema_decay": "0"})) == 2
    assert "train.ema_decay" in capsys.readouterr().err


def test_the_run_says_which_weights_it_uses(run):
    assert json.loads(run.run.read_text())["weights"] == {"used": "averaged", "ema_decay": 0.9}


def test_every_command_uses_the_averages(run, tmp_path, capsys):
    average = arrays(run)["ema"]
    (weights,) = load_model(run.path).network.members
    same(weights, (average["params"], average["batch_stats"]))
    assert main.main(["evaluate", f"--workdir={run.path}", f"--output={tmp_path / 'again'}"]) == 0
    again, own = (json.loads((p / "summary.json").read_text()) for p in (tmp_path / "again", run.evaluation))
    assert again["structures"] == own["structures"]  # the run's own score, too, is of the averages
    capsys.readouterr()
    assert main.main(["inspect", f"--workdir={run.path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["averaged"] is True
    l2 = {row["path"]: row["l2"] for row in found["arrays"]}
    kernel = np.float64(average["params"]["head"]["kernel"])
    assert l2["params/head/kernel"] == pytest.approx(np.sqrt((kernel**2).sum()), rel=1e-9)
    assert l2["params/head/kernel"] != pytest.approx(np.linalg.norm(arrays(run)["params"]["head"]["kernel"]), rel=1e-6)


def test_a_keras_file_holds_the_averages(run, tmp_path):
    import h5py

    file = tmp_path / "model.weights.h5"
    assert main.main(["convert", "--to=keras", f"--workdir={run.path}", f"--output={file}"]) == 0
    kernels = []
    with h5py.File(file) as opened:
        opened.visititems(lambda _, node: kernels.append(np.array(node)) if isinstance(node, h5py.Dataset) else None)
    wanted = arrays(run)["ema"]["params"]["head"]["kernel"]
    assert any(k.shape == wanted.shape and np.array_equal(k, wanted) for k in kernels)


def test_a_run_that_starts_from_it_starts_from_the_averages(run):
    asked = SMALL | {"pretrained.path": str(run.path), "pretrained.load": "all"}
    _, config = load.load("configs/quickstart.py", asked)
    model = build_model(config.model, HEART)
    drawn = steps.init_params(model, jax.random.key(1), config.data.size)
    params, batch_stats, record = initial_weights.start(config, model, *drawn, lambda count: iter(()))
    average = arrays(run)["ema"]
    same((params, batch_stats), (average["params"], average["batch_stats"]))
    assert record["averaged"] is True
