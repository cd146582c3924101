"""Which dataset a run trains on, and the verb `prepare`."""

import json

import pytest

import main
from heartseg_jax.config import load as settings
from heartseg_jax.data import run_dataset
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.errors import UserError
from tests.tiny import write_tiny

SMALL = {
    "data.phantom.shape": "6,24,24",
    "data.phantom.spacing_mm": "22,10,10",
    "data.phantom.train": "2",
    "data.phantom.validation": "1",
    "data.phantom.test": "1",
}


def load(**overrides):
    return settings.load("configs/quickstart.py", SMALL | {k.replace("__", "."): v for k, v in overrides.items()})[1]


def test_runs_of_the_same_phantoms_share_them_and_others_do_not(tmp_path):
    first = run_dataset.dataset_for(load(), tmp_path / "run")
    again = run_dataset.dataset_for(load(train__epochs="9"), tmp_path / "other")
    assert first.path == again.path
    assert first.path.parent == tmp_path / "datasets"
    assert [len(first.patients_in(s)) for s in ("train", "validation", "test")] == [2, 1, 1]
    assert run_dataset.dataset_for(load(data__phantom__seed="1"), tmp_path / "run").path != first.path
    assert run_dataset.dataset_identity(first) == run_dataset.dataset_identity(again)


def test_test_patients_of_the_config_change_the_split_and_the_identity(tmp_path):
    dataset = write_tiny(tmp_path / "d")
    config = load(data__path=str(dataset.path), data__test_patients="a", data__validation_patients="b")
    found = run_dataset.dataset_for(config, tmp_path / "run")
    assert [[p.id for p in found.patients_in(s)] for s in ("train", "validation", "test")] == [
        ["c", "d", "e"],
        ["b"],
        ["a"],
    ]
    assert run_dataset.dataset_identity(found) != run_dataset.dataset_identity(dataset)


def test_prepare_makes_phantoms_and_tells_of_them(tmp_path, capsys):
    words = [f"--config.{field}={value}" for field, value in SMALL.items()]
    output = tmp_path / "phantoms"
    command = ["prepare", "--source=phantom", "--config=configs/quickstart.py", f"--output={output}", *words]
    assert main.main(command) == 0
    assert "train      2 patients, 12 slices" in capsys.readouterr().out
    assert json.loads((output / "dataset.json").read_text())["source"]["kind"] == "phantom"
    assert main.main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main.main([*command, "--overwrite"]) == 0


def test_prepare_reads_the_real_slices(shared, tmp_path, capsys):
    output = tmp_path / "ds"
    assert (
        main.main(["prepare", "--source=png_pairs", f"--input={shared / 'data/heart_ct'}", f"--output={output}"]) == 0
    )
    dataset = read_dataset(output)
    assert sum(p.num_slices for p in dataset.patients) == 21
    assert [p.id for p in dataset.patients] == ["1001", "1002", "1004", "1005", "1007"]
    assert "split by patient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source=png_pair"], "did you mean png_pairs"),
        (["--source=png_pairs"], "needs --input"),
        (["--source=phantom"], "needs --config"),
        (["--source=png_pairs", "--input=nowhere"], "nowhere"),
        (["--source=png_pairs", "--input=x", "--merge=0,1,2"], "--merge"),
        (["--source=png_pairs", "--input=x", "--merge=0,1,2,3,4,5,6,7,9"], "--merge"),
        (["--source=png_pairs", "--input=x", "--splits=1,2"], "--splits needs"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys):
    assert main.main(["prepare", f"--output={tmp_path / 'o'}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nobody_to_train_on(tmp_path):
    dataset = write_tiny(tmp_path / "d")
    with pytest.raises(UserError, match="no patient zoe"):
        run_dataset.dataset_for(load(data__path=str(dataset.path), data__test_patients="zoe"), tmp_path / "run")
