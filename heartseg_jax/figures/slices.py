"""Figures of slices: predictions beside the truth, and a batch as the network receives it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.figures import drawing
from heartseg_jax.figures.drawing import Palette


class Panel(NamedTuple):
    """One slice to show.

    `image` [H, W] is 0 to 1; `truth` and `prediction` are labels [H, W] after the patient's merge; `dice` is the
    slice's Dice by label, None where it has none.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    dice: Sequence[float | None]


def predictions(panels: Sequence[Panel], path: str | Path, palette: Palette, *, title: str, caption: str = "") -> None:
    """Draw one row per panel: image | truth | prediction | errors, with Dice and the legend.

    Raises ValueError if there is no panel.
    """
    if not panels:
        raise ValueError("there is no slice to show")
    from matplotlib.patches import Patch

    note = textwrap.fill(f"{caption}; {palette.note}" if caption else palette.note, 130)
    height = 2.62 * len(panels) + 1.35 + 0.17 * (note.count("\n") + 1)
    with drawing.canvas(path, 9.6, height) as figure:
        figure.suptitle(textwrap.fill(title, 95), x=0.01, ha="left", fontweight="bold")
        grid = figure.subplots(len(panels), 4, squeeze=False)
        for axes, head in zip(grid[0], ("image", "truth", "prediction", "errors"), strict=True):
            axes.set_title(head, loc="center")
        for row, panel in zip(grid, panels, strict=True):
            _prediction_row(row, panel, palette)
        handles = drawing.label_handles(palette, (panel.truth for panel in panels), every=True)
        handles = _rows_of_four(handles + [Patch(facecolor=rgb, label=text) for rgb, text in drawing.ERRORS])
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, title=note)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0)


def error_map(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Classify pixels: 0 right or ignored, 1 false positive, 2 false negative, 3 wrong structure; uint8 [H, W]."""
    found = np.zeros(truth.shape, dtype=np.uint8)
    found[(truth == 0) & (prediction != 0)] = 1
    found[(truth != 0) & (prediction == 0)] = 2
    found[(truth != 0) & (prediction != 0) & (truth != prediction)] = 3
    found[truth == IGNORED] = 0
    return found


def inputs(
    image: np.ndarray,
    label: np.ndarray,
    path: str | Path,
    palette: Palette,
    *,
    names: Sequence[str] = (),
    most: int = 6,
) -> None:
    """Draw a batch as the network receives it, with statistics per channel and the outlines of the labels.

    Args:
        image: [B, H, W, C], what the first layer gets. Drawn on a scale of 0 to 1, so that a fault in the
            normalisation is visible as black or white; it is also named.
        label: [B, H, W], labels or 255.
        path: the picture to write.
        palette: the structures and their colours.
        names: of the examples; may be fewer.
        most: examples to draw; the statistics above them are of the whole batch.
    """
    image, label = np.asarray(image, dtype=np.float32), np.asarray(label)
    shown, channels = min(most, len(image)), image.shape[-1]
    same = channels > 1 and bool((image == image[..., :1]).all())
    drawn = [0] if same else list(range(channels))
    rows = len(drawn) + 1
    with drawing.canvas(path, max(7.2, 2.15 * shown + 0.4), (2.42 + 0.22 * (not same)) * rows + 1.5) as figure:
        figure.suptitle(_batch_text(image, label, shown, same), x=0.01, ha="left", fontsize=8.5)
        grid = figure.subplots(rows, shown, squeeze=False)
        for k in range(shown):
            name = str(names[k]) if k < len(names) else f"example {k}"
            name = name if len(name) <= 28 else f"{name[:13]}…{name[-14:]}"
            grid[0][k].set_title(name, loc="center", fontsize=8.5)
            for axes, c in zip(grid[:, k], drawn, strict=False):
                drawing.show_image(axes, image[k, ..., c])
                what = f"channels 0–{channels - 1} alike" if same else f"channel {c}"
                axes.set_xlabel(f"{what}\n{_statistics(image[k, ..., c])}", fontsize=7.5)
            axes = grid[-1][k]
            drawing.show_image(axes, image[k, ..., drawn[len(drawn) // 2]])
            drawing.show_labels(axes, label[k], palette, fill=0.0, width=1.1)
            axes.set_xlabel(f"labels: {_share(label[k])}", fontsize=7.5)
        handles = drawing.label_handles(palette, label[:shown])
        if handles:
            columns = min(len(handles), 4 if shown > 3 else 3)
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, title=palette.note)


def _prediction_row(row, panel: Panel, palette: Palette) -> None:
    from matplotlib.colors import to_rgba

    truth, prediction = panel.truth, panel.prediction
    for axes in row[:3]:
        drawing.show_image(axes, panel.image)
    # Dimmed, so that the errors are what is seen.
    drawing.show_image(row[3], panel.image * 0.6)
    row[0].set_ylabel(textwrap.fill(panel.title, 30), fontsize=8.5)
    drawing.show_labels(row[1], truth, palette)
    drawing.show_labels(row[2], np.where(truth == IGNORED, IGNORED, prediction), palette)
    errors = error_map(truth, prediction)
    paint = np.zeros((*errors.shape, 4))
    for code, (rgb, _) in enumerate(drawing.ERRORS, start=1):
        paint[errors == code] = to_rgba(rgb, 0.95)
    row[3].imshow(paint, interpolation="nearest")
    drawing.show_ignored(row[3], truth)

    each = [(s.short, value) for s in palette.labels.foreground if (value := panel.dice[s.label]) is not None]
    mean = sum(v for _, v in each) / len(each) if each else None
    words = "nothing to score" if mean is None else f"mean Dice {mean:.2f} in this slice"
    if truth.any() and not prediction.any():
        words += "\nno foreground is predicted"
    row[2].set_xlabel(words, fontsize=8)
    row[3].set_xlabel(_pairs(each), fontsize=7.5)


def _pairs(each: Sequence[tuple[str, float]]) -> str:
    words = [f"{short} {value:.2f}" for short, value in each]
    half = (len(words) + 1) // 2 if len(words) > 4 else len(words)
    return "\n".join(["  ".join(words[:half]), "  ".join(words[half:])]).rstrip()


def _rows_of_four(handles: list) -> list:
    """Order handles so that a legend of four columns, which fills column by column, reads along its rows."""
    from matplotlib.patches import Patch

    whole = handles + [Patch(facecolor="none", label=" ") for _ in range(-len(handles) % 4)]
    return [handle for column in range(4) for handle in whole[column::4]]


def _statistics(channel: np.ndarray) -> str:
    low, high = float(channel.min()), float(channel.max())
    text = f"min {low:.3g}   max {high:.3g}\nmean {channel.mean():.3g}   std {channel.std():.3g}"
    if not np.isfinite(channel).all():
        return text + "\nNOT FINITE"
    if low == high:
        return text + "\nCONSTANT"
    return text + ("\nOUTSIDE 0 TO 1" if low < -1e-3 or high > 1 + 1e-3 else "")


def _share(label: np.ndarray) -> str:
    counted = label != IGNORED
    share = (label[counted] > 0).mean() if counted.any() else 0.0
    ignored = f", {1 - counted.mean():.1%} ignored" if not counted.all() else ""
    return f"{share:.1%} foreground{ignored}"


def _batch_text(image: np.ndarray, label: np.ndarray, shown: int, same: bool) -> str:
    count, height, width, channels = image.shape
    lines = [f"What the network receives: {count} × {height} × {width} × {channels}, {shown} shown; {_share(label)}"]
    for c in range(1 if same else channels):
        name = f"all {channels} channels (alike)" if same else f"channel {c}"
        lines.append(f"{name}: {_statistics(image[..., c])}".replace("\n", "   "))
    return "\n".join(lines)
