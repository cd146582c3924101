"""The laboratory: its folds, its resuming, its table worked out by hand, and when it may name a direction."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.lab import report
from heartseg_jax.lab.arms import ARMS, NEEDED, Job, arm_config, arms_of, folds_of, inner_fold, jobs_of
from heartseg_jax.lab.laboratory import lab
from tests.tiny import OVERRIDES, SLICES, flags, write_tiny

PATIENTS = ["a", "b", "c"]


def configured(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load.load("configs/lab.py", dotted)[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("lab") / "data", splits=dict.fromkeys(PATIENTS, "train"))


# Arms and jobs


def test_the_arms_differ_in_what_they_claim_and_in_nothing_else():
    config = configured()
    differences = {arm: load.differences(config, arm_config(config, arm)) for arm in arms_of(config)}
    assert list(differences) == [arm for arm in ARMS if arm not in NEEDED]
    assert differences["scratch_deep"] == []
    for arm, found in differences.items():
        allowed = ("model.norm", "model.levels", "pretrained.", "transfer.schedule")
        assert all(line.removeprefix("config.").startswith(allowed) for line in found), (arm, found)
    assert arm_config(config, "random_frozen").pretrained.path == ""
    assert arm_config(config, "random_frozen").pretrained.recalibrate_batches > 0
    assert arm_config(config, "scratch").model.levels == 3
    assert arm_config(config, "brain_full").pretrained.path == "brain16"


def test_synthetic_full_comes_in_with_its_run_alone():
    config = configured(lab__synthetic_run="runs/phantoms")
    assert "synthetic_full" in arms_of(config)
    own = arm_config(config, "synthetic_full")
    assert (own.pretrained.path, own.pretrained.load) == ("runs/phantoms", "all")
    with pytest.raises(UserError, match="lab.synthetic_run"):
        arms_of(configured(lab__arms="synthetic_full"))


def test_every_arm_has_one_seed_before_the_next_begins():
    jobs = jobs_of(configured(lab__arms="scratch,brain_full", lab__splits="patient", seed="5"))
    assert [(job.arm, job.seed) for job in jobs] == [
        ("scratch", 5),
        ("brain_full", 5),
        ("scratch", 6),
        ("brain_full", 6),
    ]


def test_numbers_of_training_patients_are_no_question_for_a_split_by_slice():
    jobs = jobs_of(configured(lab__arms="scratch", lab__seeds="1", lab__train_patients="2,0"))
    assert sorted((job.split, job.train_patients) for job in jobs) == [("patient", 0), ("patient", 2), ("slice", 0)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lab__arms": "brain_ful"}, "brain_full"),
        ({"lab__splits": "volume"}, "patient, slice"),
        ({"lab__train_patients": "two"}, "whole numbers"),
        ({"lab__train_patients": "-1"}, "or more"),
        ({"lab__learning_rates": "fast"}, "must be numbers"),
        ({"lab__learning_rates": "1e-3,0"}, "above 0"),
        ({"lab__learning_rates": "nan"}, "above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        jobs_of(configured(**changes))


# Folds


def test_each_patient_is_left_out_in_turn(dataset):
    folds = folds_of(dataset, Job("scratch", "patient", 0, 0))
    assert [fold.name for fold in folds] == PATIENTS
    for number, fold in enumerate(folds):
        assert {p for p, _ in fold.dataset.examples("test")} == {number}
        assert {p for p, _ in fold.dataset.examples("train")} == set(range(3)) - {number}


def test_fewer_training_patients_are_the_same_ones_for_every_arm(dataset):
    def trained(arm, seed):
        folds = folds_of(dataset, Job(arm, "patient", 1, seed))
        return [[p.id for p in fold.dataset.patients_in("train")] for fold in folds]

    drawn = trained("scratch", 0)
    assert drawn == trained("brain_full", 0)
    assert all(len(ids) == 1 and ids[0] != left_out for ids, left_out in zip(drawn, PATIENTS, strict=True))
    assert len({str(trained("scratch", seed)) for seed in range(8)}) > 1
    with pytest.raises(UserError, match="3 patients"):
        trained("scratch", 0) and folds_of(dataset, Job("scratch", "patient", 3, 0))


def test_a_split_by_slice_never_tests_on_a_slice_it_trained_on(dataset):
    tested = []
    for fold in folds_of(dataset, Job("scratch", "slice", 0, 0)):
        train, test = (set(fold.dataset.examples(split)) for split in ("train", "test"))
        assert not train & test
        assert len(train | test) == 3 * SLICES
        # As many folds, and as many slices in training, as when patients are left out.
        assert (len(train), len(test)) == (2 * SLICES, SLICES)
        assert {p for p, _ in train} & {p for p, _ in test}, "the point of it: the same patients on both sides"
        tested += sorted(test)
    assert sorted(tested) == [(p, z) for p in range(3) for z in range(SLICES)]


def test_the_inner_patient_is_one_that_trained_and_the_outer_one_stays_out(dataset):
    for number, fold in enumerate(folds_of(dataset, Job("scratch", "patient", 0, 0))):
        inner = inner_fold(fold).dataset
        (chosen,) = {p for p, _ in inner.examples("test")}
        (trains,) = {p for p, _ in inner.examples("train")}
        assert {chosen, trains, number} == {0, 1, 2}


def test_a_choice_by_slices_never_sees_what_the_fold_leaves_out(dataset):
    for fold in folds_of(dataset, Job("scratch", "slice", 0, 0)):
        inner = inner_fold(fold).dataset
        assert not set(fold.dataset.examples("test")) & set(inner.examples("test") + inner.examples("train"))


def test_a_person_with_two_volumes_is_one_patient(tmp_path):
    dataset = write_tiny(tmp_path / "data", splits=dict.fromkeys("abcd", "train"))
    patients = [replace(p, person="x") if p.id in "ac" else p for p in dataset.patients]
    dataset = replace(dataset, patients=tuple(patients))
    folds = folds_of(dataset, Job("scratch", "patient", 0, 0))
    tested = [{p.id for p in fold.dataset.patients_in("test")} for fold in folds]
    assert [fold.name for fold in folds] == ["x", "b", "d"]
    assert tested == [{"a", "c"}, {"b"}, {"d"}]
    for fold in [*folds, *folds_of(dataset, Job("scratch", "patient", 2, 0))]:
        for part in (fold, inner_fold(fold)):
            by_person = {}
            for patient in part.dataset.patients:
                by_person.setdefault(patient.who, set()).add(patient.splits)
            assert all(len(splits) == 1 for splits in by_person.values())


def test_one_training_patient_is_too_few_to_choose_by(dataset):
    with pytest.raises(UserError, match="lab.train_patients must be 2 or more"):
        inner_fold(folds_of(dataset, Job("scratch", "patient", 1, 0))[0])


# The numbers


def counts(dice: float) -> list[list[int]]:
    """Counts [9, 9] in which structure 1 has this Dice, to a thousandth, and nothing else occurs."""
    hits = round(1000 * dice)
    table = np.zeros((9, 9), int)
    table[1, 1], table[1, 0], table[0, 1] = hits, 1000 - hits, 1000 - hits
    return table.tolist()


def result(arm, seed, patient, dice, **changes):
    return {
        **Job(arm, "patient", 0, seed)._asdict(),
        "fold": patient,
        "patients": {} if dice is None else {patient: counts(dice)},
        "fit_dice": 0.9,
        "curve": [[10, 0.3, 0.1], [20, 0.85, 0.3], [30, 0.9, 0.2]],
        "seconds": 12.0,
        "stopped": None,
        "all_background": False,
        "proofs": [{"identical": True}],
    } | changes


def row(values: dict[str, list[float]]):
    """The row of an arm: patient -> the Dice of each seed."""
    return report.arm_row(
        [result("arm", seed, patient, dice) for patient, by in values.items() for seed, dice in enumerate(by)], HEART
    )


def test_a_row_by_hand():
    found = row({"a": [0.2, 0.4], "b": [0.6, 0.8]})
    assert found["patients"] == {
        "a": {"0": pytest.approx(0.2), "1": pytest.approx(0.4)},
        "b": {"0": pytest.approx(0.6), "1": pytest.approx(0.8)},
    }
    assert found["by_patient"] == pytest.approx({"a": 0.3, "b": 0.7})
    assert found["by_seed"] == pytest.approx({"0": 0.4, "1": 0.6})
    assert found["mean_of_patients"] == pytest.approx(0.5)
    assert (found["seconds"], found["fit_dice"], found["runs"]) == (12.0, pytest.approx(0.9), 4)
    assert found["steps_to_90"] == 20  # 0.9 of 0.9 is 0.81: 0.85 at step 20 is the first beyond it


def test_slices_of_a_patient_that_several_folds_left_out_are_pooled():
    halves = [result("arm", 0, "fold0", None), result("arm", 0, "fold1", None)]
    halves[0]["patients"], halves[1]["patients"] = {"a": counts(0.2)}, {"a": counts(0.8)}
    assert report.arm_row(halves, HEART)["by_patient"] == pytest.approx({"a": 0.5})


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1] * 5, 0.0625),  # 2 / 2^5: five that agree
        ([-0.1] * 5, 0.0625),
        ([0.1] * 6, 0.03125),
        ([0.1, 0.1, 0.1, 0.1, -0.1], 0.375),  # 2 * (1 + 5) / 2^5
        ([0.1, -0.1], 1.0),
        ([0.1, 0.1, 0.0], 0.5),  # the tie is left out: 2 / 2^2
    ],
)
def test_the_sign_test_by_hand(differences, p):
    assert report.sign_test(differences) == pytest.approx(p)


def test_without_a_difference_there_is_no_sign_test():
    assert report.sign_test([0.0, 0.0]) is None


FIVE = ["1", "2", "3", "4", "5"]
CONTROL = {patient: [0.30, 0.32] for patient in FIVE}


def test_five_that_agree_beyond_their_seeds_have_a_direction():
    better = report.compare(row({p: [0.33, 0.40] for p in FIVE}), row(CONTROL), FIVE)
    assert better["direction"] == "better"
    assert better["sign_test_p"] == pytest.approx(0.0625)
    assert better["differences"] == pytest.approx(dict.fromkeys(FIVE, 0.055))
    assert (better["higher"], better["lower"], better["mean_difference"]) == (5, 0, pytest.approx(0.055))
    worse = report.compare(row(CONTROL), row({p: [0.33, 0.40] for p in FIVE}), FIVE)
    assert (worse["direction"], worse["higher"], worse["lower"]) == ("worse", 0, 5)


def test_seeds_that_overlap_in_one_patient_leave_no_direction():
    values = {p: [0.33, 0.40] for p in FIVE} | {"3": [0.31, 0.60]}  # 0.31 is below the control's 0.32
    found = report.compare(row(values), row(CONTROL), FIVE)
    assert found["higher"] == 5
    assert found["direction"] == "none"


def test_one_patient_that_disagrees_leaves_no_direction():
    found = report.compare(row({p: [0.33, 0.40] for p in FIVE} | {"3": [0.1, 0.1]}), row(CONTROL), FIVE)
    assert (found["higher"], found["lower"], found["direction"]) == (4, 1, "none")
    assert found["sign_test_p"] == pytest.approx(0.375)


def test_five_patients_and_two_seeds_are_the_least_that_name_a_direction():
    four = FIVE[:4]
    found = report.compare(row({p: [0.5, 0.6] for p in four}), row({p: [0.1, 0.2] for p in four}), four)
    assert (found["higher"], found["direction"]) == (4, "none")  # p = 0.125
    found = report.compare(row({p: [0.5] for p in FIVE}), row({p: [0.1] for p in FIVE}), FIVE)
    assert (found["higher"], found["direction"]) == (5, "none")  # a single seed has no spread


def test_a_patient_whose_runs_were_stopped_agrees_with_nobody():
    six = [*FIVE, "6"]
    found = report.compare(row({p: [0.5, 0.6] for p in FIVE}), row({p: [0.1, 0.2] for p in six}), six)
    assert (found["higher"], found["direction"]) == (5, "none")


def test_seeds_that_are_no_longer_asked_for_stay_out_of_the_table(dataset):
    results = [result("scratch", seed, p, 0.2 + 0.2 * seed) for seed in (0, 1) for p in PATIENTS]
    found = report.build(results, [Job("scratch", "patient", 0, 0)], dataset)
    assert found["settings"][0]["arms"]["scratch"]["mean_of_patients"] == pytest.approx(0.2)


def test_baselines_are_pooled_by_patient_as_the_arms_are(dataset):
    """All slices of a tiny patient are alike, so the nearest slice of a split by slice is the very truth."""
    found = report.build([], [Job("scratch", "slice", 0, 0)], dataset)
    assert found["settings"][0]["baselines"]["nearest_slice"] == dict.fromkeys(PATIENTS, 1.0)


def test_a_collapse_and_a_stop_are_told_in_the_table():
    results = [
        result("scratch", 0, "a", 0.5),
        result("scratch", 0, "b", 0.0, all_background=True),
        result("scratch", 0, "c", None, stopped="the loss is nan at step 2", fit_dice=None),
    ]
    setting = {
        "split": "patient",
        "train_patients": 0,
        "arms": {"scratch": report.arm_row(results, HEART)},
        "baselines": {"nearest_slice": {"a": 0.1, "b": 0.3}},
        "compared": {},
    }
    shown = report.table({"patients": PATIENTS, "settings": [setting]})
    assert "stopped: c, seed 0: the loss is nan at step 2" in shown
    assert "all background: b, seed 0" in shown
    assert "| 0.50 | 0.00 | - | **0.25** | 0.90 | 12 | 20 |" in shown
    assert "| *nearest slice* | 0.10 | 0.30 | - | 0.20 |" in shown


# The verb

RUN = {
    **{name: value for name, value in OVERRIDES.items() if not name.startswith(("train.epochs", "model.levels"))},
    "model.width": "4",
    "model.levels": "2",
    "train.steps": "2",
    "lab.arms": "scratch",
    "lab.seeds": "1",
    "lab.splits": "patient",
    "lab.replicas": "one",
    "lab.workers": "1",
    "lab.looks": "1",
}


@pytest.fixture(scope="module")
def done(dataset, tmp_path_factory):
    """A finished laboratory of one arm on three folds."""
    path = tmp_path_factory.mktemp("finished") / "lab"
    lab(load.load("configs/lab.py", RUN | {"data.path": str(dataset.path)})[1], path, [])
    return path


def results(path):
    return {file.name: file.stat().st_mtime_ns for file in (path / "results").glob("*.json")}


def again(dataset, path, **changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load.load("configs/lab.py", RUN | {"data.path": str(dataset.path)} | dotted)[1], path, []


def test_every_run_leaves_its_result_and_the_whole_its_table_and_figure(done):
    assert sorted(results(done)) == [f"patient-n0-scratch-seed0-{patient}.json" for patient in PATIENTS]
    record = json.loads((done / "results" / "patient-n0-scratch-seed0-b.json").read_text())
    assert list(record["patients"]) == ["b"]
    assert record["steps"] == 2
    assert np.sum(record["patients"]["b"]) == SLICES * 32 * 32
    table = (done / "table.md").read_text()
    assert "| scratch | " in table
    assert "*position prior*" in table
    assert (done / "arms.png").stat().st_size > 10_000


def test_a_second_start_trains_what_is_missing_alone(dataset, done, capsys):
    before = results(done)
    gone = "patient-n0-scratch-seed0-b.json"
    scored = json.loads((done / "results" / gone).read_text())
    (done / "results" / gone).unlink()
    lab(*again(dataset, done))
    assert "1 runs of 2 steps are left" in capsys.readouterr().err
    after = results(done)
    assert {name for name in after if after[name] != before[name]} == {gone}
    redone = json.loads((done / "results" / gone).read_text())
    assert redone["patients"] == scored["patients"]
    assert redone["curve"] == scored["curve"]


@pytest.mark.parametrize("content", ["[]", "{", '{"arm": "scratch"}', "null"])
def test_a_damaged_result_is_named_and_trained_again(dataset, done, tmp_path, capsys, content):
    path = tmp_path / "lab"
    shutil.copytree(done, path)
    name = "patient-n0-scratch-seed0-c.json"
    whole = json.loads((path / "results" / name).read_text())
    (path / "results" / name).write_text(content)
    lab(*again(dataset, path))
    assert name in capsys.readouterr().err
    redone = json.loads((path / "results" / name).read_text())
    assert redone["patients"] == whole["patients"]
    assert redone["curve"] == whole["curve"]


def test_a_changed_config_is_refused_with_the_difference(dataset, done):
    before = results(done)
    with pytest.raises(UserError, match=r"train.learning_rate: 0.01 -> 0.02"):
        lab(*again(dataset, done, train__learning_rate="2e-2"))
    assert results(done) == before


def test_how_it_is_carried_out_may_change(dataset, done):
    before = results(done)
    lab(*again(dataset, done, data__threads="1", lab__replicas="vmap"))
    assert results(done) == before


def test_the_budget_alone_trains_nothing(dataset, tmp_path, capsys):
    words = flags(RUN | {"data.path": str(dataset.path), "lab.budget_only": "true"})
    assert main.main(["lab", "--config=configs/lab.py", *words, f"--workdir={tmp_path / 'lab'}"]) == 0
    shown = capsys.readouterr().err
    assert "3 runs of 2 steps are left" in shown
    assert "ms per step" in shown
    assert "an estimate" in shown
    assert list(results(tmp_path / "lab")) == []


def test_without_a_number_of_steps_it_is_refused(dataset, tmp_path, capsys):
    words = flags(RUN | {"data.path": str(dataset.path), "train.steps": "0"})
    assert main.main(["lab", "--config=configs/lab.py", *words, f"--workdir={tmp_path / 'lab'}"]) == 2
    assert "--config.train.steps=N" in capsys.readouterr().err
