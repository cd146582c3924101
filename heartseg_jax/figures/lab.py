"""The laboratory's figure: one row per arm, one dot per patient and seed, the baselines as lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartseg_jax.figures import drawing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, as for `drawing.ERRORS`."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: dict[str, Any] = {"nearest_slice": ":", "position_prior": "--"}


def arms(report: Mapping[str, Any], path: str | Path) -> None:
    """Draw a `lab.report.build`: one panel per kind of split, the Dice of left-out slices by arm, patient and seed."""
    from matplotlib.lines import Line2D

    shown = [setting for setting in report["settings"] if setting["arms"]]
    if not shown:
        return
    patients = list(report["patients"])
    names = list(dict.fromkeys(arm for setting in shown for arm in setting["arms"]))
    with drawing.canvas(path, 3.0 * len(shown) + 1.8, 0.46 * len(names) + 2.0) as figure:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, setting in zip(panels, shown, strict=True):
            trained = f", trained on {setting['train_patients']}" if setting["train_patients"] else ""
            by_patient = setting["split"] == "patient"
            title = f"Left-out patients{trained}" if by_patient else "Left-out slices of trained patients"
            axes.set_title(title, fontweight="bold")
            for place, arm in enumerate(names):
                _row(axes, place, setting["arms"].get(arm), patients)
            for name, style in LINES.items():
                values = [v for v in setting["baselines"].get(name, {}).values() if v is not None]
                if values:
                    axes.axvline(sum(values) / len(values), color=drawing.INK, linestyle=style, linewidth=1.1, zorder=1)
            axes.set_xlim(-0.01, 1.01)
            axes.set_xlabel("mean Dice over the patient's structures")
            axes.grid(False, axis="y")
            axes.grid(True, axis="x", alpha=0.4)
        panels[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        looks: dict[str, dict[str, Any]] = {
            f"patient {patient}": {"marker": MARKERS[i % 9], "color": COLOURS[i % 7], "linestyle": "none"}
            for i, patient in enumerate(patients)
        }
        looks["mean of patients"] = {"linewidth": 2.2}
        looks |= {name.replace("_", " "): {"linestyle": style, "linewidth": 1.1} for name, style in LINES.items()}
        handles = [Line2D([], [], **{"color": drawing.INK, **look}, label=label) for label, look in looks.items()]
        title, columns = "one dot per patient and seed", 4 if len(shown) > 1 else 2
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, title=title)


def _row(axes: Any, place: int, row: Mapping[str, Any] | None, patients: list[str]) -> None:
    """Draw one arm: the patients side by side across the row, their seeds joined by a thin line, the mean as a bar."""
    if not row:
        return
    for number, patient in enumerate(patients):
        values = [v for v in row["patients"].get(patient, {}).values() if v is not None]
        if not values:
            continue
        at = place + 0.62 * ((number + 0.5) / len(patients) - 0.5)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([min(values), max(values)], [at, at], color=colour, linewidth=0.8, zorder=2)
        look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.6, "color": colour, "linestyle": "none"}
        rim = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        axes.plot(values, [at] * len(values), **look, **rim, zorder=3, clip_on=False)
    if row["mean_of_patients"] is not None:
        axes.vlines(row["mean_of_patients"], place - 0.4, place + 0.4, color=drawing.INK, linewidth=2.2, zorder=1.5)
