"""The arm of a trained heart model: its network, its weights, and that it has seen none of the patients left out."""

import dataclasses

import jax
import numpy as np
import pytest

import main
from heartseg_jax.anatomy import HEART as LABELS
from heartseg_jax.config import load
from heartseg_jax.errors import GuardStop, UserError
from heartseg_jax.interop.package import write_package
from heartseg_jax.lab.arms import ARMS, HEART, Job, arm_config, arms_of, folds_of
from heartseg_jax.lab.run import program_of, replica_of
from heartseg_jax.lab.unseen import check_unseen
from heartseg_jax.models.registry import build_model
from heartseg_jax.preprocess.contract import Contract, input_spec
from heartseg_jax.preprocess.learned import UNRECORDED, Learned
from heartseg_jax.training import steps
from tests.tiny import write_tiny

NETWORK = {"model.width": 4, "model.levels": 2, "model.norm": "batch", "data.channels": "0"}
"""One channel, as the heart model that ships; the other arms have three."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("lab") / "data", splits=dict.fromkeys("abc", "train"))


@pytest.fixture
def packed(tmp_path):
    """A function that writes a package of a random network which learned from these datasets."""

    def write(*records):
        config = load.changed(load.load("configs/lab.py", {"data.size": "32"})[1], NETWORK)
        model = build_model(config.model, LABELS)
        params, stats = steps.init_params(model, jax.random.key(9), 32, 1)
        contract = Contract(input_spec(config.data, "HU"), "heart", "hearts", "e" * 64, 5, (), records)
        source = {"seed": 0, "step": 1, "checkpoint_sha256": "", "config_sha256": "", "averaged": False}
        head = {"name": "hearts", "version": "1", "sources": [source], "contract": contract.to_json()}
        folder = tmp_path / "hearts"
        folder.mkdir()
        write_package(folder, head | {"config": load.to_plain(config)}, [(params, stats)], "float32")
        return folder

    return write


def learned(*digests):
    return Learned("hearts", "real", len(digests), 9, {"left_atrium": 1}, tuple(sorted(digests)))


def configured(run, arms=HEART):
    return load.load("configs/lab.py", {"data.size": "32", "lab.arms": arms, "lab.heart_run": str(run)})[1]


def test_it_comes_in_with_its_model_alone(packed):
    assert HEART not in arms_of(load.load("configs/lab.py")[1])
    with pytest.raises(UserError, match="lab.heart_run"):
        arms_of(configured(""))
    folder = packed(learned("0" * 64))
    assert arms_of(configured(folder, ""))[-1] == list(ARMS)[-1] == HEART


def test_it_has_the_network_and_the_weights_of_its_model(packed, dataset):
    folder = packed(learned("0" * 64))
    config = configured(folder)
    own = arm_config(config, HEART)
    found = load.differences(config, own)
    assert all(
        line.startswith(("model.", "data.channels", "pretrained.", "transfer.schedule", "lab.")) for line in found
    )
    assert (own.model.width, own.model.levels, own.model.norm, own.data.channels) == (4, 2, "batch", "0")
    assert (own.transfer.schedule, own.pretrained.load) == ("full", "all")
    replica = replica_of(program_of(own), folds_of(dataset, Job(HEART, "patient", 0, 0))[0], 0)
    assert replica.params["encoder"]["stage1"]["conv1"]["kernel"].shape == (3, 3, 1, 4)
    with np.load(folder / "weights.npz") as stored:
        np.testing.assert_array_equal(replica.params["head"]["kernel"], stored["params/head/kernel"][0])


def test_a_model_that_has_seen_a_patient_is_refused(packed, dataset):
    folder = packed(learned("0" * 64, dataset.patients[1].sha256["images"]))
    with pytest.raises(GuardStop, match=r"1 of the 3 patients.*\(b\)") as stop:
        check_unseen(configured(folder), dataset)
    assert "what to try" in str(stop.value)
    assert check_unseen(configured(folder, "scratch_deep"), dataset) == []  # no arm starts from it


def test_another_volume_of_the_same_person_is_the_person(packed, dataset):
    persons = [dataclasses.replace(p, person="x") if p.id in "ab" else p for p in dataset.patients]
    same = dataclasses.replace(dataset, patients=tuple(persons))
    folder = packed(learned(dataset.patients[0].sha256["images"]))
    with pytest.raises(GuardStop, match=r"1 of the 2 patients.*\(x\)"):
        check_unseen(configured(folder), same)


def test_the_command_ends_with_the_guards_status(packed, dataset, tmp_path, capsys):
    folder = packed(learned(dataset.patients[0].sha256["images"]))
    words = [f"--config.{name}" for name in ("data.size=32", f"lab.arms={HEART}", f"lab.heart_run={folder}")]
    words += ["--config=configs/lab.py", f"--config.data.path={dataset.path}", f"--workdir={tmp_path / 'lab'}"]
    assert main.main(["lab", *words]) == 3
    assert "stopped by the unseen guard" in capsys.readouterr().err
    assert not (tmp_path / "lab" / "lab.json").exists()


@pytest.mark.parametrize("records", [(), (learned("0" * 64), UNRECORDED)])
def test_a_model_that_does_not_say_what_it_learned_from_is_refused(packed, dataset, records):
    folder = packed(*records)
    with pytest.raises(UserError, match="trained on"):
        check_unseen(configured(folder), dataset)
    other = load.changed(configured("", "synthetic_full"), {"lab.synthetic_run": str(folder)})
    assert len(check_unseen(other, dataset)) == 1  # as it always was, with a warning


def test_what_the_laboratory_cannot_do_fairly_is_refused(dataset):
    with pytest.raises(UserError, match="data.detail"):
        arms_of(load.load("configs/lab.py", {"data.detail": "2"})[1])
    several = dataclasses.replace(dataset, members=(dataset,))
    with pytest.raises(UserError, match="one dataset"):
        folds_of(several, Job("scratch", "patient", 0, 0))
