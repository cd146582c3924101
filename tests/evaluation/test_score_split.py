"""Scoring a split: a perfect model on tiles, and which slices are drawn of many patients."""

import csv
import json

import numpy as np
import pytest

from heartseg_jax.evaluation import score_split as module
from heartseg_jax.inference.predictor import Output, Predictor
from tests.preprocess.specs import spec
from tests.tiny import SLICES, tile_labels, write_tiny


def by_brightness(batch):
    """Probabilities of 0.9 for the structure that a pixel's brightness names: structure k is at 60 k HU."""
    label = np.rint(np.clip(batch.image[..., 0] / 60, 0, 8)).astype(int)
    return 0.1 / 9 + 0.9 * np.eye(9, dtype=np.float32)[label]


def score(dataset, output, draw):
    return module.score_split(
        Predictor(lambda batch: Output(by_brightness(batch)), 4),
        dataset,
        "test",
        spec(),
        output=output,
        step=7,
        checkpoint=None,
        scored="last",
        colours="display",
        draw=draw,
    )


@pytest.fixture
def drawn(monkeypatch):
    """The panels and the title of each picture that is drawn."""
    found = []
    monkeypatch.setattr(module.slices, "predictions", lambda panels, *_, title, **__: found.append((panels, title)))
    return found


def test_six_patients_evenly_spread_are_drawn_of_many(tmp_path, drawn):
    splits = {"a": "train"} | {f"t{k:02d}": "test" for k in range(11)}
    dataset = write_tiny(tmp_path / "d", splits=splits)
    summary = score(dataset, tmp_path / "out", draw=True)
    [(panels, title)] = drawn
    assert [panel.title for panel in panels] == [f"t{k:02d}, slice 0" for k in (0, 2, 4, 6, 8, 10)]
    assert title == f"Test patients: mean Dice {summary['mean_dice']:.3f}"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["patients"] == 11
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 11 * 8


def test_a_perfect_model_has_a_dice_of_1_and_nothing_is_drawn_where_nothing_is_asked_for(tmp_path, drawn):
    shifts = iter(range(2))
    without_noise = lambda _: 60 * tile_labels(next(shifts)).astype(np.int16)  # noqa: E731
    dataset = write_tiny(tmp_path / "d", splits={"a": "train", "b": "test"}, reimage=without_noise)
    summary = score(dataset, tmp_path / "out", draw=False)
    assert summary["mean_dice"] == 1.0
    assert summary["structures"]["left_atrium"]["hd95_mm"] == 0.0
    assert (summary["step"], summary["slices"]) == (7, SLICES)
    assert summary["foreground_fraction"]["truth"] == pytest.approx(float((tile_labels(1) > 0).mean()))
    assert drawn == []


def test_slices_are_named_without_the_patient_and_the_suffix(tmp_path):
    dataset = write_tiny(tmp_path / "d")
    assert dataset.patients[1].slice_name(3) == "3"
    assert dataset.slices_of("validation") == {3: list(range(SLICES))}
    assert [patient.id for patient in dataset.patients_in("train")] == ["a", "b", "c"]
    assert all(patient.labelled for patient in dataset.patients)
