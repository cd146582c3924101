"""`predict` from the command line, one study at a time: every kind of input, what is written, what is refused."""

import json

import numpy as np
import pydicom
import pytest

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.export.registry import default_exporters
from heartseg_jax.imaging.nifti import read_labels, write_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.interop import package
from heartseg_jax.measure.status import RULES
from heartseg_jax.verbs import predict, predict_study
from heartseg_jax.verbs.predict_study import added_or_changed, missing
from tests.dicom_writer import PLANTED, axes, write_series
from tests.studies import SPACING, phantom
from tests.verbs.predicting import unpack_run, volume, write_inputs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return unpack_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def labels(run, inputs, tmp_path_factory):
    """The labels of the patient, from NIfTI."""
    output = tmp_path_factory.mktemp("labels") / "out"
    assert predicted(run, inputs["nifti"], output, "--export=nifti", "--keep_refused") == 0
    return read_labels(output / "labels.nii.gz")


def predicted(run, study, output, *words):
    return main.main(["predict", f"--input={study}", f"--output={output}", f"--workdir={run}", *words])


def content(output, name="measurements.json"):
    return json.loads((output / name).read_text())


def error(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("kind", ["dicom", "zip", "nifti", "nrrd"])
def test_every_kind_gets_the_same_labels_and_all_its_outputs(kind, run, inputs, labels, tmp_path, capsys):
    words = ["--export=nifti"] if kind == "zip" else []
    assert predicted(run, inputs[kind], tmp_path / "out", "--keep_refused", *words) == 0
    found = read_labels(tmp_path / "out" / "labels.nii.gz")
    assert np.array_equal(found.voxels, labels.voxels)
    np.testing.assert_allclose(found.origin_mm, labels.origin_mm, atol=1e-3)
    assert len(np.unique(found.voxels)) > 2
    stated = content(tmp_path / "out")
    assert stated["input"]["kind"] == ("dicom" if kind == "zip" else kind)
    assert set(stated["structures"]) == {structure.name for structure in HEART.foreground}
    for name, row in stated["structures"].items():
        label = next(structure.label for structure in HEART.foreground if structure.name == name)
        assert row["voxels"] == (found.voxels == label).sum()
    report = content(tmp_path / "out", "report.json")
    assert report["status"] == "done"
    assert report["exporters"] == (["nifti"] if words else default_exporters(stated["input"]["kind"], True))
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert {*report["outputs"], "report.json"} == written
    assert ("segmentation.dcm" in report["outputs"]) == (kind == "dicom")
    assert "vena_cava" in capsys.readouterr().out


@pytest.mark.parametrize("negated", [1, 2])
def test_labels_lie_where_the_patient_does_in_every_order_of_slices(negated, run, labels, tmp_path):
    """The same patient, scanned from the other end, or its columns the other way round."""
    direction, origin = axes(), np.array([-60.0, -75.5, -200.0])
    axis = 0 if negated == 1 else 2
    hu = np.flip(phantom(0)[0], axis)
    origin = origin + (hu.shape[axis] - 1) * SPACING[axis] * direction[:, axis]
    direction[:, axis] *= -1
    write_series(tmp_path / "study", hu, SPACING, origin, direction)
    assert predicted(run, tmp_path / "study", tmp_path / "out", "--export=nifti", "--keep_refused") == 0
    found, _ = patient_axial(read_labels(tmp_path / "out" / "labels.nii.gz"))
    assert np.array_equal(found.voxels, patient_axial(labels)[0].voxels)
    np.testing.assert_allclose(found.origin_mm, labels.origin_mm, atol=1e-3)


def test_pictures_by_a_model_that_normalises_each_image(inputs, tmp_path):
    unpack_run(tmp_path, "percentile")
    assert predicted(tmp_path / "run", inputs["pictures"], tmp_path / "out") == 0
    stated = content(tmp_path / "out")
    assert (stated["input"]["kind"], stated["input"]["spacing_mm"]) == ("pictures", None)
    assert all(row["volume_ml"] is None for row in stated["structures"].values())
    assert read_labels(tmp_path / "out" / "labels.nii.gz").voxels.shape == volume().voxels.shape
    report = content(tmp_path / "out", "report.json")
    assert report["exporters"] == default_exporters("pictures", False)
    slices = len(list(inputs["pictures"].iterdir()))
    assert report["masks"] == slices == len(list((tmp_path / "out" / "masks").iterdir()))
    assert "masks/" in report["outputs"]
    assert "slice_0" not in (tmp_path / "out" / "report.json").read_text(), "pictures may be named after the patient"
    next((tmp_path / "out" / "masks").iterdir()).unlink()
    assert missing(report, tmp_path / "out") == 1
    assert added_or_changed(tmp_path / "out", report) == ["masks/"]


def test_what_is_refused_is_not_written_unless_it_is_asked_for(run, tmp_path):
    """A patient without contrast: chambers are not to be distinguished."""
    assert RULES["no_contrast"].withholds
    plain = volume()
    write_nifti(Volume(np.minimum(plain.voxels, 60), SPACING, plain.origin_mm, plain.direction), tmp_path / "ct.nii.gz")
    assert predicted(run, tmp_path / "ct.nii.gz", tmp_path / "a", "--export=nifti") == 0
    assert predicted(run, tmp_path / "ct.nii.gz", tmp_path / "b", "--export=nifti", "--keep_refused") == 0
    withheld, kept = content(tmp_path / "a"), content(tmp_path / "b")
    found = {row["label"] for row in withheld["structures"].values() if row["labels_withheld"] and row["voxels"]}
    assert found
    a, b = (read_labels(tmp_path / name / "labels.nii.gz").voxels for name in "ab")
    assert not np.isin(a, list(found)).any()
    assert set(np.unique(b)) - set(np.unique(a)) == found
    assert not any(row["labels_withheld"] for row in kept["structures"].values())
    assert {row["status"] for row in kept["structures"].values()} == {"refused"}
    assert len(kept["warnings"]) == len(withheld["warnings"]) + 1
    assert "--keep_refused" in kept["warnings"][-1]


def test_the_options_reach_their_stage(run, inputs, tmp_path):
    nifti = inputs["nifti"]
    assert predicted(run, nifti, tmp_path / "a", "--export=nifti", "--tta") == 0
    assert content(tmp_path / "a")["structures"]["left_atrium"]["agreement"] is not None
    assert content(tmp_path / "a", "report.json")["made_by"]["tta"]
    assert predicted(run, nifti, tmp_path / "b", "--export=nifti", "--nopostprocess") == 0
    changed = [row["removed_voxels"] for row in content(tmp_path / "b")["structures"].values()]
    assert not any(changed)
    words = ["--export=dicom_seg", "--labelmap", "--keep_refused"]
    assert predicted(run, inputs["dicom"], tmp_path / "c", *words) == 0
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "measurements.json",
        "report.json",
        "segmentation.dcm",
    ]
    assert pydicom.dcmread(tmp_path / "c" / "segmentation.dcm").SegmentationType == "LABELMAP"


def test_a_checkpoint_by_its_folder(run, inputs, tmp_path):
    words = ["predict", f"--input={inputs['nifti']}", f"--output={tmp_path / 'out'}", "--export=nifti"]
    assert main.main([*words, f"--checkpoint={run / 'checkpoints' / '10'}"]) == 0
    assert content(tmp_path / "out", "report.json")["made_by"]["members"][0]["step"] == 10


def test_a_second_call_does_nothing_and_other_options_need_overwrite(run, inputs, tmp_path, capsys):
    output = tmp_path / "out"
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 0
    before = (output / "report.json").stat().st_ino
    capsys.readouterr()
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 0
    assert "nothing to do" in capsys.readouterr().out
    other = ["--export=nifti", "--nopostprocess"]
    assert predicted(run, inputs["nifti"], output, *other) == 2
    assert "--postprocess" in error(capsys)[0]
    assert (output / "report.json").stat().st_ino == before
    assert predicted(run, inputs["nifti"], output, *other, "--overwrite") == 0
    assert content(output, "report.json")["made_by"]["postprocess"] is None


def test_labels_that_were_corrected_by_hand_are_never_replaced(run, inputs, tmp_path, capsys):
    output, words = tmp_path / "out", ["--export=nifti", "--nopostprocess", "--overwrite"]
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 0
    written = (output / "labels.nii.gz").read_bytes()
    for name, content_now in (("labels.nii.gz", b"corrected"), ("corrected.seg.nrrd", b"x")):
        (output / name).write_bytes(content_now)
        assert predicted(run, inputs["nifti"], output, *words) == 2
        assert name in error(capsys)[0]
        assert (output / name).read_bytes() == content_now
        (output / "labels.nii.gz").write_bytes(written)
    (output / "corrected.seg.nrrd").unlink()
    assert predicted(run, inputs["nifti"], output, *words) == 0


def test_an_output_that_is_missing_is_no_complete_study(run, inputs, tmp_path, capsys):
    output = tmp_path / "out"
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 0
    for name in ("labels.nii.gz", "measurements.json"):
        (output / name).unlink()
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 2
    assert "2 files of the outputs missing" in error(capsys)[0]
    assert predicted(run, inputs["nifti"], output, "--export=nifti", "--overwrite") == 0
    assert (output / "labels.nii.gz").exists()


def test_what_is_corrected_while_it_is_predicted_again_is_not_replaced(run, inputs, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    assert predicted(run, inputs["nifti"], output, "--export=nifti") == 0
    real = predict_study.measure

    def slow(*given):
        (output / "labels.nii.gz").write_bytes(b"corrected")
        return real(*given)

    monkeypatch.setattr(predict_study, "measure", slow)
    assert predicted(run, inputs["nifti"], output, "--export=nifti", "--nopostprocess", "--overwrite") == 2
    assert "labels.nii.gz" in error(capsys)[0]
    assert (output / "labels.nii.gz").read_bytes() == b"corrected"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["own.dcm", "segmentation.dcm"])
def test_only_objects_as_they_were_written_are_sent(run, inputs, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("heartseg_jax.export.store.send", lambda *given: pytest.fail("sent"))
    words = ["--export=dicom_seg", "--keep_refused"]
    assert predicted(run, inputs["dicom"], tmp_path / "out", *words) == 0
    (tmp_path / "out" / name).write_bytes(b"edited")
    assert predicted(run, inputs["dicom"], tmp_path / "out", *words, "--store=http://archive/dicom-web") == 2
    assert name in error(capsys)[0]
    assert not (tmp_path / "out" / "stored.json").exists()


def test_other_files_than_ours_are_never_replaced(run, inputs, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("x")
    assert predicted(run, inputs["nifti"], tmp_path, "--overwrite") == 2
    assert str(tmp_path) in error(capsys)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_exporter_that_fails_leaves_nothing(run, inputs, tmp_path, monkeypatch):
    def fails(prediction, measurements, folder, options):
        (folder / "half.bin").write_bytes(b"x")
        raise OSError(5, "Input/output error", "half.bin")

    monkeypatch.setattr("heartseg_jax.export.nifti.write_labels", fails)
    assert predicted(run, inputs["nifti"], tmp_path / "out") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--export=nifty"], "did you mean nifti"),
        (["--export=dicom_seg"], "--export=dicom_seg"),
        (["--series=1"], "--series"),
        (["--shard=1/2"], "--shard"),
        (["--shard=3/2"], "--shard"),
        (["--checkpoint=somewhere"], "--workdir or --checkpoint"),
        (["--step=3"], "3"),
        (["--names=all"], "--names"),
        (["--names=key"], "--names"),
        (["--keep_table"], "--keep_table"),
        (["--language=fr"], "--language=fr"),
        (["--ouput=x"], "--output"),
        (["--store=ftp://archive"], "--store"),
    ],
)
def test_mistakes_are_one_line(run, inputs, tmp_path, capsys, words, named):
    assert predicted(run, inputs["nifti"], tmp_path / "out", *words) == 2
    assert len(lines := error(capsys)) == 1
    assert named in lines[0]
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(run, inputs, tmp_path, capsys, monkeypatch):
    output, study = f"--output={tmp_path / 'out'}", f"--input={inputs['nifti']}"
    assert main.main(["predict", output, f"--workdir={run}"]) == 2
    assert "--input" in error(capsys)[0]
    assert main.main(["predict", study, f"--workdir={run}"]) == 2
    assert "--output" in error(capsys)[0]
    monkeypatch.setitem(package.SHIPPED, "heart_v1", tmp_path / "heart_v1")
    assert predict.shipped_model() is None
    assert main.main(["predict", study, output]) == 2
    assert "configs/quickstart.py" in error(capsys)[0]
    assert main.main(["predict", study, output, f"--workdir={tmp_path / 'none'}"]) == 2
    assert str(tmp_path / "none") in error(capsys)[0]


def test_no_output_within_the_input(run, inputs, capsys):
    assert predicted(run, inputs["dicom"], inputs["dicom"] / "out") == 2
    assert "--output" in error(capsys)[0]
    assert not (inputs["dicom"] / "out").exists()


def test_a_study_whose_slices_have_no_uid_gets_all_but_dicom(run, tmp_path):
    write_series(tmp_path / "in", phantom(0)[0], SPACING, edit=lambda d, z: setattr(d, "SOPInstanceUID", "1.2.3"))
    assert predicted(run, tmp_path / "in", tmp_path / "out") == 0
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert any("same_instance" in text for text in content(tmp_path / "out")["warnings"])


def test_dicom_objects_are_sent_once(run, inputs, tmp_path, monkeypatch, capsys):
    sent = []

    def send(url, paths, progress=None):
        sent.append((url, [path.name for path in paths]))

    monkeypatch.setattr("heartseg_jax.export.store.send", send)
    words = ["--store=http://archive:8042/dicom-web", "--export=dicom_seg,dicom_sr", "--keep_refused"]
    for _ in range(2):
        assert predicted(run, inputs["dicom"], tmp_path / "out", *words) == 0
    assert sent == [("http://archive:8042/dicom-web", ["segmentation.dcm", "report.dcm"])]
    assert content(tmp_path / "out", "stored.json") == {"archive": sent[0][0], "objects": 2}
    words[0] = "--store=https://elsewhere/dicom-web"
    assert predicted(run, inputs["dicom"], tmp_path / "out", *words) == 0
    assert [url for url, _ in sent[1:]] == ["https://elsewhere/dicom-web"]
    assert predicted(run, inputs["nifti"], tmp_path / "other", words[0]) == 2
    assert "--store" in error(capsys)[0]


def test_no_name_of_the_patient_but_in_dicom_objects(run, inputs, tmp_path, capfd):
    named = inputs["dicom"].rename(inputs["dicom"].with_name("Zwicknagl_Leopoldine"))
    try:
        assert predicted(run, named, tmp_path / "out") == 0
    finally:
        named.rename(inputs["dicom"])
    said = capfd.readouterr()
    secrets = {part for value in PLANTED.values() for part in value.replace("^", " ").split()}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            found = path.read_bytes().lower()
            assert not [secret for secret in secrets if secret.lower().encode() in found], path
    assert not [secret for secret in secrets if secret in (said.out + said.err).replace(str(named), "")]
