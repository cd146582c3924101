"""The verbs train, evaluate and inspect on a dataset of tiles, from the command line's words to the files."""

import csv
import json
import shutil

import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.write import read_dataset, with_test_patients
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_metrics
from tests.end_to_end.interruption import train_until_interrupted
from tests.tiny import OVERRIDES, flags, write_tiny

QUICKSTART = "--config=configs/quickstart.py"
SUMMARY_KEYS = {
    "split", "step", "checkpoint", "patients", "slices", "mean_dice", "structures", "baselines", "pixel_accuracy",
    "warnings",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny").path


def words(data, workdir, **overrides):
    changed = OVERRIDES | {"data.path": str(data)} | {k.replace("__", "."): v for k, v in overrides.items()}
    return [QUICKSTART, f"--workdir={workdir}", *flags(changed)]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of 10 steps (5 an epoch)."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main.main(words(data, path)) == 0
    return Workdir(path)


def arrays(folder: Workdir, step: int):
    import jax

    return jax.tree.leaves(Checkpoints(folder.checkpoints).restore_arrays(step))


def test_a_run_leaves_everything_the_contract_names(run):
    for name in ("config.json", "run.json", "metrics.jsonl", "checkpoints/10", "DONE", "evaluation/cases.csv"):
        assert (run.path / name).exists(), name
    for figure in ("curves", "predictions", "inputs"):
        assert (run.figures / f"{figure}.png").stat().st_size > 10_000
    summary = json.loads((run.evaluation / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert (summary["split"], summary["step"], summary["patients"], summary["slices"]) == ("test", 10, 1, 6)
    assert summary["patient_ids"] == ["e"]
    assert set(summary["baselines"]) == {"all_background", "nearest_slice", "position_prior"}
    # 8 tiles of 7x7 in 32x32.
    assert summary["baselines"]["all_background"]["pixel_accuracy"] == pytest.approx(1 - 8 * 49 / 1024)
    rows = list(csv.DictReader((run.evaluation / "cases.csv").open()))
    assert [row["patient"] for row in rows] == ["e"] * 8


def test_metrics_have_the_contracts_tags(run):
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [2, 4, 5, 6, 8, 10]  # every second, and the end of each epoch
    last = rows[-1]
    assert {"train/loss", "train/learning_rate/all", "train/foreground_fraction", "val/loss", "val/dice/mean"} <= set(
        last
    )
    assert {
        "val/pixel_accuracy",
        "val/dice/left_atrium",
        "perf/images_per_s",
        "perf/step_ms",
        "perf/gflops_per_s",
    } <= set(last)
    assert last["perf/data_wait_ms"] >= 0
    assert rows[0]["train/loss"] > last["train/loss"]


def test_the_same_command_again_changes_no_number(run, data):
    before = (run.evaluation / "summary.json").read_bytes(), run.metrics.read_bytes()
    assert main.main(words(data, run.path)) == 0
    assert before == ((run.evaluation / "summary.json").read_bytes(), run.metrics.read_bytes())


def test_the_best_by_validation_dice_is_kept_named_and_scored(run, tmp_path):
    scored = {row["step"]: row["val/dice/mean"] for row in read_metrics(run) if "val/dice/mean" in row}
    best = max(scored, key=scored.get)
    summary = json.loads((run.evaluation / "summary.json").read_text())
    assert summary["step"] == 10
    assert summary["best_checkpoint"] == {"step": best, "validation_dice": scored[best]}
    assert Checkpoints(run.checkpoints).read("best").step == best
    assert main.main(["evaluate", f"--workdir={run.path}", "--step=best", f"--output={tmp_path / 'best'}"]) == 0
    assert json.loads((tmp_path / "best" / "summary.json").read_text())["step"] == best


def test_a_finished_run_goes_on_when_epochs_are_added(run, data, tmp_path, capsys):
    path = tmp_path / "longer"
    assert main.main(words(data, path, train__epochs="1", log__figures="false")) == 0
    assert main.main(words(data, path, train__epochs="2", log__figures="false")) == 0
    assert "going on from step 5 of 10" in capsys.readouterr().err
    assert json.loads((path / "evaluation" / "summary.json").read_text())["step"] == 10
    assert main.main(words(data, path, train__epochs="1", log__figures="false")) == 2
    assert "raise --config.train.epochs" in capsys.readouterr().err
    assert json.loads((path / "config.json").read_text())["train"]["epochs"] == 2  # what is refused changes nothing


def test_a_run_cut_short_ends_bit_identical_to_one_that_was_not(run, data, tmp_path):
    path = tmp_path / "cut"
    train_until_interrupted(words(data, path), 8)  # after the checkpoint of step 6
    assert not (path / "DONE").exists()
    assert main.main(words(data, path)) == 0
    whole, resumed = arrays(run, 10), arrays(Workdir(path), 10)
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert [row["step"] for row in read_metrics(Workdir(path))] == [2, 4, 5, 6, 8, 10]


def test_a_guard_that_stops_at_the_last_step_stops_the_same_command_again(data, tmp_path, monkeypatch, capsys):
    black = np.zeros((9, 9), np.int64)
    black[0, 0], black[1, 0] = 90, 10  # nothing is marked where the labels mark a tenth
    monkeypatch.setattr("heartseg_jax.training.train.evaluate", lambda *_: (1.0, {0: black}))
    path = tmp_path / "black"
    for _ in range(2):
        assert main.main(words(data, path, guards__collapse_evaluations="2", log__figures="false")) == 3
        assert "collapse guard: at step 10, for 2 evaluations in a row" in capsys.readouterr().err
        assert not (path / "DONE").exists()
        assert Checkpoints(path / "checkpoints").steps() == [6, 9]  # that of step 10 is not kept


def test_a_state_that_is_lost_is_never_kept(data, tmp_path, monkeypatch):
    from heartseg_jax.training import metrics_log

    real = metrics_log.MetricsLog.record
    broken = lambda self, step, current: real(self, step, current | {"gradient_norm": np.inf if step > 6 else 1.0})  # noqa: E731
    monkeypatch.setattr(metrics_log.MetricsLog, "record", broken)
    path = tmp_path / "lost"
    assert main.main(words(data, path, guards__non_finite="warn", log__figures="false")) == 0
    assert Checkpoints(path / "checkpoints").steps() == [3, 6]


def test_a_hidden_transfer_within_the_loop_is_an_error(data, tmp_path, monkeypatch):
    import jax

    from heartseg_jax.training import metrics_log

    monkeypatch.setattr(metrics_log.MetricsLog, "record", lambda self, step, current: current["loss"] + np.ones(3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        main.main(words(data, tmp_path / "hidden", log__figures="false"))


def test_evaluate_scores_another_split_and_another_dataset(run, data, tmp_path, capsys):
    assert main.main(["evaluate", f"--workdir={run.path}", "--split=train"]) == 0
    shown = capsys.readouterr().out
    assert "memorisation, not generalisation" in shown
    assert "all background" in shown
    assert main.main(["evaluate", f"--workdir={run.path}", f"--data={data}", f"--output={tmp_path / 'o'}"]) == 0
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["split"], summary["patients"]) == ("all", 5)
    assert summary["warnings"][0].startswith("memorisation, not generalisation: 3 of 5 patients were trained on (a, b")
    final = (run.evaluation / "summary.json").read_bytes()
    assert main.main(["evaluate", f"--workdir={run.path}", "--step=9"]) == 0
    assert json.loads((run.path / "evaluation-step9" / "summary.json").read_text())["step"] == 9
    assert (run.evaluation / "summary.json").read_bytes() == final
    assert main.main(["evaluate", f"--workdir={run.path}", "--step=7"]) == 2
    assert "no checkpoint of step 7" in capsys.readouterr().err
    assert main.main(["evaluate", f"--workdir={run.path}", "--output=/proc/here"]) == 2
    assert "/proc/here" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_is_taken_up_and_scored_wherever_it_lies_but_not_on_other_data(run, data, tmp_path, capsys, monkeypatch):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    contract = Checkpoints(moved / "checkpoints").read(10).contract
    assert contract["dataset"] == str(data)
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    monkeypatch.setattr("heartseg_jax.training.run.dataset_for", lambda config, path: read_dataset(copy))
    assert main.main(words(data, moved)) == 0  # the same data in another place
    monkeypatch.setattr(
        "heartseg_jax.verbs.evaluate.resplit", lambda dataset, config: with_test_patients(dataset, ["a"], ["b"])
    )
    assert main.main(["evaluate", f"--workdir={moved}"]) == 2
    assert "has changed since" in capsys.readouterr().err


def test_channels_may_be_any_slices_and_windows(data, tmp_path):
    path = tmp_path / "channels"
    channels = {"data__channels": "0,1:-100..300", "train__epochs": "1", "log__figures": "false"}
    assert main.main(words(data, path, **channels)) == 0
    saved = Checkpoints(path / "checkpoints").read(5)
    assert saved.contract["input"]["channels"] == [[0, [-200.0, 600.0]], [1, [-100.0, 300.0]]]
    assert (3, 3, 2, 8) in {array.shape for array in arrays(Workdir(path), 5)}  # the first layer takes two channels
    assert main.main(["evaluate", f"--workdir={path}"]) == 0
    assert main.main(words(data, path, **channels | {"data__channels": "0,1"})) == 2


def test_inspect_lists_the_arrays_by_path(run, capsys):
    assert main.main(["inspect", f"--workdir={run.path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 10
    rows = {row["path"]: row for row in found["arrays"]}
    kernel = rows["params/encoder/stage1/conv1/kernel"]
    assert (kernel["shape"], kernel["dtype"], kernel["group"]) == ([3, 3, 3, 8], "float32", "encoder/stage1")
    assert kernel["l2"] > 0
    assert all(row["finite"] for row in rows.values())
    assert found["parameters"]["total"] == sum(int(np.prod(row["shape"])) for row in found["arrays"])
    assert main.main(["inspect", f"--workdir={run.path}"]) == 0
    assert "params/head/kernel" in capsys.readouterr().out
