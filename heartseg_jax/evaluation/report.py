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
from heartseg_jax.evaluation.metrics import PatientScore, StructureScore, summarise
from heartseg_jax.files import write_json, write_text
from heartseg_jax.findings import counted

WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
MEMORISATION = (
    "memorisation, not generalisation: training and this split are slices of the same patient (a split by block)"
)
DIAGONAL_IF_MISSED = ("hd95_mm", "assd_mm")
"""Measures that are the diagonal of the image where a structure is missed; only JSON shows that number."""
NOTED = {"unknown": "not labelled", "absent": "absent"}
"""Counts of patients in a structure's summary that are noted beside its row."""
CASE_COLUMNS = ("patient", "structure", *StructureScore._fields)


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
    own_split: bool = True,
    datasets: Mapping[str, str] | None = None,
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
        own_split: whether the split is the one that the model was trained by, not that of another dataset.
        datasets: patient id -> name of the dataset, where several are joined: each is scored by itself too.
    """
    metrics = summarise(scores, labels)
    given = baselines or {}
    row = {name: {key: given.get(name, {}).get(key) for key in ("mean_dice", "pixel_accuracy")} for name in BASELINES}
    found = list(warnings)
    # The training slices themselves are memorised whatever the kind of split, so this warning is the clearer one.
    if split == "train" and own_split:
        found.append("memorisation, not generalisation: these are the slices it was trained on")
    elif split_kind == "block":
        found.append(MEMORISATION)
    found += metrics.pop("warnings")
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
        **({"by_dataset": _by_dataset(scores, labels, datasets)} if datasets else {}),
        "split_kind": split_kind,
        "baselines": row,
        "warnings": found,
    }


def _by_dataset(
    scores: Mapping[str, PatientScore], labels: LabelSet, datasets: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name in dict.fromkeys(datasets.values()):
        own = summarise({key: score for key, score in scores.items() if datasets[key] == name}, labels)
        found[name] = {key: own[key] for key in ("structures", "mean_dice", "mean_dice_ci95", "patients", "slices")}
    return found


def with_controls(summary: Mapping, controls: Mapping[str, Mapping[str, float | None]]) -> dict:
    """Return the summary with `controls` (name -> mean_dice, pixel_accuracy), and a warning where one is as good."""
    warnings = list(summary["warnings"])
    own = summary["mean_dice"]
    for name, row in controls.items():
        if own is not None and row["mean_dice"] is not None and row["mean_dice"] >= own:
            warnings.append(
                f"the control {name} is as good (mean Dice {row['mean_dice']:.3f}, this model {own:.3f}): nothing here "
                "speaks for the pretrained weights"
            )
    return {**summary, "controls": {name: dict(row) for name, row in controls.items()}, "warnings": warnings}


def write_report(folder: Path, summary: Mapping, scores: Mapping[str, PatientScore]) -> None:
    """Write `summary.json` and `cases.csv` into `folder`, which is created; each appears whole or not at all."""
    write_cases(folder / "cases.csv", scores)
    write_summary(folder / "summary.json", summary)


def write_summary(path: Path, summary: Mapping) -> None:
    """Write strict JSON: what is not a finite number becomes null."""
    write_json(path, _plain(summary))


def write_cases(path: Path, scores: Mapping[str, PatientScore]) -> None:
    """Write one row per patient and structure as CSV; None is an empty field, a truth value is `true` or `false`.

    The distances of a missed structure are `missed`: the diagonal that enters the means instead is not a distance.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CASE_COLUMNS)
    for patient, score in scores.items():
        for name, s in score.structures.items():
            row = s._asdict() | {"merged_with": "+".join(s.merged_with)}
            row |= {c: "missed" for c in DIAGONAL_IF_MISSED if s.missed and row[c] is not None}
            row |= {c: str(value).lower() for c, value in row.items() if isinstance(value, bool)}
            writer.writerow([patient, name, *row.values()])
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
    if summary.get("by_dataset"):
        lines += ["", *_dataset_table(summary["by_dataset"], labels)]
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
        ("bias mm", "bias_mm", 2),
        ("bias px", "bias_px", 2),
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
            cell = number(row[key], digits, sign="bias" in key)
            if key in DIAGONAL_IF_MISSED and row[key] is not None and row["missed"]:
                whole = row["missed"] == row["patients"]
                cell, marked = ("missed", marked) if whole else (f"{cell}*", True)
            text += f"{cell:>9}"
        text += f"{row['missed']:>8}{row['patients']:>10}"
        notes = [f"with {', '.join(row['merged_with'])}"] if row["merged_with"] else []
        notes += [f"{what} in {row[key]}" for key, what in NOTED.items() if row[key]]
        lines.append(text + ("  " + "; ".join(notes) if notes else ""))
    if marked:
        lines.append("(* a patient in whom the structure was missed counts with the diagonal of the image)")
    if all(row["volume_bias_ml"] is None for row in rows.values()):
        lines.append("(no volumes or surface distances: the slices are no volume, or their spacing is unknown)")
    return lines


def _baseline_table(summary: Mapping) -> list[str]:
    lines = [f"{'':<26}{'mean Dice':>10}{'pixel accuracy':>16}"]
    rows: dict[str, Mapping] = {"this model": summary}
    rows |= {f"control {name}": row for name, row in summary.get("controls", {}).items()}
    rows |= {f"baseline {name}": row for name, row in summary["baselines"].items()}
    for name, row in rows.items():
        title = name.replace("_", " ")
        lines.append(f"{title:<26}{number(row['mean_dice'], 3):>10}{number(row['pixel_accuracy'], 4):>16}")
    if interval := summary["mean_dice_ci95"]:
        lines[1] += f"  95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return lines


def _dataset_table(datasets: Mapping[str, Mapping], labels: LabelSet) -> list[str]:
    shown = labels.foreground
    wide = max(16, *(len(name) + 2 for name in datasets))
    lines = [f"{'mean Dice on':<{wide}}" + "".join(f"{s.short:>7}" for s in shown) + f"{'mean':>8}{'patients':>10}"]
    for name, row in datasets.items():
        cells = "".join(f"{number(row['structures'][s.name]['dice'], 3):>7}" for s in shown)
        lines.append(f"{name:<{wide}}{cells}{number(row['mean_dice'], 3):>8}{row['patients']:>10}")
    return lines


def _patient_table(summary: Mapping, labels: LabelSet) -> list[str]:
    patients, shown = summary["by_patient"], labels.foreground
    wide = max(10, *(len(key) + 2 for key in patients))
    lines = [f"{'Dice of':<{wide}}" + "".join(f"{s.short:>7}" for s in shown) + f"{'mean':>8}{'slices':>8}"]
    for key, row in patients.items():
        cells = "".join(f"{number(row['dice'][s.name], 3):>7}" for s in shown)
        lines.append(f"{key:<{wide}}{cells}{number(row['mean_dice'], 3):>8}{row['slices']:>8}")
    return lines


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """Return a number for a table, `-` where there is none."""
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _plain(value):
    """Return numpy's numbers as what JSON has, and what is not finite as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
