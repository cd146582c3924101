"""Nothing that names a patient is in anything that is kept: the whole way from DICOM studies to a run, byte by byte."""

import shutil

import numpy as np
import pytest
from PIL import Image

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.privacy import config_folder, read_salt
from tests.dicom_writer import PLANTED
from tests.studies import phantom, write_pictures, write_study
from tests.tiny import OVERRIDES, flags

NAMES = ("Zwicknagl_Leopoldine", "ID7741901", "19310417")
"""Folders called after the patient, as archives export them."""
IDS = {"ID7741900", "ID7741901", "ID7741902"}
"""What the studies have for PatientID."""
SECRETS = IDS | {
    part for name, value in PLANTED.items() if name != "PatientID" for part in value.replace("^", " ").split()
}


def in_bytes(secret):
    """A secret in all the ways that files hold text."""
    return {form.encode(code) for form in (secret, secret.lower(), secret.upper()) for code in ("utf-8", "utf-16-le")}


def told_in(folder):
    """Every (file, secret) below a folder, by name and by content."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        content += str(path.relative_to(folder)).encode()
        found += [(str(path), s) for s in SECRETS if any(form in content for form in in_bytes(s))]
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of all that is kept of three studies, and what was said on the way."""
    place = tmp_path_factory.mktemp("privacy")
    source, kept = place / "source", place / "kept"
    for index, name in enumerate(NAMES):
        slices = write_study(source / "images" / name, index)
        write_pictures(source / "masks" / name, phantom(index)[1], [f"{path.stem}.png" for path in slices])
    (source / "images" / NAMES[0] / "Zwicknagl notes.dcm").write_bytes(b"\0" * 128 + b"DICM damaged")
    kept.mkdir()
    return source, kept


def test_from_studies_to_a_run(kept, capfd):
    source, place = kept
    dataset, run = place / "data", place / "run"
    overrides = flags({**OVERRIDES, "data.path": str(dataset), "train.epochs": "1", "data.size": "64"})
    steps = [
        ["prepare", "--source=dicom", f"--input={source}", f"--output={dataset}", "--keep_table"],
        ["prepare", "--source=dicom", f"--input={source}", f"--export_png={place / 'png'}"],
        ["check", f"--input={dataset}"],
        ["check", f"--input={dataset}", "--json"],
        ["train", "--config=configs/scratch.py", f"--workdir={run}", *overrides],
        ["evaluate", f"--workdir={run}", f"--output={place / 'evaluation'}"],
        ["inspect", f"--workdir={run}"],
    ]
    for words in steps:
        assert main.main(words) == 0, words
    said = capfd.readouterr()
    table = config_folder() / "tables" / "data.csv"
    assert table.is_file()
    (place / "log.txt").write_text(said.out + said.err)
    assert len(list(place.rglob("*"))) > 100
    assert (run / "DONE").is_file()
    assert told_in(place) == []
    salt = read_salt()
    assert not any(
        form in path.read_bytes() for path in place.rglob("*") if path.is_file() for form in (salt, salt.hex().encode())
    )
    content = table.read_text()
    assert all(secret in content for secret in IDS), "which names them all"
    table.unlink()


def test_the_search_would_have_found_them(kept):
    source, _ = kept
    assert {secret for _, secret in told_in(source)} == SECRETS


def test_files_called_after_patients(tmp_path, capfd):
    """Pictures and volumes are called by their files: those that may be a human being's are keyed."""
    for index, name in enumerate(NAMES):
        image = np.clip((phantom(index)[0] + 200) / 4, 0, 255).astype(np.uint8)
        write_pictures(tmp_path / "in" / "masks", phantom(index)[1][10:12], [f"{name}_{z}.png" for z in (1, 2)])
        (tmp_path / "in" / "images").mkdir(exist_ok=True)
        for z in (1, 2):
            Image.fromarray(image[9 + z]).save(tmp_path / "in" / "images" / f"{name}_{z}.png")
    (tmp_path / "in" / "images" / "Zwicknagl.txt").write_text("x")
    words = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out' / 'data'}"]
    assert main.main(["prepare", "--source=png_pairs", *words]) == 0
    said = capfd.readouterr().out
    assert "patients are called by keys" in said
    (tmp_path / "out" / "log.txt").write_text(said)
    assert told_in(tmp_path / "out") == []
    assert len(read_dataset(tmp_path / "out" / "data").patients) == 3
    # Whoever knows better may say so.
    assert main.main(["prepare", "--source=png_pairs", *words, "--names=keep", "--overwrite"]) == 0
    assert {p.id for p in read_dataset(tmp_path / "out" / "data").patients} == {"Zwicknagl", "ID7741901", "19310417"}
    shutil.rmtree(tmp_path / "out")


def test_check_and_refusals_name_no_patient(kept, capfd):
    source, _ = kept
    study = source / "images" / NAMES[1]
    assert main.main(["check", f"--input={study}"]) == 0
    write_study(source / "broken", 0, edit=lambda dataset, z: setattr(dataset, "Modality", "MR"))
    assert main.main(["check", f"--input={source / 'broken'}"]) == 2
    said = capfd.readouterr()
    words = (said.out + said.err).replace(str(study), "")
    assert not any(secret in words for secret in SECRETS)
