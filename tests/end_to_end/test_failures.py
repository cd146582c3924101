"""Each way a run can go wrong has its own message and exit status, and no traceback: nothing fails silently."""

import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.write import read_dataset
from tests.tiny import OVERRIDES, flags, replace_labels, write_tiny

QUICKSTART = "--config=configs/quickstart.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny").path


def attempt(capsys, data, workdir, *more, **overrides):
    changed = OVERRIDES | {"data.path": str(data), "log.figures": "false"}
    status = main.main([QUICKSTART, f"--workdir={workdir}", *flags(changed | overrides), *more])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not (workdir / "DONE").exists()
    return status, error


def test_labels_that_are_all_background(capsys, tmp_path):
    data = write_tiny(tmp_path / "d", relabel=np.zeros_like).path
    status, error = attempt(capsys, data, tmp_path / "run")
    assert status == 3
    assert "missing_labels guard" in error
    assert "every label is background" in error
    assert "what to try" in error


def test_labels_shifted_out_of_range(capsys, tmp_path):
    dataset = write_tiny(tmp_path / "d")
    # The writer refuses such labels, so they are put in behind its back.
    labels = np.load(dataset.path / "b.labels.npy")
    replace_labels(dataset, "b", np.where(labels > 0, labels + 1, 0).astype(np.uint8))
    status, error = attempt(capsys, read_dataset(dataset.path).path, tmp_path / "run")
    assert status == 3
    assert "labels guard: patient b has label values out of range: 9 (294 pixels)" in error


@pytest.mark.parametrize(("patient", "status"), [("b", 0), ("e", 2)], ids=["in training", "in test"])
def test_labels_out_of_range_that_only_warn(capsys, tmp_path, patient, status):
    dataset = write_tiny(tmp_path / "d")
    labels = np.load(dataset.path / f"{patient}.labels.npy")
    replace_labels(dataset, patient, np.where(labels > 0, labels + 1, 0).astype(np.uint8))
    changed = {"guards.labels": "warn", "guards.collapse": "off", "train.epochs": "1", "log.figures": "false"}
    words = flags(OVERRIDES | {"data.path": str(dataset.path)} | changed)
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *words]) == status
    error = capsys.readouterr().err
    assert f"WARNING labels guard: patient {patient}" in error
    # In training they count as ignored; a score against them would be of nothing known.
    assert ("error: " in error) == (status == 2)


def test_images_that_are_all_zero(capsys, tmp_path):
    data = write_tiny(tmp_path / "d", reimage=np.zeros_like).path
    status, error = attempt(capsys, data, tmp_path / "run")
    assert status == 3
    assert "images guard: patient a: 6 of 6 slices are constant" in error


def test_a_learning_rate_of_1e3(capsys, data, tmp_path):
    status, error = attempt(
        capsys, data, tmp_path / "run", **{"train.learning_rate": "1e3", "train.epochs": "20", "model.norm": "none"}
    )
    assert status == 3
    assert "guard: " in error
    assert "a lower --config.train.learning_rate" in error


def test_a_model_that_collapses_to_background(capsys, tmp_path):
    # Images that say nothing, and a loss that rewards the commonest label: the original's black mask.
    data = write_tiny(tmp_path / "d", reimage=np.zeros_like).path
    changed = {"guards.images": "off", "guards.collapse_evaluations": "2", "train.dice_weight": "0"}
    changed |= {"train.epochs": "12", "model.norm": "none"}
    status, error = attempt(capsys, data, tmp_path / "run", **changed)
    assert status == 3
    assert "collapse guard" in error
    assert "that of an all-black mask" in error


def test_a_guard_can_be_told_to_warn(capsys, tmp_path):
    data = write_tiny(tmp_path / "d", relabel=lambda labels: np.where(labels == 8, 0, labels).astype(np.uint8)).path
    changed = OVERRIDES | {"data.path": str(data), "log.figures": "false", "guards.missing_labels": "warn"}
    changed |= {"train.epochs": "1"}
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed)]) == 0
    assert "WARNING missing_labels guard: no training slice holds vena_cava" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.sise": "32"}, "the config has no field 'data.sise'; did you mean data.size?"),
        ({"data.batch_size": "many"}, "--config.data.batch_size needs an integer"),
        ({"data.path": "no/such/dataset"}, "no/such/dataset"),
        ({"data.test_patients": "zoe"}, "no patient zoe"),
    ],
    ids=["unknown override", "wrong type", "missing dataset", "unknown patient"],
)
def test_a_users_mistake_is_one_line_and_exit_2(capsys, data, tmp_path, overrides, message):
    status, error = attempt(capsys, data, tmp_path / "run", **overrides)
    assert status == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_workdir_of_another_config(capsys, data, tmp_path):
    changed = OVERRIDES | {"data.path": str(data), "log.figures": "false", "train.epochs": "1"}
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed)]) == 0
    capsys.readouterr()
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed | {"model.width": "12"})]) == 2
    assert "holds a run of another config (model.width: 8 -> 12)" in capsys.readouterr().err


def test_a_start_that_failed_does_not_bind_the_workdir(capsys, data, tmp_path):
    status, _ = attempt(capsys, data, tmp_path / "run", **{"data.path": "no/such/dataset"})
    assert status == 2
    changed = OVERRIDES | {"data.path": str(data), "log.figures": "false", "train.epochs": "1"}
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed)]) == 0


def test_a_dataset_that_changed_under_a_run(capsys, tmp_path):
    data = write_tiny(tmp_path / "d").path
    changed = OVERRIDES | {"data.path": str(data), "log.figures": "false", "train.epochs": "1"}
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed)]) == 0
    dataset = write_tiny(tmp_path / "e", relabel=lambda labels: np.roll(labels, 1, axis=2))
    data.rename(tmp_path / "old")
    dataset.path.rename(data)
    assert main.main([QUICKSTART, f"--workdir={tmp_path / 'run'}", *flags(changed)]) == 2
    assert "trained on other data" in capsys.readouterr().err


def test_weights_that_are_nowhere_are_refused_before_phantoms_are_made(capsys, tmp_path):
    words = ["--config=configs/transfer.py", f"--workdir={tmp_path / 'run'}", "--config.pretrained.path=no/such.keras"]
    assert main.main(words) == 2
    assert "no/such.keras" in capsys.readouterr().err
    assert not (tmp_path / "datasets").exists()
