"""The figure of `leave_one_patient_out.py`: the Dice of every patient and structure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartseg_jax.figures import drawing
from heartseg_jax.figures.drawing import Palette

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def by_patient(
    cases: Sequence[Mapping],
    path: str | Path,
    palette: Palette,
    *,
    title: str,
    baselines: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """Draw one dot per patient and structure for its Dice, the means, and the baselines' mean Dice as lines.

    Args:
        cases: rows with `patient`, `structure`, `dice` (as `report.case_rows` makes them); None is not drawn.
        path: the picture to write.
        palette: the structures and their colours.
        title: above it.
        baselines: name -> {mean_dice, ...}; None is not drawn.
    """
    structures = palette.labels.foreground
    patients = list(dict.fromkeys(str(row["patient"]) for row in cases))
    named = len(patients) <= len(_MARKERS)
    with drawing.canvas(path, 9.6, 4.3) as figure:
        axes = figure.subplots()
        axes.set_title(textwrap.fill(title, 70), fontsize=11, fontweight="bold")
        for at, structure in enumerate(structures):
            own = [r for r in cases if r["structure"] == structure.name and r["dice"] is not None]
            for row in own:
                which = patients.index(str(row["patient"]))
                shift = 0.5 * ((which + 0.5) / len(patients) - 0.5)
                axes.plot(
                    at + shift,
                    float(row["dice"]),
                    marker=_MARKERS[which] if named else "o",
                    markersize=6.5 if named else 4.5,
                    color=palette.colour(structure),
                    markeredgecolor=drawing.INK,
                    markeredgewidth=0.7,
                    linestyle="none",
                    clip_on=False,
                    zorder=3,
                )
            if own:
                mean = sum(float(r["dice"]) for r in own) / len(own)
                axes.hlines(mean, at - 0.34, at + 0.34, color=drawing.INK, linewidth=1.6, zorder=2)
        axes.set_xlim(-0.6, len(structures) - 0.4)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("Dice")
        ticks = [f"{s.short}\n{s.name.replace('_', chr(10))}" for s in structures]
        axes.set_xticks(range(len(structures)), ticks)
        axes.grid(False, axis="x")
        handles = _patient_handles(patients, named) + _baseline_lines(axes, baselines or {})
        figure.legend(handles=handles, loc="outside right center", frameon=False)


def _patient_handles(patients: Sequence[str], named: bool) -> list:
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "#dddddd", "markeredgecolor": drawing.INK}
    mean = Line2D([], [], color=drawing.INK, linewidth=1.6, label="mean over patients")
    if not named:
        return [Line2D([], [], marker="o", label=f"one of {len(patients)} patients", **plain), mean]
    dots = [Line2D([], [], marker=m, label=f"patient {p}", **plain) for m, p in zip(_MARKERS, patients, strict=False)]
    return [*dots, mean]


def _baseline_lines(axes, baselines: Mapping[str, Mapping[str, float | None]]) -> list:
    styles = {"all_background": ":", "nearest_slice": "--", "position_prior": "-."}
    lines = []
    for name, row in baselines.items():
        value = row.get("mean_dice")
        if value is not None:
            label = f"{name.replace('_', ' ')}, mean {value:.2f}"
            style = styles.get(name, (0, (3, 1, 1, 1, 1, 1)))
            lines.append(axes.axhline(value, color="#0072B2", linewidth=1.2, linestyle=style, label=label, zorder=1))
    return lines
