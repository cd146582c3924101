"""The curves of a run, from the lines of `metrics.jsonl`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.figures import drawing

TRAIN, VALIDATION = "#8c8c8c", "#0072B2"
WATCHED = {"val": "validation", "fit": "training slices, as they are"}
"""Which slices were evaluated, by the first part of the tag: training slices where no patient is for validation."""
SMOOTH_FROM_POINTS = 100


def curves(
    rows: Sequence[Mapping],
    path: str | Path,
    palette: drawing.Palette,
    *,
    title: str,
    phase_boundaries: Sequence[tuple[int, str]] = (),
    background_accuracy: float | None = None,
) -> None:
    """Draw loss, pixel accuracy and Dice against the step.

    Args:
        rows: lines of `metrics.jsonl`: `step`, perhaps `epoch`, and the tags `train/loss`, `val/loss`,
            `train/pixel_accuracy`, `val/pixel_accuracy`, `val/dice/mean`, `val/dice/<structure>`; each row has some.
            A value that is None or not finite breaks the line. Without any `val/` tag, those of `fit/` are drawn.
        path: the picture to write.
        palette: the structures that have a Dice, and their colours.
        title: above it.
        phase_boundaries: the first step (from 1) of each phase of training, and its name.
        background_accuracy: pixel accuracy of an all-background prediction; drawn as a dashed line.
    """
    with drawing.canvas(path, 12.0, 4.0) as figure:
        figure.suptitle(textwrap.fill(title, 120), x=0.01, ha="left", fontweight="bold")
        loss, accuracy, dice = figure.subplots(1, 3)
        tag = watched(rows)
        _loss(loss, rows, tag)
        _accuracy(accuracy, rows, tag, background_accuracy)
        handles = _dice(dice, rows, tag, palette)
        for axes in (loss, accuracy, dice):
            _frame(axes, rows, phase_boundaries)
        if handles:
            figure.legend(
                handles=handles,
                loc="outside right center",
                frameon=False,
                title=textwrap.fill(f"Dice ({palette.note})", 26),
            )


def series(rows: Sequence[Mapping], tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a tag's steps and values, float64; NaN where a value is None or not finite; of equal steps the last."""
    found: dict[float, float] = {}
    for row in rows:
        if tag in row and row.get("step") is not None:
            value = row[tag]
            found[float(row["step"])] = float(value) if value is not None and math.isfinite(value) else math.nan
    steps = sorted(found)
    return np.array(steps), np.array([found[step] for step in steps])


def watched(rows: Sequence[Mapping]) -> str:
    """Return whose evaluations the rows hold: 'fit' where there are such tags and no 'val', else 'val'."""
    found = {key.split("/")[0] for row in rows for key in row}
    return "fit" if "fit" in found and "val" not in found else "val"


def _both(axes, rows: Sequence[Mapping], tag: str, measure: str) -> np.ndarray:
    """Draw a measure on training batches and on the slices that were evaluated; return its finite values."""
    found = []
    for part, name, rgb in (("train", "training", TRAIN), (tag, WATCHED[tag], VALIDATION)):
        steps, values = series(rows, f"{part}/{measure}")
        found.append(values[np.isfinite(values)])
        if len(steps) > SMOOTH_FROM_POINTS and part == "train":
            axes.plot(steps, values, color=rgb, linewidth=0.6, alpha=0.35)
            axes.plot(steps, _running_median(values), color=rgb, linewidth=1.6, label=f"{name} (running median)")
        elif len(steps):
            axes.plot(steps, values, color=rgb, linewidth=1.6, label=name, **_dots(steps))
    return np.concatenate(found)


def _loss(axes, rows: Sequence[Mapping], tag: str) -> None:
    axes.set_title("Loss")
    values = _both(axes, rows, tag, "loss")
    if values.size and values.min() > 0 and values.max() / values.min() > 30:
        axes.set_yscale("log")
    _legend_or_note(axes, "no loss was recorded")


def _accuracy(axes, rows: Sequence[Mapping], tag: str, background: float | None) -> None:
    axes.set_title("Pixel accuracy")
    values = _both(axes, rows, tag, "pixel_accuracy")
    if background is not None:
        values = np.append(values, background)
        label = f"all background: {background:.3f}"
        axes.axhline(background, color="#D55E00", linestyle="--", linewidth=1.3, label=label)
    if values.size:
        axes.set_ylim(max(-0.02, values.min() - 0.08 * (1.02 - values.min())), 1.002)
    _legend_or_note(axes, "no accuracy was recorded")


def _dice(axes, rows: Sequence[Mapping], tag: str, palette: drawing.Palette) -> list:
    """Draw the mean and one line per structure; return the lines for the legend."""
    from matplotlib.patheffects import Normal, Stroke

    axes.set_title(f"Dice, {WATCHED[tag]}")
    axes.set_ylim(-0.02, 1.02)  # a Dice of exactly 0 is to be seen
    lines = []
    steps, values = series(rows, f"{tag}/dice/mean")
    if len(steps):
        lines += axes.plot(steps, values, color="black", linewidth=2.4, zorder=5, label="mean", **_dots(steps, 4))
    for structure in palette.labels.foreground:
        steps, values = series(rows, f"{tag}/dice/{structure.name}")
        if len(steps):
            look = {"color": palette.colour(structure), "linewidth": 1.2, **_dots(steps, 2.5)}
            (line,) = axes.plot(steps, values, label=drawing.legend_name(structure), **look)
            # Yellow and light green would be lost on white without a dark rim.
            line.set_path_effects([Stroke(linewidth=2.0, foreground="#444444"), Normal()])
            lines.append(line)
    if not lines:
        _note(axes, "no Dice was recorded")
    return lines


def _frame(axes, rows: Sequence[Mapping], boundaries: Sequence[tuple[int, str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    last = max((float(row["step"]) for row in rows if row.get("step") is not None), default=1.0)
    axes.set_xlim(0, max(last, 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    spot = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    for step, name in boundaries:
        axes.axvline(step, color=drawing.FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(name, (step, 0.02), xytext=(3, 0), rotation=90, fontsize=7, color="#666666", **spot)
    steps, epochs = series(rows, "epoch")
    known = np.isfinite(epochs)
    if known.sum() >= 2 and np.ptp(epochs[known]) > 0:
        # Epochs are linear in steps, so one slope extends the axis to its ends.
        slope, offset = np.polyfit(steps[known], epochs[known], 1)
        both = (lambda x: x * slope + offset, lambda y: (y - offset) / slope)
        top = axes.secondary_xaxis("top", functions=both)
        top.set_xlabel("epoch", labelpad=2)
        top.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _dots(steps: np.ndarray, size: float = 3.0) -> dict[str, Any]:
    """Return the markers of a short series: a single point draws no line."""
    return {"marker": "o", "markersize": size} if len(steps) <= 40 else {}


def _running_median(values: np.ndarray) -> np.ndarray:
    half = max(2, len(values) // 50)
    windows = [values[max(0, k - half) : k + half + 1] for k in range(len(values))]
    return np.array([np.nanmedian(w) if np.isfinite(w).any() else math.nan for w in windows])


def _legend_or_note(axes, missing: str) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.85, edgecolor="none", loc="best")
    else:
        _note(axes, missing)


def _note(axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=drawing.FAINT)
