"""What a batch keeps of its studies, without a prediction: records, damaged folders, foreign files, reasons."""

import json
import uuid

import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.findings import REFUSE, Finding, raise_refused
from heartseg_jax.measure.json_form import COLUMNS
from heartseg_jax.verbs.predict_reasons import kept_reason
from heartseg_jax.verbs.predict_report import DONE, FAILED, OWN, REFUSED, WAITING, BatchReport, Outcome, refuse_foreign

MADE_BY = {"tta": False, "members": [{"step": 1}]}
ROW = dict.fromkeys(COLUMNS) | {"label": 1, "status": "measured", "normal_range_ml": None}


def write_done(output, name, made_by=MADE_BY, content=None):
    (output / name).mkdir(parents=True)
    content = content or {"version": 2, "structures": {"aorta": ROW}, "warnings": []}
    (output / name / "measurements.json").write_text(json.dumps(content))
    (output / name / "report.json").write_text(json.dumps({"made_by": made_by, "outputs": {}}))


def statuses(report):
    return {one.study: one.status for one in report.write()}


@pytest.mark.parametrize(
    "content",
    [{"version": 0}, {"structures": [], "warnings": []}, {"structures": {"aorta": None}, "warnings": []}, {"a": 1}],
)
def test_another_form_of_measurements_is_one_damaged_study(tmp_path, content):
    write_done(tmp_path, "a")
    write_done(tmp_path, "b", content=content)
    assert statuses(BatchReport(tmp_path, ["a", "b"], MADE_BY)) == {"a": DONE, "b": FAILED}
    assert len((tmp_path / "measurements.csv").read_text().splitlines()) == 2


def test_a_column_that_an_older_version_did_not_write_is_empty(tmp_path):
    older = {name: value for name, value in ROW.items() if name != "cut_face_share"}
    write_done(tmp_path, "a", content={"version": 1, "structures": {"aorta": older}, "warnings": []})
    assert statuses(BatchReport(tmp_path, ["a"], MADE_BY)) == {"a": DONE}


def test_outputs_of_another_model_are_marked(tmp_path):
    write_done(tmp_path, "a")
    write_done(tmp_path, "b", made_by=MADE_BY | {"tta": True})
    BatchReport(tmp_path, ["a"], MADE_BY | {"members": ({"step": 1},)}).write()
    content = json.loads((tmp_path / "report.json").read_text())
    assert {study["study"]: study["made_by_other"] for study in content["studies"]} == {"a": False, "b": True}
    assert content["made_by_other"] == 1


def test_records_of_half_written_files_and_of_studies_that_are_gone_do_not_count(tmp_path):
    report = BatchReport(tmp_path, ["a", "gone"], MADE_BY)
    report.note(Outcome("gone", REFUSED, "no CT"))
    (tmp_path / OWN / ".partial-x-a.json").write_text(json.dumps(Outcome("a", REFUSED)._asdict()))
    assert statuses(report) == {"a": WAITING, "gone": REFUSED}
    assert statuses(BatchReport(tmp_path, ["a"], MADE_BY)) == {"a": WAITING}


def test_that_objects_are_not_stored_leaves_a_study_done(tmp_path):
    write_done(tmp_path, "a")
    report = BatchReport(tmp_path, ["a"], MADE_BY)
    report.note(Outcome("a", DONE, stored="not stored: busy"))
    (found,) = report.write()
    assert (found.status, found.stored, report.stored("a")) == (DONE, "not stored: busy", "not stored: busy")
    assert (found.failed(True), found.failed(False)) == (True, False)
    assert "aorta" in (tmp_path / "measurements.csv").read_text()
    report.note(Outcome("a", DONE))
    assert report.write()[0].stored == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("measurements.json", "{}"),
        ("report.json", json.dumps({"version": 1, "study": "x", "outputs": {}})),
        ("report.json", "thesis"),
        ("measurements.csv", "patient,volume\n1,2\n"),
        ("measurements.csv", ""),
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        refuse_foreign(tmp_path)
    assert (tmp_path / name).read_text() == text


def test_a_batch_s_own_files_are_replaced_also_an_older_version_s(tmp_path):
    refuse_foreign(tmp_path / "none")
    BatchReport(tmp_path, ["a"], MADE_BY).write()
    refuse_foreign(tmp_path)
    (tmp_path / "measurements.csv").write_text(",".join(COLUMNS[:9]) + "\n")
    refuse_foreign(tmp_path)


def reason(function, *given):
    with pytest.raises(UserError) as error:
        function(*given)
    return kept_reason(error.value)


def test_a_reason_keeps_the_program_s_own_words_and_counts_only():
    def several(where, number, names):
        raise UserError(f"{where} holds {number} series that fit; choose by --series=N: {names}")

    kept = reason(several, "/data/Meier_Anna/CT", 2, "1: Dr. Holzer 1931-04-17, 30 slices; 2: Meier, 40 slices")
    assert kept == "the study holds 2 series that fit; choose by --series=N: (...)"

    def one(uid, where):
        raise UserError(f"--series={uid} names {0} of the series in {where}: none")

    kept = reason(one, "1.2.840.19310417", "/data/Meier_Anna/CT")
    assert kept == "(...) names 0 of the series in (...): none"

    def file(name, error):
        raise UserError(f"{name}: {error}; send the study again")

    assert reason(file, "deep/ANNA_MEIER.19310417.IMA", ValueError("Meier")) == "the study; send the study again"

    def nested(name):
        try:
            raise ValueError("its pixels end too soon")
        except ValueError as error:
            file(name, error)

    assert reason(nested, "deep/MEIER.IMA") == "the study: its pixels end too soon; send the study again"

    def bare(text):
        raise UserError(text)

    assert "Meier" not in reason(bare, "Meier_Anna is damaged")


def test_a_finding_s_example_is_not_kept():
    name = f"Meier_{uuid.UUID(int=1)}"
    finding = Finding(REFUSE, "damaged", "1 damaged file", fix="send it again", example=name)
    assert reason(raise_refused, f"/data/{name}", [finding, finding]) == "1 damaged file; send it again (and 1 more)"
