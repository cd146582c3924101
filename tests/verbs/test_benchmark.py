"""The verb `benchmark`: a small cell is measured in its own process, and what cannot be is refused or said."""

import json
import os
import signal

import pytest

import main
from heartseg_jax.benchmarking import rows, workers
from heartseg_jax.models import cost
from tests.tiny import OVERRIDES, flags, write_tiny

COMMAND = ["benchmark", "--config=configs/quickstart.py"]
SMALL = {"model.width": "2", "model.levels": "2", "benchmark.seconds": "0.01", "benchmark.steps": "2"}


def command(tmp_path, **more):
    write_tiny(tmp_path / "data")
    overrides = OVERRIDES | SMALL | {"data.path": str(tmp_path / "data")} | more
    return [*COMMAND, *flags(overrides), f"--json={tmp_path / 'new' / 'rows.jsonl'}"]


def test_a_cell_is_measured(tmp_path, capsys):
    assert main.main(command(tmp_path, **{"benchmark.batches": "4"})) == 0
    train, infer = (json.loads(line) for line in (tmp_path / "new/rows.jsonl").read_text().splitlines())
    assert list(train) == list(infer) == list(rows.KEYS)
    shape = cost.Shape(3, 2, 2, 9, "batch")
    for row, flops in ((train, cost.step_flops(32, 32, shape)), (infer, cost.forward_flops(32, 32, shape))):
        assert (row["status"], row["reason"], row["config"], row["batch_size"]) == ("measured", None, "quickstart", 4)
        assert row["flops_per_image"] == flops
        assert row["images_per_s"] == pytest.approx(4e3 / row["step_ms"])
        assert row["gflops_per_s"] == pytest.approx(flops * 4 / row["step_ms"] / 1e6)
        assert row["mfu"] == pytest.approx(row["gflops_per_s"] / row["matmul_gflops_per_s"])
        assert row["parameters"] == sum(layer.parameters for layer in cost.layer_costs(32, 32, shape))
        assert row["steps"] >= 3
        assert row["step_ms_quartiles"][0] <= row["step_ms"] <= row["step_ms_quartiles"][1]
        assert row["peak_bytes"] > row["planned_bytes"] > 0
        assert row["compile_cold_s"] > 0
        assert row["compile_warm_s"] > 0  # the program was found in the cache
    assert (train["resident"], infer["resident"]) == (True, None)
    assert train["fed_step_ms"] > 0
    assert train["data_wait_ms"] > 0
    assert infer["data_wait_ms"] is None
    shown = capsys.readouterr()
    assert "quickstart  train" in shown.out
    assert "quickstart  infer" in shown.out
    assert shown.err.startswith("benchmark: 2 cells")


def kill_itself(sending, asked, place):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(sending, asked, place):
    raise SystemExit(3)


def test_a_process_that_the_system_kills_is_a_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workers, "_work", kill_itself)
    assert main.main(command(tmp_path, **{"benchmark.work": "infer"})) == 0
    [row] = [json.loads(line) for line in (tmp_path / "new/rows.jsonl").read_text().splitlines()]
    assert (row["status"], row["size"], row["step_ms"]) == ("does_not_fit", 32, None)
    assert "memory" in capsys.readouterr().out


def test_a_process_that_fails_is_a_bug_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_work", fail)
    with pytest.raises(RuntimeError, match="status 3"):
        main.main(command(tmp_path))
    assert not (tmp_path / "new/rows.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--config.benchmark.sizes=60"], "data.size"),
        (["--config.benchmark.dtypes=half"], "benchmark.dtypes"),
        (["--config.benchmark.configs=configs/scratch.py"], "benchmark.configs"),
        (["--config.data.path=nowhere"], "nowhere"),
        (["--json=configs"], "--json=configs"),
        (["--json=main.py/rows.jsonl"], "--json=main.py/rows.jsonl"),
        (["--json=/proc/rows.jsonl"], "--json=/proc/rows.jsonl"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(words, named, capsys, monkeypatch):
    monkeypatch.setattr(workers, "measure_apart", lambda cell, place: pytest.fail(f"{cell} was measured"))
    assert main.main([*COMMAND, *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert named in error


def test_after_an_interruption_it_says_what_there_is():
    module, values = main.parse([*COMMAND, "--json=rows.jsonl"])
    assert "rows.jsonl" in module.interrupted(values)
