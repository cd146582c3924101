"""`predict` over a folder of studies: which there are, one folder each, reports and table, shards."""

import csv
import json
import shutil
import threading

import pytest

import main
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.measure.json_form import COLUMNS
from heartseg_jax.measure.results import Measurements
from heartseg_jax.privacy import config_folder
from heartseg_jax.verbs import predict, predict_batch, predict_report, predict_study
from heartseg_jax.verbs.predict_report import DONE, REFUSED, BatchReport, Outcome
from tests.dicom_writer import PLANTED
from tests.studies import write_study
from tests.verbs.predicting import unpack_run, volume

SECRETS = {part for value in PLANTED.values() for part in value.replace("^", " ").split()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return unpack_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Five studies in three formats, of which one is damaged and one is no CT."""
    place = tmp_path_factory.mktemp("batch") / "archive"
    place.mkdir()
    for index in (2, 10):
        write_nifti(volume(index % 3), place / f"case_{index}.nii.gz")
    write_study(place / "case_3", 1)
    write_study(place / "case_4", 0, edit=lambda dataset, z: setattr(dataset, "Modality", "MR"))
    (place / "Zwicknagl_Leopoldine.nii").write_bytes(b"damaged")
    (place / "readme.txt").write_text("x")
    return place


def predicted(run, archive, output, *words):
    return main.main(
        ["predict", f"--input={archive}", f"--output={output}", f"--workdir={run}", "--export=nifti", *words]
    )


def report(output, name="report.json"):
    content = json.loads((output / name).read_text())
    return {study["study"]: study["status"] for study in content["studies"]}


def table(output):
    with open(output / "measurements.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(list(row) == list(COLUMNS) for row in rows)
    return rows


@pytest.fixture(scope="module")
def done(run, archive, tmp_path_factory):
    """The output of a whole batch, its exit status and what it said."""
    output = tmp_path_factory.mktemp("done") / "out"
    return output, predicted(run, archive, output)


def test_failed_studies_do_not_stop_the_rest_and_are_listed(done, capsys):
    output, status = done
    assert status == 2
    key = next(name for name in report(output) if name.startswith("p"))
    assert report(output) == {"case_2": DONE, "case_3": DONE, "case_4": REFUSED, "case_10": DONE, key: REFUSED}
    content = json.loads((output / "report.json").read_text())
    assert content["counts"] == {"done": 3, "refused": 2, "failed": 0, "waiting": 0}
    reasons = {study["study"]: study["reason"] for study in content["studies"]}
    assert "MR" in reasons["case_4"]
    assert "NIfTI" in reasons[key]
    assert sorted(path.name for path in output.iterdir() if not path.name.startswith(".")) == [
        "case_10",
        "case_2",
        "case_3",
        "measurements.csv",
        "report.json",
    ]


def test_the_table_has_a_row_per_study_and_structure(done):
    rows = table(done[0])
    assert [row["study"] for row in rows[::8]] == ["case_2", "case_3", "case_10"]
    assert len(rows) == 24
    for row in rows:
        own = json.loads((done[0] / row["study"] / "measurements.json").read_text())["structures"][row["structure"]]
        assert (int(row["voxels"]), row["status"]) == (own["voxels"], own["status"])


def test_no_name_of_a_patient_is_kept(done):
    for path in done[0].rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        named = [s for s in SECRETS if s.lower().encode() in content + path.name.lower().encode()]
        assert not named, path


def test_a_second_call_skips_what_is_done_and_tries_the_rest(run, archive, done, tmp_path, capsys, monkeypatch):
    output = shutil.copytree(done[0], tmp_path / "out")
    tried = []
    real = predict_batch.predict_study

    def watched(job, path, *rest, **named):
        tried.append(path.name)
        return real(job, path, *rest, **named)

    monkeypatch.setattr(predict_batch, "predict_study", watched)
    assert predicted(run, archive, output) == 2
    assert sorted(tried) == ["Zwicknagl_Leopoldine.nii", "case_4"]
    said = capsys.readouterr()
    assert said.err.count("refused case_4: ") == 2  # when it happens, and at the end
    assert said.out.count("already done") == 3


def test_a_study_that_is_repaired_is_done_on_the_next_call(run, archive, done, tmp_path):
    source = shutil.copytree(archive, tmp_path / "archive")
    output = shutil.copytree(done[0], tmp_path / "out")
    shutil.rmtree(source / "case_4")
    write_study(source / "case_4", 0)
    write_nifti(volume(), source / "Zwicknagl_Leopoldine.nii")
    assert predicted(run, source, output) == 0
    assert set(report(output).values()) == {DONE}
    assert len(table(output)) == 40


def test_more_slices_than_before_are_no_skipped_study(run, archive, done, tmp_path):
    source = shutil.copytree(archive, tmp_path / "archive")
    output = shutil.copytree(done[0], tmp_path / "out")
    first = sorted((source / "case_3").iterdir())[0]
    first.unlink()
    assert predicted(run, source, output) == 2
    assert report(output)["case_3"] == REFUSED
    assert "case_3" not in {row["study"] for row in table(output)}
    before = (output / "case_2" / "report.json").stat().st_ino
    assert predicted(run, source, output, "--overwrite") == 2  # case_4 is still no CT
    assert report(output)["case_3"] == DONE
    assert (output / "case_2" / "report.json").stat().st_ino == before


def test_shards_partition_and_merge(run, archive, done, tmp_path, capsys):
    output = tmp_path / "out"
    assert predicted(run, archive, output, "--shard=1/2") in (0, 2)
    first = report(output)
    assert list(first.values()).count("waiting") == 2
    assert predicted(run, archive, output, "--shard=2/2") in (0, 2)
    parts = [report(output, f"report-{k}-of-2.json") for k in (1, 2)]
    assert [len(part) for part in parts] == [3, 2]
    assert not set(parts[0]) & set(parts[1])
    assert parts[0] | parts[1] == report(output) == report(done[0])
    assert table(output) == table(done[0])


def test_jax_s_own_processes_are_shards(run, archive, tmp_path, monkeypatch):
    assert predict._own_shard() == (1, 1)
    with monkeypatch.context() as patch:
        patch.setattr("jax.process_index", lambda: 1)
        patch.setattr("jax.process_count", lambda: 2)
        own = predict._own_shard()
    monkeypatch.setattr(predict, "_own_shard", lambda: own)
    assert predicted(run, archive, tmp_path / "out") in (0, 2)
    assert len(report(tmp_path / "out", "report-2-of-2.json")) == 2


def test_keep_table_says_who_is_who(run, archive, tmp_path):
    predicted(run, archive, tmp_path / "whom", "--shard=5/5", "--keep_table")
    content = (config_folder() / "tables" / "whom.csv").read_text()
    assert "Zwicknagl_Leopoldine" in content


def test_concurrent_shards_leave_one_whole_report(tmp_path, done):
    """Many writers at once, as shards that end together: the last one has seen all."""
    names = [f"s{k}" for k in range(8)]

    def shard(name):
        own = BatchReport(tmp_path, names, {})
        shutil.copytree(done[0] / "case_2", tmp_path / f".partial-{name}")
        (tmp_path / f".partial-{name}").rename(tmp_path / name)
        own.note(Outcome(name, DONE))
        own.write()

    threads = [threading.Thread(target=shard, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert report(tmp_path) == dict.fromkeys(names, DONE)
    assert len(table(tmp_path)) == 64


def test_a_model_that_gives_no_numbers_stops_the_batch(run, archive, tmp_path, monkeypatch, capsys):
    network = predict_study.predict_volume
    monkeypatch.setattr(
        predict_study,
        "predict_volume",
        lambda predictor, *given, **named: network(
            predictor._replace(predict=lambda batch: predictor.predict(batch)._replace(finite=False)), *given, **named
        ),
    )
    assert predicted(run, archive, tmp_path / "out") == 3
    assert "non_finite guard" in capsys.readouterr().err
    assert set(report(tmp_path / "out").values()) == {REFUSED, predict_report.WAITING}
    assert not list((tmp_path / "out").glob("case_*"))


def test_a_bug_or_a_lack_of_memory_is_one_study_s(run, archive, tmp_path, monkeypatch, capsys):
    def fails(path, *args):
        raise MemoryError("Zwicknagl") if path.name == "case_2.nii.gz" else KeyError("Zwicknagl")

    monkeypatch.setattr(predict_study, "read_intake", fails)
    assert predicted(run, archive, tmp_path / "out") == 2
    assert set(report(tmp_path / "out").values()) == {"failed"}
    assert "Zwicknagl" not in (tmp_path / "out" / "report.json").read_text()
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_study_is_one_line(run, tmp_path, capsys, make):
    make(tmp_path / "in")
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 2
    assert str(tmp_path / "in") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_studies_of_one_name(tmp_path, run, capsys):
    write_nifti(volume(), tmp_path / "in_1.nii")
    (tmp_path / "in").mkdir()
    write_nifti(volume(), tmp_path / "in" / "a.nii.gz")
    write_nifti(volume(), tmp_path / "in" / "A.nii")
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 2
    assert "A.nii" in capsys.readouterr().err


def test_another_patient_in_files_of_the_same_size_is_another_study(run, tmp_path, capsys):
    """Uncompressed, of the same matrix, at the same path."""
    for index in (0, 1):
        write_nifti(volume(index), tmp_path / f"{index}.nii")
    assert (tmp_path / "0.nii").stat().st_size == (tmp_path / "1.nii").stat().st_size
    (tmp_path / "in").mkdir()
    study = shutil.copy(tmp_path / "0.nii", tmp_path / "in" / "case_1.nii")
    (tmp_path / "in" / "case_2.mha").write_bytes(b"x")
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 0
    assert "passed over: 1 .mha file" in capsys.readouterr().err
    before = (tmp_path / "out" / "case_1" / "report.json").read_text()
    shutil.copy(tmp_path / "1.nii", study)
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 2
    assert report(tmp_path / "out") == {"case_1": REFUSED}
    assert (tmp_path / "out" / "case_1" / "report.json").read_text() == before
    assert predicted(run, tmp_path / "in", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out" / "case_1" / "report.json").read_text() != before


@pytest.fixture
def quick(done, monkeypatch):
    """Predictions are copies of a finished one's folder; the list has the studies' names."""
    made = []

    def copied(job, path, output, study, *rest, **named):
        made.append(study)
        shutil.copytree(done[0] / "case_2", output)
        return None, Measurements((), ())

    monkeypatch.setattr(predict_batch, "predict_study", copied)
    return made


def test_what_is_done_when_it_is_interrupted_is_in_the_report(run, archive, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(predict_report, "SHARE", 1e-9)  # only the first study's report is written at once
    real = predict_batch.predict_study

    def interrupted(*given, **named):
        if len(quick) == 3:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(predict_batch, "predict_study", interrupted)
    assert predicted(run, archive, tmp_path / "out") != 0
    assert sorted(report(tmp_path / "out").values()) == [DONE, DONE, DONE, "waiting", "waiting"]
    assert len(table(tmp_path / "out")) == 24


def test_a_study_that_cannot_be_stored_is_done_all_the_same(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    write_nifti(volume(), tmp_path / "in" / "case_1.nii.gz")
    write_study(tmp_path / "in" / "case_2", 0)
    usual = {"dicom": ["dicom_seg"], "nifti": ["nifti"]}
    monkeypatch.setattr(predict_study, "default_exporters", lambda kind, spacing: usual[kind])
    answers = ["https://archive has stored 0 of 1 objects; segmentation.dcm: it is full", None]

    def send(url, paths, progress=None):
        if answer := answers.pop(0):
            raise UserError(answer)

    monkeypatch.setattr("heartseg_jax.export.store.send", send)
    words = ["predict", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", f"--workdir={run}"]
    words += ["--keep_refused", "--store=https://archive"]

    def stored():
        content = json.loads((tmp_path / "out" / "report.json").read_text())
        assert set(report(tmp_path / "out").values()) == {DONE}
        assert len(table(tmp_path / "out")) == 16
        return [study["stored"] for study in content["studies"]]

    assert main.main(words) == 2
    assert "case_2: https://archive has stored 0 of 1" in capsys.readouterr().err
    assert stored() == [
        predict_batch.NO_OBJECTS,
        "not stored: https://archive has stored 0 of 1 objects; segmentation.dcm: it is full",
    ]
    assert main.main(words[:-1]) == 0
    assert stored()[1].startswith("not stored: "), "it is still not"
    assert main.main(words) == 0
    assert stored() == [predict_batch.NO_OBJECTS, "stored"]
    assert main.main(words) == 0
    assert answers == []


def test_to_store_what_is_not_exported_is_a_mistake(run, archive, tmp_path, capsys):
    assert predicted(run, archive, tmp_path / "out", "--store=https://archive") == 2
    assert "--export" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_of_files_that_were_added_are_shown_and_not_kept(run, archive, done, tmp_path, capsys):
    output = shutil.copytree(done[0], tmp_path / "out")
    (output / "case_2" / "Zwicknagl_Leopoldine.seg.nrrd").write_bytes(b"x")
    assert predicted(run, archive, output, "--nopostprocess", "--overwrite") == 2
    assert "Zwicknagl_Leopoldine.seg.nrrd" in capsys.readouterr().err
    kept = [path.read_text() for path in (output / "report.json", *(output / ".predict").glob("*.json"))]
    assert not any("Zwicknagl" in text for text in kept)
    assert "1 file of its outputs" in kept[0]


def test_folders_that_were_made_otherwise_are_marked(run, archive, done, tmp_path, capsys):
    output = shutil.copytree(done[0], tmp_path / "out")
    assert predicted(run, archive, output, "--nopostprocess", "--shard=5/5") in (0, 2)
    content = json.loads((output / "report.json").read_text())
    assert content["made_by_other"] == sum(study["made_by_other"] for study in content["studies"]) >= 2
    assert "made by another model" in capsys.readouterr().err
