"""A run on two datasets with shares, one of HU and one of tissue maps, from the command line's words to the files."""

import json

import jax
import numpy as np
import pytest

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.imaging.tissues import FIRST_POOL, MUSCLE
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_metrics
from tests.end_to_end.interruption import train_until_interrupted
from tests.tiny import OVERRIDES, SIZE, SLICES, flags, tile_labels, write_tiny

NONE = (0, 0, 0, 0, 0, 5, 0, 0, 0)


def write_maps(path):
    """Tissue maps of the tiles: each structure's pool in muscle; only the right ventricle is labelled."""
    with DatasetWriter(
        path, intensity="tissue", height=SIZE, width=SIZE, label_set=HEART, source={"kind": "test"}
    ) as writer:
        for shift, split in enumerate(("train", "validation", "test")):
            labels = tile_labels(shift)
            codes = np.where(labels > 0, FIRST_POOL + labels, MUSCLE).astype(np.uint8)
            names = [f"m{shift}_{z}" for z in range(SLICES)]
            writer.add(
                f"m{shift}", codes, np.where(labels == 5, 5, 0).astype(np.uint8), names=names, split=split, merge=NONE
            )
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return f"{write_tiny(folder / 'tiny').path},{write_maps(folder / 'maps')}"


def words(data, workdir, **overrides):
    own = {
        "data.path": data,
        "data.shares": "1,2",
        "data.normalise": "percentile",
        "log.figures": "false",
        "data.channels": "repeat",
    }
    changed = OVERRIDES | own | {"train.epochs": "1"} | {k.replace("__", "."): v for k, v in overrides.items()}
    return ["--config=configs/quickstart.py", f"--workdir={workdir}", *flags(changed)]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of 6 steps: 24 training slices, of which an epoch shows 8 of tiny and 16 of maps."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main.main(words(data, path)) == 0
    return Workdir(path)


def test_scores_are_by_dataset_too(run):
    summary = json.loads((run.evaluation / "summary.json").read_text())
    assert summary["patient_ids"] == ["tiny/e", "maps/m2"]
    assert {name: row["patients"] for name, row in summary["by_dataset"].items()} == {"tiny": 1, "maps": 1}
    own = summary["by_dataset"]
    assert own["maps"]["mean_dice"] == own["maps"]["structures"]["right_ventricle"]["dice"]
    assert own["tiny"]["structures"]["left_atrium"]["dice"] == summary["structures"]["left_atrium"]["dice"]
    last = read_metrics(run)[-1]
    assert {"val/dice/mean", "val/tiny/dice/mean", "val/maps/dice/mean"} <= set(last)
    assert np.isfinite(last["val/loss"])


def test_the_contract_is_of_any_unit_and_names_both_folders(run, data):
    contract = Checkpoints(run.checkpoints).read(6).contract
    assert contract["input"]["intensity"] == "any"
    assert contract["dataset"] == data


def test_a_run_cut_short_ends_bit_identical_to_one_that_was_not(run, data, tmp_path):
    path = tmp_path / "cut"
    train_until_interrupted(words(data, path), 5)  # after the checkpoint of step 3
    assert main.main(words(data, path)) == 0
    whole, resumed = (
        jax.tree.leaves(Checkpoints(folder.checkpoints).restore_arrays(6)) for folder in (run, Workdir(path))
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_other_shares_do_not_resume_a_run(run, data, capsys):
    assert main.main(words(data, run.path, data__shares="1,1", train__epochs="2")) == 2
    assert "data.shares" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data__shares": "1,2,3"}, "one share each"),
        ({"data__shares": "1,x"}, "data.shares must be numbers"),
        ({"data__channels": "0:-200..600,0:0..100,0"}, "tissue maps"),
        ({"data__test_patients": "e"}, "no patient e"),
    ],
)
def test_what_does_not_fit_is_refused(data, tmp_path, capsys, changes, named):
    assert main.main(words(data, tmp_path / "run", **changes)) == 2
    assert named in capsys.readouterr().err


def test_evaluate_takes_several_datasets_and_knows_whom_it_trained_on(run, data, tmp_path, capsys):
    assert main.main(["evaluate", f"--workdir={run.path}", f"--data={data}", f"--output={tmp_path / 'o'}"]) == 0
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert {name: row["patients"] for name, row in summary["by_dataset"].items()} == {"tiny": 5, "maps": 3}
    assert summary["warnings"][0].startswith("memorisation, not generalisation: 4 of 8 patients were trained on")
    assert not any("was trained on" in text for text in summary["warnings"])  # another unit
    tiny = data.partition(",")[0]
    assert main.main(["evaluate", f"--workdir={run.path}", f"--data={tiny}", "--split=test"]) == 0
    assert "by_dataset" not in json.loads((run.path / "evaluation-tiny-test" / "summary.json").read_text())
