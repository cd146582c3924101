"""A package is accepted wherever a run is: predicted with, scored, inspected, learned from, converted to Keras."""

import json
import shutil
import zipfile

import jax
import nibabel
import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.interop import package
from heartseg_jax.training.networks import read_contract, read_network, records_of
from heartseg_jax.verbs.models import load_models
from heartseg_jax.workdir import Workdir, read_config
from tests.dicom_writer import axes
from tests.tiny import flags
from tests.verbs.predicting import ORIGIN, volume
from tests.verbs.test_models import ROOT, SMALLER, batch

CONFIG = f"--config={ROOT / 'configs' / 'quickstart.py'}"


def train(name, **own):
    return main.main([CONFIG, f"--workdir={name}", *flags({**SMALLER, **own})])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs `one` and `two` on the dataset `ds`, and packages of one and of both."""
    place = tmp_path_factory.mktemp("packages")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "run_of_bac4a5e.zip") as archive:
        archive.extractall(place)
    (place / "licences.json").write_text('{"ds": "CC0, tiles"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train("one") == train("two", seed="7") == 0
        words = ["convert", "--to=package", "--licences=licences.json"]
        assert main.main([*words, "--input=one", "--output=single", "--dtype=float16", "--version=2"]) == 0
        assert main.main([*words, "--input=one,two", "--output=both"]) == 0
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def refused(capsys, words, *named):
    capsys.readouterr()
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(name in said for name in named), said


def test_it_says_where_it_came_from(place):
    head = json.loads((place / "single" / "model.json").read_text())
    run = json.loads((place / "one" / "run.json").read_text())
    (source,) = head["sources"]
    assert (head["name"], head["version"], head["weights"]["dtype"]) == ("single", "2", "float16")
    assert (source["commit"], source["versions"], source["seed"]) == (run["commit"], run["versions"], 0)
    (learned,) = head["contract"]["learned_from"]
    trained = [patient.sha256["images"] for patient in read_dataset(place / "ds").patients_in("train")]
    assert learned["images_sha256"] == sorted(trained)
    assert (learned["name"], learned["images"], learned["licence"]) == ("ds", "real", "CC0, tiles")
    assert set(head["taught"]) == set(learned["structures"])
    assert all(kinds == ["real"] for kinds in head["taught"].values())
    assert [one["seed"] for one in json.loads((place / "both" / "model.json").read_text())["sources"]] == [0, 7]


def test_it_names_no_place_and_no_patient(place):
    """The run is given paths and patients' names in its flags; the package has neither."""
    words = {"data.path": str(place / "ds"), "data.test_patients": "b", "train.steps": "1"}
    assert train("secret", **words) == 0
    assert main.main(["convert", "--to=package", "--input=secret", "--output=open"]) == 0
    text = (place / "open" / "model.json").read_text()
    assert str(place) not in text
    assert "data.test_patients=..." in text
    assert json.loads(text)["config"]["data"]["path"] == "ds"


def test_it_predicts_what_the_runs_do(place):
    runs, contract, config = load_models([place / "one", place / "two"])
    given = batch(contract, config.data.batch_size)
    both, packed, _ = load_models([place / "both"])
    np.testing.assert_array_equal(runs.predict(given).probabilities, both.predict(given).probabilities)
    assert packed.input == contract.input
    assert [model.checkpoint_sha256 for model in both.models] == [model.checkpoint_sha256 for model in runs.models]
    assert {model.package for model in both.models} == {"both"}
    assert all("package_sha256" in model.digests for model in both.models)
    with pytest.raises(UserError, match="same checkpoint"):
        load_models([place / "one", place / "single"])


def test_a_package_that_would_predict_something_else_is_not_written(place, monkeypatch, capsys):
    whole = package.read_package

    def shifted(folder):
        found = whole(folder)
        params, stats = found.members[0]
        return found._replace(members=((jax.tree.map(lambda leaf: 1.5 * leaf, params), stats),))

    monkeypatch.setattr(package, "read_package", shifted)
    words = ["convert", "--to=package", "--input=one", "--output=wrong"]
    refused(capsys, words, "probability")
    # Of a package whose kernels keep few bits single probabilities may be others, but few labels.
    refused(capsys, [*words, "--dtype=float16", "--mantissa_bits=9"], "label", "--mantissa_bits")
    assert not (place / "wrong").exists()


def test_it_is_scored(place, capsys):
    assert main.main(["evaluate", "--workdir=single", "--data=ds", "--output=scored"]) == 0
    summary = json.loads((place / "scored" / "summary.json").read_text())
    assert main.main(["evaluate", "--workdir=one", "--split=all", "--output=scored_run"]) == 0
    of_run = json.loads((place / "scored_run" / "summary.json").read_text())
    assert summary["mean_dice"] == pytest.approx(of_run["mean_dice"], abs=0.01)
    memorised = [text for text in summary["warnings"] if text.startswith("memorisation")]
    assert len(memorised) == 1
    assert "of 5 patients" in memorised[0]
    refused(capsys, ["evaluate", "--workdir=single", "--output=x"], "--data")
    refused(capsys, ["evaluate", "--workdir=single", "--data=ds"], "--output")
    refused(capsys, ["evaluate", "--workdir=single", "--data=ds", "--output=x", "--step=1"], "--step")
    assert sorted(file.name for file in (place / "single").iterdir()) == ["model.json", "weights.npz"]


def test_it_is_inspected(place, capsys):
    assert main.main(["inspect", "--workdir=both", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main.main(["inspect", "--workdir=one", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == 2 * run["parameters"]["total"]
    assert main.main(["inspect", "--workdir=one", "--against=single", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert all(path.endswith("kernel") for path in compared["changed"])
    assert compared["unchanged"]
    assert not compared["only_here"] + compared["only_there"]


@pytest.mark.parametrize("load", ["encoder", "all"])
def test_a_run_begins_from_it(place, load):
    name = f"from_{load}"
    config = {"pretrained.path": "both", "pretrained.load": load, "train.steps": "1", "transfer.schedule": "frozen"}
    assert train(name, **config) == 0
    record = json.loads((place / name / "transfer.json").read_text())["pretrained"]
    assert (record["kind"], record["package"], record["member"]) == ("package", "both", "the first of 2")
    begun, source = (read_network(place / path).members[0][0] for path in (name, "both"))
    kernel = begun["encoder"]["stage1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, source["encoder"]["stage1"]["conv1"]["kernel"])
    own, before = read_contract(place / name).learned_from
    assert (own.inherited, before.inherited, before.images_sha256) == (False, True, own.images_sha256)
    assert bool(before.structures) == (load == "all")


def test_what_the_initial_weights_have_seen_is_memorised(place):
    """`c` tests here, and trained the package."""
    words = {"pretrained.path": "single", "data.test_patients": "c", "data.validation_patients": "d"}
    assert train("leaking", **words, **{"train.steps": "1"}) == 0
    summary = json.loads((place / "leaking" / "evaluation" / "summary.json").read_text())
    assert "1 of 1 patients were trained on (c)" in summary["warnings"][0]
    assert main.main(["evaluate", "--workdir=leaking"]) == 0
    again = json.loads((place / "leaking" / "evaluation" / "summary.json").read_text())
    assert again["warnings"][0] == summary["warnings"][0]


def test_it_becomes_a_keras_file(place, capsys):
    assert main.main(["convert", "--to=keras", "--workdir=single", "--output=single.keras"]) == 0
    assert (place / "single.keras").is_file()
    refused(capsys, ["convert", "--to=keras", "--workdir=both", "--output=both.keras"], "2 networks")


def predicted(place, output, *words):
    assert main.main(["predict", f"--output={output}", "--export=nifti", "--keep_refused", *words]) == 0
    return json.loads((place / output / "measurements.json").read_text())


def test_predict_needs_no_run_where_a_model_is_shipped(place, monkeypatch, capsys):
    """The one that comes with the project is used, by default and by its name; outputs say which it was."""
    monkeypatch.setitem(package.SHIPPED, "heart_v1", place / "both")
    write_nifti(volume(), place / "ct.nii.gz")
    found = predicted(place, "out", "--input=ct.nii.gz")
    head = json.loads((place / "both" / "model.json").read_text())
    said = capsys.readouterr().err
    assert f"both, version 1, sha256 {head['content_sha256'][:16]}" in said
    assert "ds (3 patients, real images)" in said
    assert [one["package_sha256"] for one in found["model"]["members"]] == 2 * [head["content_sha256"]]
    assert found["model"]["learned_from"][0]["licence"] == "CC0, tiles"
    assert set(map(tuple, found["model"]["taught"].values())) == {("real",)}
    assert any(row["agreement"] is not None for row in found["structures"].values())  # of its two members
    comment = nibabel.load(place / "out" / "labels.nii.gz").header.extensions[0].get_content().decode()
    assert "trained on ds (3 patients, real images)" in comment
    assert f"both version 1 sha256:{head['content_sha256'][:16]}" in comment
    capsys.readouterr()
    assert main.main(["predict", "--input=ct.nii.gz", "--output=out", "--export=nifti", "--keep_refused"]) == 0
    assert predicted(place, "named", "--input=ct.nii.gz", "--workdir=heart_v1")["model"] == found["model"]


def test_a_volume_that_it_was_trained_on_is_named(place):
    dataset = read_dataset(place / "ds")
    for patient, known in ((dataset.patients_in("train")[0], True), (dataset.patients_in("test")[0], False)):
        write_nifti(Volume(np.array(dataset.images(patient)), (3.0, 2.0, 2.0), ORIGIN, axes()), place / "t.nii.gz")
        found = predicted(place, f"of_{patient.id}", "--input=t.nii.gz", "--workdir=single")
        assert any(text.startswith("memorised:") for text in found["warnings"]) == known


def test_a_run_of_an_earlier_version_is_packed_while_its_dataset_is_there(place, capsys):
    contract, config = read_contract(place / "run"), read_config(Workdir(place / "run"))
    assert not contract.learned_from
    assert records_of(contract, config) == ()  # it was trained in another folder
    refused(capsys, ["convert", "--to=package", "--input=run", "--output=old"], "trained on", "again")


def test_mistakes_are_one_line(place, capsys, monkeypatch):
    to = ["convert", "--to=package"]
    refused(capsys, [*to, "--input=one", "--output=Miller 1961"], "name")
    refused(capsys, [*to, "--input=single", "--output=twice"], "package already")
    refused(capsys, [*to, "--input=one", "--output=single"], "--overwrite")
    refused(capsys, [*to, "--input=one", "--output=ds", "--overwrite"], "other files")
    refused(capsys, [*to, "--workdir=one", "--output=x"], "--workdir", "--to=keras")
    refused(capsys, ["convert", "--input=x.h5", "--output=x", "--dtype=float16"], "--dtype", "--to=package")
    refused(capsys, [*to, "--input=one", "--output=x", "--mantissa_bits=3"], "--mantissa_bits", "--dtype=float16")
    (place / "wrong.json").write_text('{"dss": "CC0"}')
    refused(capsys, [*to, "--input=one", "--output=x", "--licences=wrong.json"], "dss", "ds")
    shutil.copytree(place / "single", place / "cut")
    (place / "cut" / "weights.npz").write_bytes(b"")
    for words in (["inspect", "--workdir=cut"], ["evaluate", "--workdir=cut", "--data=ds", "--output=x"]):
        refused(capsys, words, "weights.npz", "copy the package again")
    monkeypatch.setitem(package.SHIPPED, "heart_v1", place / "none")
    refused(capsys, ["inspect", "--workdir=heart_v1"], "heart_v1")
