"""The networks that a verb is given, as one predictor."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import main
from heartseg_jax.errors import UserError
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.verbs.models import load_model, load_models, run_of
from tests.tiny import flags

ROOT = Path(__file__).resolve().parents[2]
SMALLER = {"model.width": "4", "model.levels": "2", "data.path": "ds", "log.figures": "false", "train.epochs": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An old run, and three of today: another seed than the first, and another window."""
    place = tmp_path_factory.mktemp("runs")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "run_of_bac4a5e.zip") as archive:
        archive.extractall(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, own in (("one", {}), ("seed", {"seed": "7"}), ("window", {"data.window_hu": "-100,300"})):
            words = flags({**SMALLER, **own})
            config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
            assert main.main([config, f"--workdir={name}", *words]) == 0
    return place


def batch(contract, size):
    rng = np.random.default_rng(0)
    planes = len(contract.input.offsets)
    image = rng.integers(-200, 600, (size, contract.input.size, contract.input.size, planes)).astype(np.int16)
    windows = np.tile(np.array([-200, 600], np.float32), (size, len(contract.input.channels), 1))
    return Batch(image, windows, None, None, np.ones(size, np.float32))


def test_runs_are_averaged_and_named_by_their_digests(runs):
    folders = [runs / "one", runs / "seed"]
    (one, contract, config), (other, _, _) = (load_models([folder]) for folder in folders)
    both, _, _ = load_models(folders)
    given = batch(contract, config.data.batch_size)
    mean = (np.asarray(one.predict(given).probabilities) + np.asarray(other.predict(given).probabilities)) / 2
    found = both.predict(given)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-5)
    assert found.shared.shape == (2, 2, 9)
    digests = [digest for model in both.models for digest in (model.checkpoint_sha256, model.config_sha256)]
    assert len(set(digests)) == 4
    assert all(len(digest) == 64 for digest in digests)
    assert [model.run for model in both.models] == list(map(str, folders))


def test_a_digest_is_of_the_content(runs, tmp_path):
    before = load_model(runs / "run").identity
    (tmp_path / "run").mkdir()
    for file in (runs / "run").rglob("*"):
        if file.is_file():
            copy = tmp_path / "run" / file.relative_to(runs / "run")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace("\n", " "))
    moved = load_model(tmp_path / "run").identity
    assert (moved.checkpoint_sha256, moved.config_sha256) == (before.checkpoint_sha256, before.config_sha256)


def test_only_models_that_see_the_same_are_averaged(runs):
    with pytest.raises(UserError, match="contract"):
        load_models([runs / "seed", runs / "window"])
    with pytest.raises(UserError, match="twice"):
        load_models([runs / "seed", runs / "run" / ".." / "seed"])


def test_a_copy_of_a_run_does_not_count_twice(runs, tmp_path):
    shutil.copytree(runs / "seed", tmp_path / "copy")
    with pytest.raises(UserError, match="copy"):
        load_models([runs / "one", runs / "seed", tmp_path / "copy"])


def test_a_config_of_another_network_is_one_line(runs, tmp_path):
    shutil.copytree(runs / "seed", tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    content = json.loads(config.read_text())
    content["model"]["width"] = 7
    config.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(tmp_path / "run")


def test_a_checkpoint_is_found_by_its_folder(runs, tmp_path):
    last = load_model(runs / "seed").network.checkpoint
    assert run_of(last) == ((runs / "seed").resolve(), int(last.name))
    best = next((runs / "seed" / "checkpoints" / "best").iterdir())
    assert run_of(best) == run_of(best.parent) == ((runs / "seed").resolve(), "best")
    assert load_models([], best)[0].models[0].step == int(best.name)
    (tmp_path / "12").mkdir()
    for wrong, named in ((runs / "seed", "--workdir"), (tmp_path / "12", "config.json"), (tmp_path / "none", "none")):
        with pytest.raises(UserError, match=named):
            run_of(wrong)
