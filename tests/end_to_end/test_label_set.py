"""A label set that is neither the heart's nor the tumour's goes through training, evaluation and `check` unchanged."""

import json

import numpy as np
import pytest

import main
from heartseg_jax import anatomy
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.training.checkpoints import Checkpoints
from tests.figures.test_label_sets import LIVER
from tests.tiny import OVERRIDES, SIZE, SLICES, SPLITS, flags

NAMES = ["liver", "gallbladder", "spleen"]


@pytest.mark.slow
def test_three_structures_in_four_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(anatomy.LABEL_SETS, "liver", LIVER)
    data = tmp_path / "livers"
    with DatasetWriter(data, intensity="HU", height=SIZE, width=SIZE, label_set=LIVER, source={"kind": "t"}) as writer:
        for number, (name, split) in enumerate(SPLITS.items()):
            labels = np.zeros((SLICES, SIZE, SIZE), np.uint8)
            for label in (1, 2, 3):
                labels[:, 8 * label : 8 * label + 6, 4 + number : 20] = label
            noise = np.random.default_rng(number).normal(0, 9, labels.shape)
            images = (np.where(labels > 0, 100 * labels.astype(int), -900) + noise).astype(np.int16)
            names = [f"{name}_{z}" for z in range(SLICES)]
            writer.add(name, images, labels, names=names, split=split, spacing_mm=(3.0, 2.0, 2.0), contiguous=True)
    run = tmp_path / "run"
    asked = {"data.path": str(data), "data.task": "liver", "train.epochs": "4", "guards.collapse": "off"}
    assert main.main(["--config=configs/quickstart.py", f"--workdir={run}", *flags(OVERRIDES | asked)]) == 0
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert (summary["task"], summary["scored"], list(summary["structures"])) == ("liver", "last", NAMES)
    store = Checkpoints(run / "checkpoints")
    head = store.restore_arrays(store.choose())["params"]["head"]
    store.close()
    assert head["bias"].shape == (4,)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = {key.removeprefix("val/dice/") for row in rows for key in row if key.startswith("val/dice/")}
    assert watched == {"mean", *NAMES}
    assert {path.name for path in (run / "figures").iterdir()} == {"curves.png", "inputs.png", "predictions.png"}

    assert main.main(["evaluate", f"--workdir={run}", "--step=best", f"--output={tmp_path / 'best'}"]) == 0
    assert json.loads((tmp_path / "best" / "summary.json").read_text())["scored"] == "best"
    capsys.readouterr()
    assert main.main(["check", f"--input={data}", "--json"]) == 0
    checks = {finding["check"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert not checks & {"no_contrast", "mirrored", "upside_down", "turned"}  # rules of the heart
