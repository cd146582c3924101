"""`check --input=DATASET` from the command line: the verdict first, exit 2 where it is not fit, and a picture."""

import json

import numpy as np
import pytest
from PIL import Image

import main
from tests.data.audit.test_audit import SPLITS, SPOILT, write
from tests.tiny import write_tiny


@pytest.fixture(scope="module")
def patients():
    from heartseg_jax.imaging.phantom.generator import generate
    from tests.data.audit.test_audit import SPEC

    return {name: generate(11, k, SPEC) for k, name in enumerate(SPLITS)}


def test_a_fit_dataset(tmp_path, patients, capsys):
    write(tmp_path / "d", patients)
    assert main.main(["check", f"--input={tmp_path / 'd'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'd'}: fit for use")
    head = next(line for line in lines if line.startswith("patient"))
    assert head.split()[1:4] == ["split", "slices", "empty"]
    assert next(line for line in lines if line.startswith("d ")).split()[:3] == ["d", "validation", "12"]
    assert any(line.startswith("left_ventricle") for line in lines)
    picture = np.asarray(Image.open(tmp_path / "d" / "audit.png").convert("RGB"))
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    # A dataset with its picture is still a dataset.
    assert main.main(["check", f"--input={tmp_path / 'd'}", f"--output={tmp_path / 'other.png'}"]) == 0
    assert (tmp_path / "other.png").is_file()


def test_as_json(tmp_path, patients, capsys):
    write(tmp_path / "d", patients)
    assert main.main(["check", f"--input={tmp_path / 'd'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]
    assert [row["id"] for row in found["patients"]] == list(SPLITS)
    expected = sum(int((patients[name].labels == 3).sum()) for name in "abc")
    assert found["counts"]["train"]["left_ventricle"]["pixels"] == expected
    assert set(found) == {
        *("fit", "verdict", "findings", "patients", "near_duplicates", "islands", "counts", "montage"),
    }


def test_a_dataset_that_is_not_fit_ends_with_2(tmp_path, patients, capsys):
    write(tmp_path / "d", patients, {"d": SPOILT["8 bits"][0]})
    assert main.main(["check", f"--input={tmp_path / 'd'}"]) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == f"{tmp_path / 'd'}: not fit for use"
    assert "d: 99 % of the values lie" in shown.err.strip().splitlines()[-1]


def test_many_patients_are_spread_over_the_picture(tmp_path, capsys):
    write_tiny(tmp_path / "d", splits={f"p{k}": "train" if k else "test" for k in range(30)})
    main.main(["check", f"--input={tmp_path / 'd'}"])
    assert (tmp_path / "d" / "audit.png").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--input={d}", "--series=1"], "--series"),
        (["--input={d}/..", "--output=x.png"], "--output"),
        (["--input={d}", "--output=x.pdf"], "must end in .png"),
        (["--input={d}", "--output=reports"], "must end in .png"),
    ],
)
def test_flags_of_another_kind_of_input(tmp_path, capsys, words, expected):
    write_tiny(tmp_path / "d")
    assert main.main(["check", *[word.replace("{d}", str(tmp_path / "d")) for word in words]]) == 2
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_picture_that_cannot_be_written_does_not_cost_the_verdict(tmp_path, capsys):
    write_tiny(tmp_path / "d")
    (tmp_path / "file").write_text("x")
    assert main.main(["check", f"--input={tmp_path / 'd'}", f"--output={tmp_path / 'file' / 'x.png'}"]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{tmp_path / 'd'}: ")
    assert len(shown.err.strip().splitlines()) == 1
