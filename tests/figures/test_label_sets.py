"""Figures, loss, counts, guards, metrics and report with a label set of three structures that are not the heart's."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from benchmarks.patient_figure import by_patient
from heartseg_jax.anatomy import HEART, TUMOUR, LabelSet, Structure, merge_labels
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.dataset.write import DatasetWriter, read_dataset
from heartseg_jax.evaluation import metrics, report
from heartseg_jax.figures import slices
from heartseg_jax.figures.curves import curves
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.figures.montage import montage
from heartseg_jax.training import counts, guards, losses

LIVER = LabelSet(
    "liver",
    (
        Structure(0, "background", "BG", (0, 0, 0), (0, 0, 0), None),
        Structure(1, "liver", "LI", (200, 100, 0), (10, 120, 40), "10200004"),
        Structure(2, "gallbladder", "GB", (0, 200, 100), (90, 10, 200), "28231008"),
        Structure(3, "spleen", "SP", (100, 0, 200), (220, 170, 10), "78961009"),
    ),
    num_classes=4,
)
TRUTH = np.array([[[0, 1, 1, 2], [3, 3, 255, 0]]], np.uint8)
GUESS = np.array([[[0, 1, 2, 2], [3, 0, 1, 0]]], np.uint8)
LEGEND = {"LI  liver", "GB  gallbladder", "SP  spleen"}


@pytest.fixture
def drawn(monkeypatch):
    from matplotlib.figure import Figure

    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    return made


def texts(figure):
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Dataset:
    monkeypatch.setitem(__import__("heartseg_jax.anatomy").anatomy.LABEL_SETS, "liver", LIVER)
    labels = np.repeat(np.repeat(np.where(TRUTH == 255, 0, TRUTH), 8, 1), 8, 2).astype(np.uint8)
    images = np.arange(labels.size).reshape(labels.shape).astype(np.uint8)
    path = tmp_path / "livers"
    with DatasetWriter(path, intensity="uint8", height=16, width=32, label_set=LIVER, source={"kind": "t"}) as writer:
        writer.add("a", images, labels, names=["a_1"], split="train")
    return read_dataset(path)


def test_a_dataset_keeps_its_label_set(dataset):
    assert dataset.label_set is LIVER
    assert dataset.patients[0].merge == (0, 1, 2, 3)
    assert len(dataset.patients[0].class_counts[0]) == 5


@pytest.mark.parametrize(("scheme", "rgb"), [("display", (10, 120, 40)), ("masks", (200, 100, 0))])
def test_every_figure_shows_its_own_structures_in_the_scheme_it_is_asked_for(tmp_path, drawn, dataset, scheme, rgb):
    palette = Palette(LIVER, scheme)
    dice = metrics.dice_from_counts(metrics.confusion(TRUTH[0], GUESS[0], LIVER, LIVER.all_known))
    panel = slices.Panel("a", np.zeros(TRUTH[0].shape, np.float32), TRUTH[0], GUESS[0], dice)
    slices.predictions([panel], tmp_path / "predictions.png", palette, title="livers")
    slices.inputs(TRUTH[..., None] / 255, TRUTH, tmp_path / "inputs.png", palette)
    cases = [{"patient": "a", "structure": s.name, "dice": 0.5} for s in LIVER.foreground]
    by_patient(cases, tmp_path / "by_patient.png", palette, title="livers")
    rows = [{"step": 1, "val/dice/mean": 0.0} | {f"val/dice/{s.name}": 0.0 for s in LIVER.foreground}]
    curves(rows, tmp_path / "curves.png", palette, title="livers")
    montage(dataset, tmp_path / "montage.png", "livers", scheme)
    names = ("predictions", "inputs", "by_patient", "curves", "montage")
    for figure, name in zip(drawn, names, strict=True):
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 10
        words = " ".join(" ".join(text.split()) for text in texts(figure))
        for structure in LIVER.foreground:
            assert structure.short in words, (name, structure)
            assert structure.name in words, (name, structure)
        assert "atrium" not in words
        if name == "by_patient":
            assert to_rgb(figure.axes[0].lines[0].get_color()) == pytest.approx(np.array(rgb) / 255)
        else:
            assert palette.note in words
            handles = {
                text.get_text(): handle
                for legend in figure.legends
                for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
            }
            handle = handles["LI  liver"]
            shown = handle.get_facecolor() if hasattr(handle, "get_facecolor") else handle.get_color()
            assert to_rgb(shown) == pytest.approx(np.array(rgb) / 255)


def test_metrics_and_report():
    # Liver: 1 of 2 found, none invented (the second guess lies in the ignored zone): 2 * 1 / (2 + 1).
    score = metrics.score_patient(TRUTH, GUESS, LIVER, LIVER.all_known, (2.0, 1.0, 1.0), True)
    assert {name: s.dice for name, s in score.structures.items()} == pytest.approx(
        {"liver": 2 / 3, "gallbladder": 2 / 3, "spleen": 2 / 3}
    )
    summary = report.build_summary({"a": score}, LIVER, split="test", step=1, checkpoint=None, scored="last")
    assert summary["task"] == "liver"
    assert summary["mean_dice"] == pytest.approx(2 / 3)
    table = report.table(summary, LIVER)
    assert "SP  spleen" in table
    assert "atrium" not in table


def test_loss_and_counts_by_hand():
    merge, mask = jnp.array([[0, 1, 1, 3]]), jnp.ones(1)
    logits = jnp.log(jnp.array([[[[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]]]))
    label = jnp.array([[[2, 0]]])
    # The first pixel is liver or gallbladder, undivided: 0.2 + 0.3; it is the most probable label, too.
    loss, _ = losses.segmentation_loss(logits, label, merge, mask, 0.0, 1.0)
    assert float(loss) == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2, rel=1e-6)
    found = np.asarray(counts.confusion_counts(logits, label, merge, mask))
    assert found.shape == (4, 4)
    assert (found[1, 1], found[0, 0], found.sum()) == (1, 1, 2)


def test_guards_name_the_structures_of_the_label_set():
    pixels = np.array([[9, 1, 0, 1, 0]])
    [finding] = guards.check_known_structures(pixels, [LIVER.all_known], LIVER)
    assert "gallbladder" in finding.seen
    [finding] = guards.check_labels("patient a", np.array([3, 4, 255]), LIVER)
    assert "4 (1 pixel)" in finding.seen
    # Every dataset of tumours has channels without a structure: nothing is missing there.
    assert guards.check_known_structures(np.array([[9, 1, *[0] * 8]]), [TUMOUR.all_known], TUMOUR) == []


def test_mean_dice_is_over_patients_for_each_structure_and_then_over_structures():
    one = metrics.confusion(np.array([1] * 4 + [2] * 2), np.array([1] * 4 + [2] * 2), LIVER, LIVER.all_known)
    two = metrics.confusion(np.array([1] * 4), np.array([0] * 4), LIVER, LIVER.all_known)
    assert metrics.dice_by_structure([one, two], LIVER) == {"liver": 0.5, "gallbladder": 1.0, "spleen": None}
    assert metrics.mean_dice([one, two], LIVER) == 0.75  # over the cases it would be 2 / 3
    assert metrics.mean_dice([], LIVER) is None


def test_merged_labels():
    labels = np.array([0, 8, 4, 255], np.uint8)
    np.testing.assert_array_equal(merge_labels(labels, (0, 1, 2, 3, 4, 5, 6, 7, 4)), [0, 4, 4, 255])
    np.testing.assert_array_equal(merge_labels(labels, HEART.all_known), labels)
