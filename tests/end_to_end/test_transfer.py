"""Transfer from the command line: phases, their proof, resuming in the midst of one, the control, and refusals."""

import json

import pytest

import main
from tests.tiny import OVERRIDES, flags, write_tiny

TRANSFER = OVERRIDES | {"model.levels": "5", "model.width": "16", "train.epochs": "2", "log.figures": "false"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny"
    write_tiny(path)
    return path


def run(path, tiny, **overrides):
    chosen = TRANSFER | {"data.path": str(tiny)} | {k.replace("__", "."): v for k, v in overrides.items()}
    return main.main(["--config=configs/transfer.py", f"--workdir={path}", *flags(chosen)])


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny):
    path = tmp_path_factory.mktemp("runs") / "transfer"
    assert run(path, tiny) == 0
    return path


def test_the_log_proves_what_was_frozen(done):
    log = json.loads((done / "transfer.json").read_text())
    assert log["pretrained"]["kind"] == "keras"
    first, second = log["phases"]
    assert [first["first_step"], first["last_step"], second["last_step"]] == [1, 5, 10]
    for stage in range(1, 6):
        row = first["groups"][f"encoder/stage{stage}"]
        assert row["frozen"]
        assert row["identical"]
        assert row["arrays"] == 12
        assert row["sha256_before"] == row["sha256_after"]
        assert not second["groups"][f"encoder/stage{stage}"]["identical"]
    assert first["proven"]
    assert not first["groups"]["decoder"]["identical"]
    # What the first phase left is what the second begins with.
    assert all(row["sha256_after"] == second["groups"][g]["sha256_before"] for g, row in first["groups"].items())


def test_the_learning_rate_is_told_by_group(done):
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    early, late = rows[0], rows[-1]
    assert early["train/learning_rate/encoder/stage1"] == 0 < early["train/learning_rate/decoder"]
    assert late["train/learning_rate/encoder/stage1"] == late["train/learning_rate/head"] > 0


def test_the_control_stands_in_the_report(done, capsys):
    summary = json.loads((done / "evaluation" / "summary.json").read_text())
    control = json.loads((done / "control_random_frozen" / "evaluation" / "summary.json").read_text())
    assert summary["controls"] == {"random_frozen": {k: control[k] for k in ("mean_dice", "pixel_accuracy")}}
    assert control["step"] == summary["step"]
    log = json.loads((done / "control_random_frozen" / "transfer.json").read_text())
    assert log["pretrained"]["path"] == ""
    assert log["pretrained"]["recalibrated_batches"] == 8
    assert [phase["proven"] for phase in log["phases"]] == [True]
    assert main.main(["evaluate", f"--workdir={done}"]) == 0
    assert "control random frozen" in capsys.readouterr().out


def test_a_run_stopped_in_its_second_phase_goes_on_to_the_same_end(done, tiny, tmp_path):
    path = tmp_path / "run"
    # Checkpoints lie at steps 3, 6, 9 and 10: without the last two it goes on within the second phase.
    assert run(path, tiny, transfer__control="false", checkpoint__keep="9") == 0
    import shutil

    whole = json.loads((path / "transfer.json").read_text())
    for step in (9, 10):
        shutil.rmtree(path / "checkpoints" / str(step))
    assert run(path, tiny, transfer__control="false", checkpoint__keep="9") == 0
    again = json.loads((path / "transfer.json").read_text())
    assert again["phases"] == whole["phases"]
    # Damaged, the log begins where the run resumes.
    for damaged in ([], {"phases": [1, {"phase": 2, "groups": {"head": 3}}]}):
        for step in (9, 10):
            shutil.rmtree(path / "checkpoints" / str(step))
        (path / "transfer.json").write_text(json.dumps(damaged))
        assert run(path, tiny, transfer__control="false", checkpoint__keep="9") == 0
        (entry,) = json.loads((path / "transfer.json").read_text())["phases"]
        assert (entry["phase"], entry["noted_from_step"], entry["proven"]) == (2, 7, True)


def test_other_phases_are_another_run(done, tiny, capsys):
    assert run(done, tiny, transfer__schedule="full") == 2
    assert "transfer.schedule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "stated"),
    [
        ({"model__width": "8"}, "--config.model.width=16"),
        ({"model__levels": "4"}, "--config.model.levels=5"),
        ({"model__norm": "none"}, "--config.model.norm=encoder"),
        ({"pretrained__path": "no_such.keras"}, "pretrained.path=no_such.keras does not exist"),
        ({"pretrained__load": "all"}, "needs the folder of a run"),
        ({"transfer__schedule": "staged", "train__steps": "3"}, "too many for 3 steps"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_fix(tiny, tmp_path, capsys, changed, stated):
    assert run(tmp_path / "run", tiny, **changed) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert stated in last
    assert "Traceback" not in last


def test_weights_of_a_run_start_another(done, tiny, tmp_path):
    path = tmp_path / "next"
    assert run(path, tiny, pretrained__path=str(done), pretrained__load="all", transfer__control="false") == 0
    log = json.loads((path / "transfer.json").read_text())
    before = json.loads((done / "transfer.json").read_text())
    assert log["pretrained"]["loaded"] == ["decoder", "encoder", "head"]
    ended, began = before["phases"][-1]["groups"], log["phases"][0]["groups"]
    assert all(began[group]["sha256_before"] == row["sha256_after"] for group, row in ended.items())


def test_inspect_shows_what_is_frozen_and_what_has_changed(done, capsys):
    control = done / "control_random_frozen"
    capsys.readouterr()
    assert main.main(["inspect", f"--workdir={control}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["group"] for row in found["arrays"] if row["frozen"]} == {f"encoder/stage{k}" for k in range(1, 6)}
    # Width 16: five stages of two convolutions and BatchNorms each; the rest by subtraction from the network's.
    encoder = 1_178_768 + 3_968 // 2
    assert found["parameters"]["frozen"] == encoder
    assert found["parameters"]["total"] - found["parameters"]["trainable"] - encoder == 3_968 // 2
    # In its second phase the transfer has thawed.
    assert main.main(["inspect", f"--workdir={done}", "--json"]) == 0
    assert not any(row["frozen"] for row in json.loads(capsys.readouterr().out)["arrays"])

    # Between two checkpoints of the control the encoder is the same, bit for bit, and nothing else is.
    words = ["inspect", f"--workdir={control}", f"--against={control}", "--against_step=9"]
    assert main.main([*words, "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert not compared["only_here"]
    assert not compared["only_there"]
    assert all("encoder" in path for path in compared["unchanged"])
    assert all("encoder" not in path for path in compared["changed"])
    assert (len(compared["unchanged"]), len(compared["changed"])) == (60, 4 * 6 + 2)
    assert main.main(words) == 0
    assert "60 bit-identical" in capsys.readouterr().out
