"""A score as users read it: `summary.json`, `cases.csv` and the printed table. `metrics` computes the numbers."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.evaluation.baselines import NAMES as BASELINES
from heartseg_jax.evaluation.metrics import MEASURES, PatientScore, summarise
from heartseg_jax.files import write_json, write_text
from heartseg_jax.findings import counted

WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
MEMORISATION = (
    "memorisation, not generalisation: training and this split are slices of the same patient (a split by block)"
)
DIAGONAL_IF_MISSED = ("hd95_mm", "assd_mm")
"""Measures that are the diagonal of the image where a structure is missed; only JSON shows that number."""
CASE_COLUMNS = (
    "patient",
    "structure",
    *MEASURES,
    "missed",
    "truth_voxels",
    "predicted_voxels",
    "known",
    "merged_with",
)


def build_summary(
    scores: Mapping[str, PatientScore],
    labels: LabelSet,
    *,
    split: str,
    step: int | None,
    checkpoint: str | None,
    scored: str,
    baselines: Mapping[str, Mapping[str, float | None]] | None = None,
    split_kind: str = "patient",
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> dict:
    """Return the content of `summary.json`.

    Args:
        scores: patient id -> score.
        labels: the dataset's label set, whose structures are scored; the summary has its name, under `task`.
        split: what was scored, such as "test".
        step: the checkpoint's training step, if there is one.
        checkpoint: its path, if there is one.
        scored: which step that is: 'last', 'best' (by validation Dice) or 'asked' (another one, by its number).
        baselines: name -> {mean_dice, pixel_accuracy} (see `baselines.baseline_scores`); null where not given.
        split_kind: "patient" or "block"; a block split adds the warning that it measures memorisation.
        warnings: the caller's own, put first.
        seed: of the bootstrap.
    """
    metrics = summarise(scores, labels, seed=seed)
    given = baselines or {}
    rows = {name: given.get(name, {}) for name in (*BASELINES, *(n for n in given if n not in BASELINES))}
    found = list(warnings)
    # The training slices themselves are memorised whatever the kind of split, so this warning is the clearer one.
    if split == "train":
        found.append("memorisation, not generalisation: these are the slices it was trained on")
    elif split_kind == "block":
        found.append(MEMORISATION)
    found += metrics.pop("warnings")
    row = {name: {key: r.get(key) for key in ("mean_dice", "pixel_accuracy")} for name, r in rows.items()}
    best = max((r["mean_dice"] for r in row.values() if r["mean_dice"] is not None), default=None)
    if metrics["mean_dice"] is not None and best is not None and metrics["mean_dice"] <= best:
        which = next(name for name, r in row.items() if r["mean_dice"] == best)
        found.append(f"no better than a baseline: mean Dice {metrics['mean_dice']:.3f}, {which} {best:.3f}")
    return {
        "task": labels.name,
        "split": split,
        "step": step,
        "checkpoint": checkpoint,
        "scored": scored,
        **metrics,
        "split_kind": split_kind,
        "baselines": row,
        "warnings": found,
    }


def with_controls(summary: Mapping, controls: Mapping[str, Mapping[str, float | None]]) -> dict:
    """Return the summary with `controls` (name -> mean_dice, pixel_accuracy), and a warning where one is as good."""
    warnings = list(summary["warnings"])
    for name, row in controls.items():
        if (
            summary["mean_dice"] is not None
            and row["mean_dice"] is not None
            and row["mean_dice"] >= summary["mean_dice"]
        ):
            warnings.append(
                f"the control {name} is as good (mean Dice {row['mean_dice']:.3f}, this model "
                f"{summary['mean_dice']:.3f}): nothing here speaks for the pretrained weights"
            )
    return {**summary, "controls": {name: dict(row) for name, row in controls.items()}, "warnings": warnings}


def write_report(folder: Path, summary: Mapping, scores: Mapping[str, PatientScore]) -> None:
    """Write `summary.json` and `cases.csv` into `folder`, which is created; each appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_cases(folder / "cases.csv", case_rows(scores))
    write_summary(folder / "summary.json", summary)


def write_summary(path: Path, summary: Mapping) -> None:
    """Write strict JSON: what is not a finite number becomes null."""
    write_json(path, _plain(summary))


def case_rows(scores: Mapping[str, PatientScore]) -> list[dict]:
    """Return one row per patient and structure, with the columns CASE_COLUMNS; what is unknown is None."""
    rows = []
    for patient, score in scores.items():
        for name, s in score.structures.items():
            row = {"patient": patient, "structure": name, **s._asdict()}
            row["merged_with"] = "+".join(s.merged_with)
            rows.append({column: row[column] for column in CASE_COLUMNS})
    return rows


def write_cases(path: Path, rows: Sequence[Mapping]) -> None:
    """Write `case_rows` as CSV; None is an empty field, a truth value is `true` or `false`.

    The distances of a missed structure are `missed`: the diagonal that enters the means instead is not a distance.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CASE_COLUMNS)
    for row in rows:
        missed = [c for c in DIAGONAL_IF_MISSED if row["missed"] and row[c] is not None]
        writer.writerow(["missed" if column in missed else _field(row[column]) for column in CASE_COLUMNS])
    write_text(path, text.getvalue())


def table(summary: Mapping, labels: LabelSet) -> str:
    """Return a summary as text: the structures, the baselines, the patients by name, and the warnings last."""
    where = f" at step {summary['step']}" if summary.get("step") is not None else ""
    where += {"last": " (the last)", "best": " (the best by validation Dice)"}.get(str(summary.get("scored")), "")
    ids = list(summary.get("patient_ids") or [])
    patients, slices = counted(summary["patients"], "patient"), counted(summary["slices"], "slice")
    head = f"{summary['split']} split{where}: {patients}, {slices}"
    lines = [head + (f" ({', '.join(ids)})" if 0 < len(ids) <= 12 else "")]
    lines += ["", *_structure_table(summary, labels), "", *_baseline_table(summary)]
    if summary.get("by_patient"):
        lines += ["", *_patient_table(summary, labels)]
    for warning in summary["warnings"]:
        lines += ["", textwrap.fill(f"WARNING  {warning}", 100, subsequent_indent=" " * 8, **WHOLE_WORDS)]
    return "\n".join(lines)


def _structure_table(summary: Mapping, labels: LabelSet) -> list[str]:
    columns = (
        ("Dice", "dice", 3),
        ("IoU", "iou", 3),
        ("HD95 mm", "hd95_mm", 1),
        ("ASSD mm", "assd_mm", 2),
        ("NSD 2mm", "nsd_2mm", 3),
        ("bias mL", "volume_bias_ml", 1),
    )
    # A column without any number (no mm, scattered slices) would hold dashes only.
    rows = summary["structures"]
    shown = [c for c in columns if c[1] == "dice" or any(r[c[1]] is not None for r in rows.values())]
    header = f"{'structure':<20}" + "".join(f"{title:>9}" for title, _, _ in shown)
    lines = [header + f"{'missed':>8}{'patients':>10}"]
    marked = False
    for s in labels.foreground:
        row = rows[s.name]
        text = f"{s.short + '  ' + s.name:<20}"
        for _, key, digits in shown:
            cell = _number(row[key], digits, signed=key == "volume_bias_ml")
            if key in DIAGONAL_IF_MISSED and row[key] is not None and row["missed"]:
                whole = row["missed"] == row["patients"]
                cell, marked = ("missed", marked) if whole else (f"{cell}*", True)
            text += f"{cell:>9}"
        text += f"{row['missed']:>8}{row['patients']:>10}"
        notes = []
        if row.get("merged_with"):
            notes.append("with " + ", ".join(row["merged_with"]))
        if row.get("unknown"):
            notes.append(f"not labelled in {row['unknown']}")
        if row.get("absent"):
            notes.append(f"absent in {row['absent']}")
        lines.append(text + ("  " + "; ".join(notes) if notes else ""))
    if marked:
        lines.append("(* a patient in whom the structure was missed counts with the diagonal of the image)")
    if len(shown) < len(columns):
        lines.append("(no distances or volumes: the slices are no volume, or their spacing is unknown)")
    return lines


def _baseline_table(summary: Mapping) -> list[str]:
    lines = [f"{'':<26}{'mean Dice':>10}{'pixel accuracy':>16}"]
    model = f"{'this model':<26}{_number(summary['mean_dice'], 3):>10}{_number(summary['pixel_accuracy'], 4):>16}"
    interval = summary.get("mean_dice_ci95")
    lines.append(model + (f"  95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""))
    rows = [("control " + name, row) for name, row in summary.get("controls", {}).items()]
    for name, row in rows + [("baseline " + name, row) for name, row in summary["baselines"].items()]:
        title = name.replace("_", " ")
        lines.append(f"{title:<26}{_number(row['mean_dice'], 3):>10}{_number(row['pixel_accuracy'], 4):>16}")
    return lines


def _patient_table(summary: Mapping, labels: LabelSet) -> list[str]:
    patients, shown = summary["by_patient"], labels.foreground
    wide = max(10, *(len(key) + 2 for key in patients))
    lines = [f"{'Dice of':<{wide}}" + "".join(f"{s.short:>7}" for s in shown) + f"{'mean':>8}{'slices':>8}"]
    for key, row in patients.items():
        cells = "".join(f"{_number(row['dice'][s.name], 3):>7}" for s in shown)
        lines.append(f"{key:<{wide}}{cells}{_number(row['mean_dice'], 3):>8}{row['slices']:>8}")
    return lines


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _field(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def _plain(value):
    """Return numpy values, tuples and paths as what JSON has, and what is not finite as None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
