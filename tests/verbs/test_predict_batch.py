"""`predict` over a folder of studies: which there are, one folder each, reports and table, shards."""

import csv
import json
import shutil
import threading

import numpy as np
import pytest

import main
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.measure.json_form import COLUMNS
from heartseg_jax.privacy import config_folder
from heartseg_jax.verbs import predict, predict_batch, predict_study
from heartseg_jax.verbs.predict_places import fingerprint, places_of, shard_of, without_names
from heartseg_jax.verbs.predict_report import DONE, REFUSED, BatchReport, Outcome
from tests.dicom_writer import PLANTED
from tests.studies import write_study
from tests.verbs.predicting import unpack_run, volume, write_inputs

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


def test_a_bug_or_a_lack_of_memory_is_one_study_s(run, archive, tmp_path, monkeypatch, capsys):
    def fails(path, *args):
        raise MemoryError("Zwicknagl") if path.name == "case_2.nii.gz" else KeyError("Zwicknagl")

    monkeypatch.setattr(predict_study, "read_intake", fails)
    assert predicted(run, archive, tmp_path / "out") == 2
    assert set(report(tmp_path / "out").values()) == {"failed"}
    assert "Zwicknagl" not in (tmp_path / "out" / "report.json").read_text()
    assert "Traceback" in capsys.readouterr().err


def called(path, how="auto"):
    found = places_of(path, Naming(how))
    return {place.name: place.path.relative_to(path).as_posix() for place in found.studies}, found.is_batch


def test_what_is_one_study_and_what_are_several(tmp_path):
    """A folder of slices, of series, and of patients with several studies."""
    one, other = tmp_path / "a" / "patient_1", tmp_path / "a" / "patient_2"
    write_study(one / "study_1" / "series_1", 0)
    assert called(one) == ({"": "."}, False)
    write_study(one / "study_1" / "series_2", 0)
    assert called(one / "study_1" / "series_1") == ({"": "."}, False)
    assert called(one) == ({"": "."}, False), "one study in a folder per series"
    write_study(one / "study_2", 0, number=2)
    write_study(other, 1)
    names = {
        "patient_1_study_1": "patient_1/study_1",
        "patient_1_study_2": "patient_1/study_2",
        "patient_2": "patient_2",
    }
    assert called(tmp_path / "a") == (names, True)
    write_study(tmp_path / "loose", 0)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "loose", target_is_directory=True)
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(called(tmp_path / "a")[0]) == 4


def test_a_disc_may_hold_several_studies(tmp_path):
    write_study(tmp_path / "disc" / "IMAGES" / "A", 0)
    (tmp_path / "disc" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    write_inputs(tmp_path / "made")
    (tmp_path / "made" / "png").rename(tmp_path / "disc" / "VIEWER")
    assert called(tmp_path / "disc") == ({"": "."}, False)
    write_study(tmp_path / "disc" / "IMAGES" / "B", 1)
    found, is_batch = called(tmp_path / "disc", "keep")
    assert is_batch
    assert set(found.values()) == {"IMAGES/A", "IMAGES/B"}


def test_every_format_is_a_study(tmp_path):
    write_inputs(tmp_path / "in")
    (tmp_path / "in" / "ct.nrrd").rename(tmp_path / "in" / "ct_2.nrrd")
    (tmp_path / "in" / ".hidden").mkdir()
    (tmp_path / "in" / "notes.csv").write_text("x")
    found, is_batch = called(tmp_path / "in", "keep")
    assert is_batch
    assert found == {"ct": "ct.nii.gz", "ct_2": "ct_2.nrrd", "dicom": "dicom", "packed": "packed.zip", "png": "png"}


def test_names_are_kept_where_they_are_codes(tmp_path):
    for name in ("case_1", "Meier_Anna", "1931-04-17"):
        write_nifti(volume(), tmp_path / f"{name}.nii.gz")
    found, _ = called(tmp_path)
    assert found["case_1"] == "case_1.nii.gz"
    assert sum(name.startswith("p") and len(name) == 13 for name in found) == 2
    assert found == called(tmp_path)[0]
    assert set(called(tmp_path, "keep")[0]) == {"case_1", "Meier_Anna", "1931-04-17"}
    assert "case_1" not in called(tmp_path, "key")[0]


def test_a_shard_is_every_nth():
    places = list(range(7))
    parts = [shard_of(places, (k, 3)) for k in (1, 2, 3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


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


def test_another_patient_in_files_of_the_same_size_is_another_study(run, tmp_path):
    """Uncompressed, of the same matrix, at the same path."""
    for index in (0, 1):
        write_nifti(volume(index), tmp_path / f"{index}.nii")
    assert (tmp_path / "0.nii").stat().st_size == (tmp_path / "1.nii").stat().st_size
    (tmp_path / "in").mkdir()
    study = shutil.copy(tmp_path / "0.nii", tmp_path / "in" / "case_1.nii")
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 0
    before = (tmp_path / "out" / "case_1" / "report.json").read_text()
    shutil.copy(tmp_path / "1.nii", study)
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 2
    assert report(tmp_path / "out") == {"case_1": REFUSED}
    assert (tmp_path / "out" / "case_1" / "report.json").read_text() == before
    assert predicted(run, tmp_path / "in", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out" / "case_1" / "report.json").read_text() != before


def test_the_fingerprint_is_of_content_and_not_of_names(tmp_path):
    for name in "ab":
        write_study(tmp_path / name, 0)
    first = next((tmp_path / "b").iterdir())
    first.rename(first.with_name("other.dcm"))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    write_study(tmp_path / "c", 0, person="XX7741900")  # as long as the other
    assert fingerprint(tmp_path / "c") != fingerprint(tmp_path / "a")


def test_the_fingerprint_of_a_large_volume_is_not_only_of_its_air(tmp_path):
    """32 slices of 512 KB: a header, and a patient only in the middle rows of each, as both ends are air."""
    slices = np.zeros((32, 512, 512), np.int16)
    found = set()
    for value in (0, 1):
        slices[:, 192:320] = value
        (tmp_path / "ct.nii").write_bytes(bytes(352) + slices.tobytes())
        found.add(fingerprint(tmp_path / "ct.nii"))
    assert len(found) == 2


def test_messages_that_are_kept_name_no_file(tmp_path):
    study = tmp_path / "Meier_Anna"
    (study / "deep").mkdir(parents=True)
    (study / "deep" / "ANNA_MEIER.19310417.IMA").write_text("x")
    (place,) = places_of(write_study(tmp_path / "x", 0)[0].parent, Naming()).studies
    place = place._replace(path=study)
    text = f"{study}: 1 damaged file, such as deep/ANNA_MEIER.19310417.IMA: it is not DICOM; send Meier_Anna again"
    kept = without_names(text, place)
    assert kept == "the study: 1 damaged file, such as (a file)/(a file): it is not DICOM; send (a file) again"
