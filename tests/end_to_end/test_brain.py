"""The road from the brain to the heart without given weights: a zip of masks, a run on it, its encoder carried over."""

import csv
import io
import json
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import main
from heartseg_jax.config import load
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_metrics
from tests.tiny import flags, write_tiny

SIZE = 32
NETWORK = {
    "data.size": str(SIZE),
    "data.mm_per_pixel": "0",
    "data.batch_size": "4",
    "data.augment": "none",
    "model.width": "4",
    "model.levels": "3",
}
SHORT = {"train.steps": "12", "train.learning_rate": "1e-2", "checkpoint.every_steps": "6", "log.every_steps": "6"}


def encoded(array):
    target = io.BytesIO()
    Image.fromarray(array).save(target, "PNG")
    return target.getvalue()


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """A dataset made by the command line from a zip of 24 slices, each a bright square on noise."""
    folder = tmp_path_factory.mktemp("brain")
    with zipfile.ZipFile(folder / "brain.zip", "w") as archive:
        for number in range(1, 25):
            rng = np.random.default_rng(number)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            y, x = rng.integers(4, 18, 2)
            mask[y : y + 8, x : x + 8] = 255
            image = rng.integers(20, 60, mask.shape) + (mask > 0) * 150
            archive.writestr(f"images/{number:04d}.png", encoded(image.astype(np.uint8)))
            archive.writestr(f"masks/{number:04d}.png", encoded(mask))
    words = ["prepare", "--source=image_mask_zip", f"--input={folder / 'brain.zip'}", f"--output={folder / 'data'}"]
    assert main.main([*words, "--block=3"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def run(brain, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "brain"
    words = ["--config=configs/brain.py:small", f"--workdir={path}"]
    overrides = NETWORK | SHORT | {"data.path": str(brain), "guards.collapse": "warn"}
    assert main.main([*words, *flags(overrides)]) == 0
    return Workdir(path)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("hearts") / "tiny").path


def encoder(folder):
    store = Checkpoints(folder.checkpoints)
    arrays = store.restore_arrays(store.choose())
    store.close()
    return {kind: arrays[kind]["encoder"] for kind in ("params", "batch_stats")}


def test_everything_a_user_reads_calls_the_structure_by_its_name(run):
    summary = json.loads((run.evaluation / "summary.json").read_text())
    assert summary["task"] == "tumour"
    assert list(summary["structures"]) == ["tumour"]
    assert summary["structures_scored"] == 1
    assert summary["baselines"]["all_background"]["mean_dice"] == 0
    assert any("replace patients" in warning for warning in summary["warnings"])
    rows = list(csv.DictReader((run.evaluation / "cases.csv").open()))
    assert [(row["patient"], row["structure"]) for row in rows] == [("slices_0022-0024", "tumour")]
    dice = {key for row in read_metrics(run) for key in row if "/dice/" in key}
    assert dice == {"val/dice/tumour", "val/dice/mean"}
    for path in (run.evaluation / "summary.json", run.metrics, run.evaluation / "cases.csv"):
        assert "aorta" not in path.read_text()


def test_its_score_is_printed_by_name(run, capsys, tmp_path):
    assert main.main(["evaluate", f"--workdir={run.path}", "--split=validation", f"--output={tmp_path}"]) == 0
    page = capsys.readouterr().out
    assert "TU  tumour" in page
    assert "aorta" not in page


def test_the_heart_starts_from_the_encoder_of_that_run(run, hearts, tmp_path):
    words = ["--config=configs/transfer.py", f"--workdir={tmp_path / 'heart'}"]
    wanted = {
        "data.path": str(hearts),
        "pretrained.path": str(run.path),
        "transfer.schedule": "frozen",
        "transfer.control": "false",
        "guards.collapse": "warn",
    }
    assert main.main([*words, *flags(NETWORK | SHORT | wanted)]) == 0
    folder = Workdir(tmp_path / "heart")
    # A frozen encoder is, bit for bit, the one that the brain's run ended with.
    same = jax.tree.map(np.array_equal, encoder(folder), encoder(run))
    assert len(jax.tree.leaves(same)) == 3 * 2 * (4 + 2)
    assert all(jax.tree.leaves(same))
    source = json.loads(folder.transfer.read_text())["pretrained"]
    assert (source["kind"], source["step"], source["loaded"]) == ("run", 12, ["encoder"])
    summary = json.loads((folder.evaluation / "summary.json").read_text())
    assert summary["task"] == "heart"
    assert len(summary["structures"]) == 8


def refused(words, capsys):
    assert main.main(words) == 2
    err = capsys.readouterr().err.strip().splitlines()
    return next(line for line in err if line.startswith("error: "))


def test_data_of_another_task_are_refused(run, brain, hearts, tmp_path, capsys):
    train = ["--config=configs/brain.py:small", f"--workdir={tmp_path / 'run'}"]
    line = refused(train, capsys)
    assert "data.task is 'tumour'" in line
    assert "prepare --source=image_mask_zip" in line
    line = refused([*train, f"--config.data.path={hearts}"], capsys)
    assert "is of the task 'heart', the config of 'tumour'; give --config.data.task=heart" in line
    line = refused(
        ["--config=configs/scratch.py", f"--workdir={tmp_path / 'run'}", f"--config.data.path={brain}"], capsys
    )
    assert "is of the task 'tumour', the config of 'heart'; give --config.data.task=tumour" in line
    line = refused(["evaluate", f"--workdir={run.path}", f"--data={hearts}"], capsys)
    assert "was trained on the task 'tumour'" in line
    assert f"{hearts} is of the task 'heart'" in line
    line = refused([*train, "--config.data.task=brain"], capsys)
    assert "data.task must be one of heart, tumour" in line


def test_the_whole_network_of_another_task_is_refused(run, hearts, tmp_path, capsys):
    words = ["--config=configs/transfer.py", f"--workdir={tmp_path / 'heart'}"]
    wanted = {"data.path": str(hearts), "pretrained.path": str(run.path), "pretrained.load": "all"}
    line = refused([*words, *flags(NETWORK | SHORT | wanted)], capsys)
    assert "'tumour'" in line
    assert "'heart'" in line
    assert "--config.pretrained.load=encoder" in line
    assert "--config.pretrained.load=encoder" in line


def test_a_dataset_says_its_task_and_one_without_is_of_the_heart(brain, hearts, tmp_path):
    index = hearts / "dataset.json"
    record = json.loads(index.read_text())
    assert record["task"] == "heart"
    assert read_dataset(brain).label_set.name == "tumour"
    moved = write_tiny(tmp_path / "old").path
    record = json.loads((moved / "dataset.json").read_text())
    del record["task"]
    (moved / "dataset.json").write_text(json.dumps(record))
    assert read_dataset(moved).label_set.name == "heart"
    (moved / "dataset.json").write_text(json.dumps({**record, "task": "liver"}))
    with pytest.raises(main.UserError, match="its task 'liver' is none of heart, tumour"):
        read_dataset(moved)


def test_the_networks_fit_those_of_the_transfer():
    for brain, heart in (
        ("configs/brain.py:small", "configs/transfer.py"),
        ("configs/brain.py", "configs/transfer.py:full"),
    ):
        ours, theirs = load.load(brain)[1], load.load(heart)[1]
        assert (ours.model.width, ours.model.levels, ours.model.norm) == (
            theirs.model.width,
            theirs.model.levels,
            theirs.model.norm,
        )
    with pytest.raises(main.UserError, match="no variant 'large'; there are small"):
        load.load("configs/brain.py:large")
