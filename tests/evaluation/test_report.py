"""What is written and printed of a score."""

import csv
import json
import math

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.evaluation import report
from heartseg_jax.evaluation.metrics import score_patient

FIXED_KEYS = {
    "split",
    "step",
    "checkpoint",
    "patients",
    "slices",
    "mean_dice",
    "structures",
    "baselines",
    "pixel_accuracy",
    "warnings",
}
FIXED_STRUCTURE_KEYS = {
    "dice",
    "iou",
    "hd95_mm",
    "assd_mm",
    "nsd_2mm",
    "volume_bias_ml",
    "bias_mm",
    "bias_px",
    "missed",
    "patients",
}
BASELINES = {
    "all_background": {"mean_dice": 0.0, "pixel_accuracy": 0.93},
    "nearest_slice": {"mean_dice": 0.288, "pixel_accuracy": 0.91},
}


def table(made):
    return report.table(made, HEART)


def scores(merge=HEART.all_known, collapsed=False, patients=("1001", "1002")):
    truth = np.zeros((3, 12, 12), dtype=np.uint8)
    truth[:, 2:6, 2:6], truth[:, 7:10, 7:10], truth[:, 7:10, 2:4] = 3, 4, 8
    guess = np.zeros_like(truth) if collapsed else np.roll(truth, 1, axis=2)
    return {name: score_patient(truth, guess, HEART, merge, (2.0, 1.0, 1.0), True) for name in patients}


def summary(found, **more):
    return report.build_summary(
        found, HEART, split="test", step=400, checkpoint="checkpoints/400", scored="last", **more
    )


def test_summary_has_the_fixed_keys_and_no_nan(tmp_path):
    found = scores()
    made = summary(found, baselines=BASELINES)
    report.write_report(tmp_path / "evaluation", made, found)
    text = (tmp_path / "evaluation" / "summary.json").read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(read) >= FIXED_KEYS
    assert set(read["structures"]) == set(HEART.names[1:])
    for row in read["structures"].values():
        assert set(row) >= FIXED_STRUCTURE_KEYS
    assert (read["split"], read["step"], read["checkpoint"]) == ("test", 400, "checkpoints/400")
    assert (read["patients"], read["patient_ids"], read["slices"]) == (2, ["1001", "1002"], 6)
    # Shifted by one column: 3 of 4 columns of the ventricle overlap, 2 * 36 / (48 + 48).
    assert read["structures"]["left_ventricle"]["dice"] == pytest.approx(0.75)
    assert read["structures"]["left_atrium"]["dice"] is None
    assert read["baselines"] == BASELINES | {"position_prior": {"mean_dice": None, "pixel_accuracy": None}}
    assert read["warnings"] == []


def test_what_is_not_finite_becomes_null(tmp_path):
    report.write_summary(tmp_path / "summary.json", {"a": float("nan"), "b": np.float32(0.5), "c": (np.int64(3),)})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": None, "b": 0.5, "c": [3]}


def test_cases_have_a_row_for_each_patient_and_structure(tmp_path):
    found = scores(merge=(0, 1, 2, 3, 4, 5, 6, 7, 4))
    report.write_cases(tmp_path / "cases.csv", found)
    with open(tmp_path / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8
    by_name = {row["structure"]: row for row in rows if row["patient"] == "1002"}
    assert list(rows[0]) == list(report.CASE_COLUMNS)
    assert float(by_name["left_ventricle"]["dice"]) == pytest.approx(0.75)
    assert by_name["left_ventricle"]["truth_voxels"] == "48"
    assert by_name["left_ventricle"]["missed"] == "false"
    assert by_name["right_atrium"]["merged_with"] == "vena_cava"
    assert by_name["vena_cava"]["known"] == "false"
    assert by_name["vena_cava"]["dice"] == ""


def test_table_shows_structures_baselines_and_patients():
    text = table(summary(scores(), baselines=BASELINES))
    assert text.startswith("test split at step 400 (the last): 2 patients, 6 slices (1001, 1002)")
    lines = {line.split("  ")[1].split()[0]: line for line in text.splitlines() if line[:4] in ("LV  ", "LA  ")}
    assert lines["left_ventricle"].split()[2] == "0.750"
    assert "absent in 2" in lines["left_atrium"]
    words = [line.split() for line in text.splitlines()]
    assert ["baseline", "all", "background", "0.000", "0.9300"] in words
    assert ["baseline", "nearest", "slice", "0.288", "0.9100"] in words
    assert ["baseline", "position", "prior", "-", "-"] in words
    assert ["1002", "-", "-", "0.750", "0.667", "-", "-", "-", "0.500", "0.639", "3"] in words
    assert "WARNING" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_table_leaves_out_what_has_no_figures():
    flat = np.zeros((1, 4, 4), dtype=np.uint8)
    flat[0, :2] = 1
    text = table(summary({"x": score_patient(flat, flat, HEART, HEART.all_known)}))
    assert "HD95" not in text
    assert "no volumes or surface distances" in text
    (line,) = [line for line in text.splitlines() if line.startswith("structure")]
    assert line.split()[1:] == ["Dice", "IoU", "bias", "px", "missed", "patients"]


def test_the_signed_distance_is_a_column_with_its_sign(tmp_path):
    truth = np.zeros((2, 8, 8), dtype=np.uint8)
    truth[:, :4] = 3
    found = {"x": score_patient(truth, np.roll(np.roll(truth, 1, 1) & truth, -1, 1), HEART, HEART.all_known)}
    made = summary(found)
    assert (made["structures"]["left_ventricle"]["bias_px"], made["structures"]["left_ventricle"]["bias_mm"]) == (
        -1,
        None,
    )
    (line,) = [line for line in table(made).splitlines() if line.startswith("LV  left_ventricle")]
    assert line.split()[4] == "-1.00"
    report.write_cases(tmp_path / "cases.csv", found)
    with open(tmp_path / "cases.csv", newline="") as file:
        rows = {row["structure"]: row for row in csv.DictReader(file)}
    assert [rows[name]["bias_px"] for name in ("left_ventricle", "left_atrium")] == ["-1.0", ""]
    assert rows["left_ventricle"]["bias_mm"] == ""


def test_warnings_are_in_the_summary_and_in_the_table():
    assert any("memorisation, not generalisation" in w for w in summary(scores(), split_kind="block")["warnings"])
    assert summary(scores(), warnings=["mine"])["warnings"] == ["mine"]
    trained = report.build_summary(scores(), HEART, split="train", step=1, checkpoint=None, scored="last")
    assert any("memorisation" in w for w in trained["warnings"])
    other = {"split": "train", "own_split": False, "step": 1, "checkpoint": None, "scored": "last"}
    foreign = report.build_summary(scores(), HEART, **other)  # another dataset's training patients are not its own
    assert not any("memorisation" in w for w in foreign["warnings"])
    text = table(summary(scores(merge=(0, 1, 2, 3, 4, 5, 6, 7, 4))))
    assert "WARNING  merged: right_atrium is scored together with vena_cava in 1001, 1002" in text
    assert "with vena_cava; absent" not in text
    collapsed = summary(scores(collapsed=True), baselines=BASELINES)
    assert any(w.startswith("collapse") for w in collapsed["warnings"])
    assert any(w.startswith("no better than a baseline") and "nearest_slice" in w for w in collapsed["warnings"])
    assert "collapse: the prediction has no foreground at all" in table(collapsed)


def lost_in(*patients):
    """Two patients with a left ventricle, which is not found in those named."""
    return {name: scores(collapsed=name in patients)[name] for name in ("1001", "1002")}


def test_the_distance_of_a_missed_structure_is_shown_as_missed_and_is_a_number_only_in_json(tmp_path):
    found = lost_in("1001", "1002")
    made = summary(found)
    diagonal = math.hypot(3 * 2.0, 12.0, 12.0)
    assert made["structures"]["left_ventricle"]["hd95_mm"] == pytest.approx(diagonal)
    (line,) = [line for line in table(made).splitlines() if line.startswith("LV  left_ventricle")]
    assert line.split()[2:6] == ["0.000", "0.000", "missed", "missed"]
    report.write_cases(tmp_path / "cases.csv", found)
    with open(tmp_path / "cases.csv", newline="") as file:
        rows = {row["structure"]: row for row in csv.DictReader(file) if row["patient"] == "1001"}
    assert (rows["left_ventricle"]["hd95_mm"], rows["left_ventricle"]["assd_mm"]) == ("missed", "missed")
    assert (rows["left_ventricle"]["dice"], rows["left_ventricle"]["nsd_2mm"]) == ("0.0", "0.0")
    assert rows["left_atrium"]["hd95_mm"] == ""


def test_a_mean_distance_over_a_patient_who_was_missed_is_marked():
    text = table(summary(lost_in("1002")))
    (line,) = [line for line in text.splitlines() if line.startswith("LV  left_ventricle")]
    assert line.split()[4].endswith("*")
    assert "* a patient in whom the structure was missed" in text
    assert "*" not in table(summary(lost_in()))


def test_a_dice_of_zero_is_printed_and_not_taken_for_nothing():
    made = summary(lost_in("1001", "1002"))
    assert made["mean_dice"] == 0.0
    assert ["this", "model", "0.000"] in [line.split()[:3] for line in table(made).splitlines()]


def test_a_patient_without_labels_is_named():
    flat = np.zeros((1, 4, 4), np.uint8)
    some = flat.copy()
    some[0, 0] = 2
    found = {"full": score_patient(some, some, HEART, HEART.all_known)}
    found["bare"] = score_patient(flat, some, HEART, HEART.all_known)
    (warning,) = summary(found)["warnings"]
    assert warning.startswith("no structure is labelled in bare:")


@pytest.mark.parametrize(("scored", "words"), [("last", " (the last)"), ("best", " (the best by"), ("asked", ": 2")])
def test_the_table_says_which_step_was_scored(scored, words):
    made = report.build_summary(scores(), HEART, split="test", step=7, checkpoint=None, scored=scored)
    assert made["scored"] == scored
    assert f"at step 7{words}" in table(made)


def test_table_shows_the_interval_from_ten_patients():
    made = summary(scores(patients=[f"p{k}" for k in range(10)]))
    assert made["by_patient"] is None
    assert "95 % interval" in table(made)


def test_an_empty_split_is_reported_and_not_scored(tmp_path):
    made = summary({})
    report.write_report(tmp_path, made, {})
    assert made["mean_dice"] is None
    assert "no patient was scored" in table(made)


def test_each_of_several_datasets_is_scored_by_itself_too():
    half = scores(patients=("a/1", "a/2")) | scores(patients=("b/1",), collapsed=True)
    made = summary(half, datasets={"a/1": "a", "a/2": "a", "b/1": "b"})
    own = made["by_dataset"]
    assert {name: row["patients"] for name, row in own.items()} == {"a": 2, "b": 1}
    assert (
        own["a"]["mean_dice"]
        == report.build_summary(
            scores(patients=("a/1", "a/2")), HEART, split="test", step=1, checkpoint=None, scored="last"
        )["mean_dice"]
    )
    assert own["b"]["mean_dice"] == 0
    [row] = [line for line in table(made).splitlines() if line.startswith("b ")]
    assert row.split()[-2:] == ["0.000", "1"]
    assert "by_dataset" not in summary(half)
