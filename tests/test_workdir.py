"""The run folder."""

import json
import shlex
from pathlib import Path

import pytest

from heartseg_jax import files, workdir
from heartseg_jax.config import load, schema
from heartseg_jax.errors import UserError

QUICKSTART = str(Path(__file__).parents[1] / "configs" / "quickstart.py")


@pytest.fixture
def config():
    return load.load(QUICKSTART)[1]


def test_a_run_is_taken_up_only_with_its_own_config(tmp_path, config):
    folder, lock = workdir.open_for_training(tmp_path / "run", config)
    lock.close()
    assert workdir.read_config(folder) == config
    workdir.open_for_training(tmp_path / "run", config)[1].close()
    _, other = load.load(QUICKSTART, {"seed": "1"})
    folder.checkpoints.joinpath("5").mkdir(parents=True)  # before that, nothing would be spoilt
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        workdir.open_for_training(tmp_path / "run", other)
    assert workdir.read_config(folder) == config


def test_earlier_starts_are_kept_in_the_provenance(tmp_path, config):
    _, longer = load.load(QUICKSTART, {"train.epochs": "9"})
    folder, lock = workdir.open_for_training(tmp_path / "run", config)
    workdir.write_provenance(folder, config, {"commit": "a"})
    folder.checkpoints.joinpath("5").mkdir(parents=True)
    lock.close()
    workdir.open_for_training(tmp_path / "run", longer)[1].close()  # may go on, but the checkpoint may still refuse it
    assert workdir.read_config(folder) == config
    workdir.write_provenance(folder, longer, {"commit": "b"})
    workdir.write_provenance(folder, longer, {"commit": "c"})
    assert workdir.read_config(folder) == longer
    found = json.loads(folder.run.read_text())
    assert found == {"commit": "c", "earlier_starts": [{"commit": "a"}, {"commit": "b"}]}


def test_a_run_of_an_earlier_version_has_the_defaults_of_later_fields(tmp_path, config):
    plain = load.to_plain(config)
    del plain["log"], plain["data"]["augment"]
    files.write_json(tmp_path / "config.json", plain)
    found = workdir.read_config(workdir.Workdir(tmp_path))
    assert found.log.to_dict() == schema.defaults().log.to_dict()
    assert (found.data.augment, found.data.size) == ("default", config.data.size)


def test_two_runs_in_one_folder_are_refused(tmp_path, config):
    _, lock = workdir.open_for_training(tmp_path / "run", config)
    with lock, pytest.raises(UserError, match="another process"):
        workdir.open_for_training(tmp_path / "run", config)


def test_a_folder_with_other_files_is_left_alone(tmp_path, config):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(UserError, match="no run"):
        workdir.open_for_training(tmp_path, config)
    with pytest.raises(UserError, match="is a file"):
        workdir.open_for_training(tmp_path / "holiday.jpg", config)


def test_metrics_are_rewound_to_the_step_of_the_checkpoint(tmp_path):
    folder = workdir.Workdir(tmp_path)
    for step in (2, 4, 6):
        workdir.append_metrics(folder, {"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 8, "train/lo')  # what a kill leaves behind
    assert [row["step"] for row in workdir.read_metrics(folder)] == [2, 4, 6]
    workdir.rewind_metrics(folder, 4)
    assert folder.metrics.read_text() == '{"step": 2}\n{"step": 4}\n'


@pytest.mark.parametrize(
    "line", [b"[1]", b"3", b'{"loss": 1}', b'{"step": "2"}', b'{"step": 3, "loss": []}', b"\xff\xfe", b"[" * 100_000]
)
def test_metrics_that_are_no_rows_end_the_file(tmp_path, line):
    folder = workdir.Workdir(tmp_path)
    folder.metrics.write_bytes(b'{"step": 2}\n' + line + b'\n{"step": 4}\n')
    assert workdir.read_metrics(folder) == [{"step": 2}]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'"x"', b"{}", b'{"data": 3}', b"\xff\xfe", b"[" * 100_000, b'{"seed": 0}']
)
def test_a_damaged_config_of_a_run_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json is damaged"):
        workdir.read_config(workdir.Workdir(tmp_path))


@pytest.mark.parametrize("content", ["[]", "null", '"x"', '{"earlier_starts": 3}', "{"])
def test_a_provenance_of_another_shape_is_written_again(tmp_path, config, content):
    run = workdir.Workdir(tmp_path)
    run.run.write_text(content)
    workdir.write_provenance(run, config, {"started": "now"})
    assert json.loads(run.run.read_text())["started"] == "now"


def test_provenance_has_versions_and_a_command_that_can_be_pasted():
    argv = ["train", "--config=x", "--workdir=my runs/it's"]
    found = workdir.provenance(argv)
    assert found["versions"]["jax"]
    assert shlex.split(found["command"]) == ["python", "main.py", *argv]


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "3", "{", '{"earlier_starts": 3}', '{"earlier_starts": {}}'])
def test_a_damaged_provenance_is_replaced(tmp_path, config, content):
    folder = workdir.Workdir(tmp_path)
    folder.run.write_text(content)
    workdir.write_provenance(folder, config, {"commit": "a"})
    assert json.loads(folder.run.read_text()) == {"commit": "a", "earlier_starts": []}
