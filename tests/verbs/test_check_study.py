"""`check --input` from the command line: verdict first, exit 2 where a study is not fit, and no name anywhere."""

import json

import numpy as np
import pytest

import main
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from tests.dicom_writer import PLANTED, SERIES, write_series


@pytest.fixture(scope="module")
def hu():
    volume = generate(5, 0, PhantomSpec((24, 64, 48), (5.0, 4.0, 5.0))).volume
    return np.maximum(volume.voxels, -1024).astype(np.int16)


@pytest.fixture(scope="module")
def study(hu, tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_series(path / "a", hu, (4.0, 4.0, 4.0))

    def other(dataset, z):
        dataset.SeriesInstanceUID = f"{SERIES}.5"
        dataset.SeriesDescription = "iodine map"

    write_series(path / "b", hu, (4.0, 4.0, 4.0), edit=other, part=2)
    return path


def test_a_fit_study(study, capsys):
    assert main.main(["check", f"--input={study}"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"{study}: fit for training slices and whole-heart volumes"
    assert lines[2] == "* 1: CTA heart: 24 x 64 x 48, 4 x 4 x 4 mm"
    assert lines[3:5] == ["  2: iodine map: 24 x 64 x 48, 4 x 4 x 4 mm", "      refuse not_hu_map"]
    assert not any(secret in shown.out + shown.err for secret in PLANTED.values())


def test_as_json(study, capsys):
    assert main.main(["check", f"--input={study}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]
    assert found["fit_for"] == ["slices", "volumes"]  # slices 4 mm apart are too coarse for the valve
    assert found["chosen"] == SERIES
    assert [candidate["slices"] for candidate in found["candidates"]] == [24, 24]
    assert found["candidates"][0]["spacing_mm"] == [4, 4, 4]
    assert not any(secret in json.dumps(found) for secret in PLANTED.values())


def test_a_verdict_says_for_what(hu, tmp_path, capsys):
    kinds = {"three": hu[:3], "thick": hu, "tiny": hu[:, :16, :16]}
    for name, part in kinds.items():
        write_series(tmp_path / name, part, (8.0 if name == "thick" else 4.0, 4.0, 4.0))
        assert main.main(["check", f"--input={tmp_path / name}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fit_for"] == ["slices"]
        assert main.main(["check", f"--input={tmp_path / name}"]) == 0
        assert ": fit for training slices only" in capsys.readouterr().out.splitlines()[0]


def test_a_study_that_is_not_fit_ends_with_2(study, capsys):
    assert main.main(["check", f"--input={study}", "--series=2"]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == f"{study}: not fit for use"
    assert (
        shown.err.strip()
        .splitlines()[-1]
        .endswith("the series is a map (iodine), not HU; choose the conventional reconstruction")
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "check needs either --config=FILE or --input=STUDY"),
        (["--input=no/such/study"], "there is nothing at no/such/study"),
        (["--input={study}", "--series=9.9"], "names 0 of the series"),
    ],
)
def test_mistakes_are_one_line(study, capsys, words, expected):
    assert main.main(["check", *[word.format(study=study) for word in words]]) == 2
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]
