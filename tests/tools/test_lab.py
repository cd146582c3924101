"""The laboratory: jobs, folds, resuming, and what its table says."""

import json

import numpy as np
import pytest

import main
from heartseg_jax import settings
from heartseg_jax.errors import UserError
from heartseg_jax.tools import lab_arms, lab_report
from tests.tiny import flags, write_tiny

SMALL = {
    "data.size": "16",
    "model.width": "4",
    "train.steps": "3",
    "lab.looks": "1",
    "lab.seeds": "1",
    "lab.workers": "1",
    "lab.replicas": "one",
    "lab.arms": "random_frozen,scratch_deep",
    "model.levels": "2",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny", splits={"a": "train", "b": "train", "c": "test"})


def config(**overrides):
    return settings.load("configs/lab.py", {k.replace("__", "."): v for k, v in overrides.items()})[1]


def test_every_arm_is_a_valid_config():
    for arm in lab_arms.ARMS:
        own = lab_arms.arm_config(config(lab__synthetic_run="runs/synthetic"), arm)
        assert (own.pretrained.path == "brain16") == arm.startswith("brain")
        assert own.train.steps == config().train.steps


def test_jobs_take_patients_before_slices_and_a_seed_before_the_next():
    jobs = lab_arms.jobs_of(config(lab__arms="scratch_deep,scratch", lab__train_patients="0,2"))
    assert [(j.split, j.train_patients, j.seed, j.arm) for j in jobs[:3]] == [
        ("patient", 0, 0, "scratch"),
        ("patient", 0, 0, "scratch_deep"),
        ("patient", 0, 1, "scratch"),
    ]
    assert [(j.split, j.train_patients) for j in jobs[4::4]] == [("patient", 2), ("slice", 0)]


def test_folds_leave_out_each_patient_or_each_slice_once(dataset):
    job = lab_arms.Job("scratch", "patient", 0, 0)
    assert [[p.id for p in f.dataset.patients_in("test")] for f in lab_arms.folds_of(dataset, job)] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    few = lab_arms.folds_of(dataset, job._replace(train_patients=1))
    assert [len(f.dataset.patients_in("train")) for f in few] == [1, 1, 1]
    left = []
    for fold in lab_arms.folds_of(dataset, job._replace(split="slice")):
        test, train = set(fold.dataset.examples("test")), set(fold.dataset.examples("train"))
        assert not test & train
        assert len(test | train) == 18
        left += sorted(test)
    assert sorted(left) == [(p, z) for p in range(3) for z in range(6)]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"lab__arms": "scratsh"}, "did you mean scratch"),
        ({"lab__arms": "synthetic_full"}, "lab.synthetic_run"),
        ({"lab__splits": "voxel"}, "patient, slice"),
        ({"lab__train_patients": "two"}, "whole numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, told):
    with pytest.raises(UserError, match=told):
        lab_arms.jobs_of(config(**overrides))


def test_the_sign_test_by_hand():
    assert lab_report.sign_test([0.1] * 5) == pytest.approx(2 / 32)
    assert lab_report.sign_test([0.1, 0.1, 0.1, 0.1, -0.1]) == pytest.approx(2 * (1 + 5) / 32)
    assert lab_report.sign_test([0.1, 0.0]) == 1.0
    assert lab_report.sign_test([0.0]) is None


def row(**patients):
    return {"patients": {p: {str(i): v for i, v in enumerate(values)} for p, values in patients.items()}}


def test_a_direction_is_named_only_where_all_agree_beyond_the_seeds():
    control = row(a=[0.2, 0.3], b=[0.4, 0.4])
    assert lab_report.compare(row(a=[0.4, 0.5], b=[0.5, 0.6]), control)["direction"] == "better"
    assert lab_report.compare(row(a=[0.25, 0.5], b=[0.5, 0.6]), control)["direction"] == "none"
    assert lab_report.compare(row(a=[0.4, 0.5], b=[0.3, 0.3]), control)["direction"] == "none"
    found = lab_report.compare(row(a=[0.1, 0.1], b=[0.3, 0.3]), control)
    assert found["direction"] == "worse"
    assert found["mean_difference"] == pytest.approx(((0.1 - 0.25) + (0.3 - 0.4)) / 2)


def test_a_patients_dice_pools_the_slices_of_all_folds():
    def result(fold, both, missed):
        counts = np.zeros((9, 9), int)
        counts[1, 1], counts[1, 0] = both, missed
        return {
            "seed": 0,
            "fold": fold,
            "patients": {"a": counts.tolist()},
            "fit_dice": 0.5,
            "curve": [[10, 0.5, 0.1], [20, 0.95, 0.2], [30, 1.0, 0.1]],
            "seconds": 2.0,
            "stopped": None,
            "all_background": False,
            "proofs": [],
        }

    found = lab_report.arm_row([result("f0", 3, 1), result("f1", 0, 4)])
    # 2 * 3 / (8 true + 3 predicted)
    assert found["by_patient"]["a"] == pytest.approx(6 / 11)
    assert found["steps_to_90"] == 20


def test_it_trains_writes_and_goes_on(dataset, tmp_path, capsys):
    words = ["lab", "--config=configs/lab.py", f"--workdir={tmp_path / 'lab'}"]
    words += flags(SMALL | {"data.path": str(dataset.path)})
    assert main.main([*words, "--config.lab.budget_only=true"]) == 0
    assert "18 runs" not in (told := capsys.readouterr()).err
    assert "12 runs of 3 steps are left" in told.err
    assert main.main([*words, "--config.lab.splits=patient"]) == 0
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "lab" / "results").glob("*.json")}
    assert len(files) == 6
    assert main.main(words) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    report = json.loads((tmp_path / "lab" / "report.json").read_text())
    assert [s["split"] for s in report["settings"]] == ["patient", "slice"]
    assert set(report["settings"][0]["arms"]) == {"scratch_deep", "random_frozen"}
    assert set(report["settings"][0]["arms"]["random_frozen"]["by_patient"]) == {"a", "b", "c"}
    assert report["settings"][0]["arms"]["random_frozen"]["frozen_proven"]
    assert (tmp_path / "lab" / "arms.png").stat().st_size > 10_000
    capsys.readouterr()
    assert main.main([*words, "--config.train.learning_rate=0.1"]) == 2
    assert "train.learning_rate: 0.003 -> 0.1" in capsys.readouterr().err
