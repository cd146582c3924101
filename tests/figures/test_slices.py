"""The figures are made, hold what they should, and nothing of their text is cut off."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from benchmarks.patient_figure import by_patient
from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.write import DatasetWriter, read_dataset
from heartseg_jax.evaluation import metrics
from heartseg_jax.figures import drawing, lab
from heartseg_jax.figures import slices as figures
from heartseg_jax.figures.curves import curves, series
from heartseg_jax.figures.montage import montage

PALETTE = drawing.Palette(HEART, "display")
LEGEND = {f"{s.short}  {s.name.replace('_', ' ')}" for s in HEART.foreground}


@pytest.fixture
def drawn(monkeypatch):
    """The figures made during a test."""
    from matplotlib.figure import Figure

    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    return made


def slices(count=2, size=48):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (count, size, size)).astype(np.float32)
    truth = np.zeros((count, size, size), dtype=np.uint8)
    for label in range(1, 9):
        truth[:, 5 * label : 5 * label + 4, 10:30] = label
    truth[:, :4, :20] = 255
    guess = np.roll(truth, 3, axis=2)
    guess[guess == 255] = 0
    return image, truth, guess


def dice(truth, guess):
    return metrics.dice_from_counts(metrics.confusion(truth, guess, HEART, HEART.all_known))


def check(figure, path, width, height):
    picture = np.asarray(Image.open(path).convert("L"))
    assert abs(picture.shape[1] - width * 150) <= 2
    assert picture.shape[0] > height * 150
    assert picture.std() > 10
    assert not [p.name for p in path.parent.iterdir() if p.name.endswith(".tmp" + path.suffix)]
    # Everything that is drawn, in inches: nothing reaches over the paper's edge.
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01


def texts(figure):
    return {t.get_text() for t in figure.findobj(Text)}


def test_predictions(tmp_path, drawn):
    image, truth, guess = slices()
    panels = [
        figures.Panel(f"patient {k}, slice 3", image[k], truth[k], guess[k], dice(truth[k], guess[k])) for k in range(2)
    ]
    panels.append(
        figures.Panel(
            "a collapsed prediction of a patient with a long name",
            image[0],
            truth[0],
            guess[0] * 0,
            dice(truth[0], guess[0] * 0),
        )
    )
    path = tmp_path / "deep" / "predictions.png"
    figures.predictions(panels, path, PALETTE, title="Test patients " * 9, caption="Two patients, " * 20)
    (figure,) = drawn
    check(figure, path, 9.6, 3)
    found = texts(figure)
    legend = {t.get_text() for t in figure.legends[0].get_texts()}
    assert legend >= LEGEND | {text for _, text in drawing.ERRORS} | {drawing.IGNORED_TEXT}
    assert found >= {"image", "truth", "prediction", "errors", "patient 0, slice 3"}
    assert "mean Dice 0.85 in this slice" in found  # 17 of 20 columns overlap
    assert "mean Dice 0.00 in this slice\nno foreground is predicted" in found
    with pytest.raises(ValueError, match="no slice"):
        figures.predictions([], path, PALETTE, title="nothing")


def test_what_is_ignored_is_named_in_every_legend(tmp_path, drawn):
    image, truth, guess = slices(1)
    with DatasetWriter(
        tmp_path / "d", intensity="uint8", height=48, width=48, label_set=HEART, source={"kind": "test"}
    ) as writer:
        writer.add("a", (image * 255).astype(np.uint8), truth, names=["a_007.png"], split="train")
    montage(read_dataset(tmp_path / "d"), tmp_path / "montage.png", "a", "display")
    figures.inputs(image[..., None], truth, tmp_path / "inputs.png", PALETTE)
    panel = figures.Panel("a", image[0], truth[0], guess[0], dice(truth[0], guess[0]))
    figures.predictions([panel], tmp_path / "predictions.png", PALETTE, title="a")
    for figure in drawn:
        assert drawing.IGNORED_TEXT in {t.get_text() for t in figure.legends[0].get_texts()}
    assert "a · 007" in texts(drawn[0])
    # The hatched zone and the outlines leave the picture its limits.
    for axes in drawn[2].axes:
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 47.5), (47.5, -0.5))


@pytest.mark.parametrize("arms", [[{"a", "b"}], [{"a"}, {"b", "c", "d"}]])
def test_arms_have_a_row_each_in_every_panel(tmp_path, drawn, arms):
    row = {"patients": {"1001": {"0": 0.2, "1": 0.4}, "1002": {"0": None}}, "mean_of_patients": 0.3}
    settings = [
        {
            "split": "patient",
            "train_patients": count,
            "arms": dict.fromkeys(sorted(names), row),
            "baselines": {"nearest_slice": {"1001": 0.3, "1002": None}, "position_prior": {}},
        }
        for count, names in enumerate(arms)
    ]
    lab.arms({"patients": ["1001", "1002"], "settings": settings}, tmp_path / "arms.png")
    check(drawn[0], tmp_path / "arms.png", 3.0 * len(arms) + 1.8, 2.0 + 0.46 * len(set().union(*arms)) - 0.1)
    assert set().union(*arms) <= texts(drawn[0])
    assert ("Left-out patients, trained on 1" in texts(drawn[0])) == (len(arms) == 2)


def test_error_map_by_hand():
    truth = np.array([[0, 0, 3, 3, 255, 8]], dtype=np.uint8)
    guess = np.array([[0, 3, 0, 2, 3, 4]], dtype=np.uint8)
    np.testing.assert_array_equal(figures.error_map(truth, guess), [[0, 1, 2, 3, 0, 3]])


def rows_of_a_run():
    rows = []
    for step in range(1, 151):
        rows.append({"step": step, "epoch": step / 10, "train/loss": 2.0 / step})
        if step % 50 == 0:
            row = {"step": step, "epoch": step / 10, "val/loss": 3.0 / step, "val/pixel_accuracy": 0.95}
            row |= {f"val/dice/{s.name}": 0.1 * s.label for s in HEART.foreground[:-1]}
            rows.append(row | {"val/dice/vena_cava": None, "val/dice/mean": 0.5})
    return rows


def test_curves(tmp_path, drawn):
    path = tmp_path / "curves.png"
    curves(
        rows_of_a_run(),
        path,
        PALETTE,
        title="a run of many words " * 8,
        phase_boundaries=[(1, "frozen"), (75, "all")],
        background_accuracy=0.932,
    )
    (figure,) = drawn
    check(figure, path, 12.0, 3.9)
    found = texts(figure)
    assert found >= LEGEND | {"mean", "Loss", "Pixel accuracy", "epoch", "step", "frozen", "validation"}
    assert "all background: 0.932" in found
    bottom, top = figure.axes[2].get_ylim()
    assert bottom < 0 < 1 < top, "a Dice of exactly 0 or 1 lies within the picture"


@pytest.mark.parametrize("rows", [[], [{"step": 1, "train/loss": 2.0}], [{"step": 3, "train/loss": float("nan")}]])
def test_curves_of_hardly_anything(tmp_path, drawn, rows):
    curves(rows, tmp_path / "curves.png", PALETTE, title="stopped at once")
    check(drawn[0], tmp_path / "curves.png", 12.0, 3.9)
    assert "no Dice was recorded" in texts(drawn[0])


def test_without_validation_patients_the_training_slices_are_shown_and_named(tmp_path, drawn):
    rows = [
        {"step": step, "train/loss": 2.0 / step, "fit/loss": 1.8 / step, "fit/pixel_accuracy": 0.9}
        | {"fit/dice/mean": 0.1 * step, "fit/dice/left_atrium": 0.2 * step}
        for step in (1, 2, 3)
    ]
    curves(rows, tmp_path / "curves.png", PALETTE, title="everybody trains")
    shown = texts(drawn[0])
    assert "Dice, training slices, as they are" in shown
    assert "LA  left atrium" in shown
    assert not [text for text in shown if "was recorded" in text or "validation" in text]


def test_series_breaks_where_a_value_is_missing():
    rows = [{"step": 2, "a": None}, {"step": 1, "a": 5}, {"step": 3, "a": float("inf")}, {"b": 1}, {"step": 1, "a": 6}]
    steps, values = series(rows, "a")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [6, np.nan, np.nan])


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3)])
def test_inputs(tmp_path, drawn, count, channels):
    image, truth, _ = slices(count, 48)
    batch = np.stack([image + 0.5 * c for c in range(channels)], axis=-1)
    path = tmp_path / "inputs.png"
    figures.inputs(batch, truth, path, PALETTE, names=["a patient's slice with an exceedingly long name"])
    (figure,) = drawn
    check(figure, path, max(7.2, 2.15 * min(6, count) + 0.4), 4)
    joined = "\n".join(texts(figure))
    assert f"{count} × 48 × 48 × {channels}" in joined
    assert f"mean {image[0].mean():.3g}   std {image[0].std():.3g}" in joined
    # 8 stripes of 4 x 20 pixels, of 48 x 48 less the 80 ignored.
    assert f"labels: {640 / (48 * 48 - 80):.1%} foreground, {80 / 48**2:.1%} ignored" in joined
    assert ("OUTSIDE 0 TO 1" in joined) == (channels == 3)


def test_inputs_name_a_constant_channel_and_equal_channels(tmp_path, drawn):
    _, truth, _ = slices(1)
    figures.inputs(np.zeros((1, 48, 48, 3)), truth, tmp_path / "inputs.png", PALETTE)
    joined = "\n".join(texts(drawn[0]))
    assert "CONSTANT" in joined
    assert "channels 0–2 alike" in joined


@pytest.mark.parametrize("count", [5, 16])
def test_by_patient(tmp_path, drawn, count):
    cases = [
        {"patient": f"10{k:02d}", "structure": s.name, "dice": None if s.label == 8 and k else 0.05 * k}
        for k in range(count)
        for s in HEART.foreground
    ]
    path = tmp_path / "by_patient.png"
    baselines = {"all_background": {"mean_dice": 0.0}, "nearest_slice": {"mean_dice": None}}
    by_patient(cases, path, PALETTE, title="Leave one patient out " * 5, baselines=baselines)
    check(drawn[0], path, 9.6, 4)
    found = texts(drawn[0])
    assert "all background, mean 0.00" in found
    assert not any("nearest" in t for t in found)
    assert ("patient 1004" in found) == (count == 5)
    assert ("one of 16 patients" in found) == (count == 16)


def test_importing_the_figures_does_not_import_matplotlib():
    code = "import sys, heartseg_jax.figures.slices; sys.exit('matplotlib' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
