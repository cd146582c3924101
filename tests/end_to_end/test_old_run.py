"""A run folder and a dataset folder of an earlier version are evaluated, inspected and resumed as they were."""

import json
import re
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import main
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir
from tests.tiny import OVERRIDES, flags

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
QUICKSTART = FIXTURES.parents[1] / "configs" / "quickstart.py"
SMALLER = {"model.width": "4", "model.levels": "2", "data.path": "ds", "log.figures": "false"}

MOVED_BY_ROUNDING = re.compile(r"/conv\d/bias$|/norm\d/mean$")
"""A bias before BatchNorm has a gradient of zero, of which Adam makes steps from each CPU's own rounding; the mean
takes them out again."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    with zipfile.ZipFile(FIXTURES / "run_of_bac4a5e.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Workdir(tmp_path / "run")


def figures_of(summary):
    figures = {name: summary[name] for name in ("step", "patients", "slices", "mean_dice", "pixel_accuracy")}
    for name, structure in summary["structures"].items():
        figures |= {f"{name} {key}": structure[key] for key in ("dice", "iou", "hd95_mm", "assd_mm", "volume_bias_ml")}
    return figures


def test_it_is_scored_as_it_was(run):
    before = json.loads((run.evaluation / "summary.json").read_text())
    assert main.main(["evaluate", "--workdir=run", "--output=again"]) == 0
    after = json.loads(Path("again/summary.json").read_text())
    assert figures_of(after) == pytest.approx(figures_of(before), rel=1e-6)


def test_it_is_inspected(run, capsys):
    assert main.main(["inspect", "--workdir=run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["parameters"]) == (10, {"total": 1885, "trainable": 1821, "frozen": 0})
    kernel = next(row for row in found["arrays"] if row["path"] == "params/decoder/stage1/block/conv1/kernel")
    assert kernel["l2"] == pytest.approx(3.030994597531162, rel=1e-6)


def test_it_goes_on_as_it_would_have(run):
    words = [f"--config={QUICKSTART}", "--workdir=run", *flags(OVERRIDES | SMALLER | {"train.epochs": "4"})]
    assert main.main(words) == 0
    arrays = Checkpoints(run.checkpoints).restore_arrays(20)
    leaves = jax.tree_util.tree_leaves_with_path({kind: arrays[kind] for kind in ("params", "batch_stats")})
    with np.load("resumed.npz") as expected:
        assert len(leaves) == len(expected.files) == 40
        for path, leaf in leaves:
            name = "/".join(part.key for part in path)
            tolerance = 1e-2 if MOVED_BY_ROUNDING.search(name) else 1e-5
            np.testing.assert_allclose(leaf, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"version": 9}'])
def test_a_contract_that_cannot_be_read_is_one_line(run, content, capsys):
    (run.checkpoints / "10" / "contract" / "metadata").write_text(content)
    train = [f"--config={QUICKSTART}", "--workdir=run", *flags(OVERRIDES | SMALLER | {"train.epochs": "4"})]
    for words in (["evaluate", "--workdir=run"], ["inspect", "--workdir=run"], train):
        assert main.main(words) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "contract" in errors[0]
