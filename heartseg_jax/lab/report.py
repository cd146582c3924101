"""What the laboratory found: scores by arm, patient and seed, the paired comparison, as JSON, a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.evaluation import baselines, metrics
from heartseg_jax.evaluation.report import number
from heartseg_jax.figures import lab as figure
from heartseg_jax.files import write_json, write_text
from heartseg_jax.lab.arms import HEART, Job, folds_of

AGREEING = 5
"""Patients who must agree before a direction is named: two-sided, five that do have p = 2 / 2^5 = 0.06."""
CONTROLS = ("scratch_deep", "random_frozen")
"""What an arm must beat before anything is said in favour of the brain's weights."""
BESIDE_HEART = ("brain_full", "synthetic_full")
"""What the heart model is compared with as well: other weights, above which everything learns too."""


def build(results: Sequence[Mapping[str, Any]], jobs: Sequence[Job], dataset: Dataset) -> dict[str, Any]:
    """Return the report of all finished runs of `jobs`.

    `settings` has an entry for each way to split and number of training patients: its arms, the baselines, and the
    paired comparison with the controls. A patient's Dice pools the slices of the patient that were left out,
    whichever fold left them out.
    """
    found = []
    asked = set(jobs)
    ids = [patient.id for patient in dataset.patients]
    results = [r for r in results if Job(r["arm"], r["split"], r["train_patients"], r["seed"]) in asked]
    for split, count in dict.fromkeys((job.split, job.train_patients) for job in jobs):
        own = [r for r in results if r["split"] == split and r["train_patients"] == count]
        wanted = list(dict.fromkeys(job.arm for job in jobs if (job.split, job.train_patients) == (split, count)))
        arms = {arm: arm_row([r for r in own if r["arm"] == arm], dataset.label_set) for arm in wanted}
        arms = {arm: row for arm, row in arms.items() if row}
        found.append(
            {
                "split": split,
                "train_patients": count,
                "arms": arms,
                "baselines": _baselines(dataset, jobs, split, count),
                "compared": {
                    control: {arm: compare(row, arms[control], ids) for arm, row in arms.items() if arm != control}
                    for control in CONTROLS
                    if control in arms
                }
                | {
                    control: {HEART: compare(arms[HEART], arms[control], ids)}
                    for control in BESIDE_HEART
                    if control in arms and HEART in arms
                },
            }
        )
    return {"patients": ids, "settings": found}


def arm_row(results: Sequence[Mapping[str, Any]], labels: LabelSet) -> dict[str, Any]:
    """Return one arm's row: Dice by patient and seed, means, time, and the steps to 90 % of its best.

    A patient's Dice is the mean over the patient's structures; `mean_of_patients` is the mean of these, since arms are
    compared patient by patient. It is not the `mean_dice` of a summary, which averages over patients first.
    """
    if not results:
        return {}
    seeds = sorted({r["seed"] for r in results})
    patients: dict[str, dict[int, float | None]] = {}
    for seed in seeds:
        pooled: dict[str, np.ndarray] = {}
        for result in results:
            if result["seed"] == seed:
                for patient, counts in result["patients"].items():
                    pooled[patient] = pooled.get(patient, 0) + np.asarray(counts, np.int64)
        for patient, counts in pooled.items():
            patients.setdefault(patient, {})[seed] = metrics.mean_dice([counts], labels)
    by_patient = {patient: _mean(by_seed.values()) for patient, by_seed in patients.items()}
    by_seed = {seed: _mean(p[seed] for p in patients.values() if seed in p) for seed in seeds}
    return {
        "patients": {p: {str(s): v for s, v in by.items()} for p, by in sorted(patients.items())},
        "by_patient": dict(sorted(by_patient.items())),
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
        "mean_of_patients": _mean(by_patient.values()),
        "fit_dice": _mean(r["fit_dice"] for r in results),
        "fit_dice_lowest": min((r["fit_dice"] for r in results if r["fit_dice"] is not None), default=None),
        "seconds": _mean(r["seconds"] for r in results),
        "steps_to_90": _mean(steps_to(r["curve"], 0.9) for r in results),
        "runs": len(results),
        "stopped": [f"{r['fold']}, seed {r['seed']}: {r['stopped']}" for r in results if r["stopped"]],
        "all_background": [f"{r['fold']}, seed {r['seed']}" for r in results if r["all_background"]],
        "frozen_proven": all(p["identical"] for r in results for p in r["proofs"]),
    }


def steps_to(curve: Sequence[Sequence[Any]], share: float) -> float | None:
    """Return the first looked-at step whose Dice on the training slices is `share` of the best of its curve."""
    best = max((row[1] for row in curve if row[1] is not None), default=None)
    if best is None or best == 0:
        return None  # 90 % of nothing is reached at once, which would be read as the fastest of all
    return next(float(row[0]) for row in curve if row[1] is not None and row[1] >= share * best)


def compare(row: Mapping[str, Any], control: Mapping[str, Any], patients: Sequence[str]) -> dict[str, Any]:
    """Compare an arm with a control patient by patient.

    A difference counts as beyond the seeds where every seed's value of one arm lies on the same side of every seed's
    value of the other, and both have two seeds at least: one has no spread to be beyond. A direction is named only
    where all of `patients` agree so and there are `AGREEING` or more; a patient whose run was stopped does not agree.
    """
    differences, beyond = {}, {}
    for patient in patients:
        mine = [v for v in row["patients"].get(patient, {}).values() if v is not None]
        theirs = [v for v in control["patients"].get(patient, {}).values() if v is not None]
        if mine and theirs:
            differences[patient] = sum(mine) / len(mine) - sum(theirs) / len(theirs)
            apart = min(len(mine), len(theirs)) > 1
            beyond[patient] = 0 if not apart else 1 if min(mine) > max(theirs) else -1 if max(mine) < min(theirs) else 0
    signs = set(beyond.values())
    agreed = len(signs) == 1 and len(beyond) == len(patients) >= AGREEING
    direction = {1: "better", -1: "worse"}.get(next(iter(signs)), "none") if agreed else "none"
    return {
        "differences": differences,
        "mean_difference": _mean(differences.values()),
        "higher": sum(d > 0 for d in differences.values()),
        "lower": sum(d < 0 for d in differences.values()),
        "sign_test_p": sign_test(list(differences.values())),
        "direction": direction,
    }


def sign_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the sign test: ties are left out (Dixon and Mood, J Am Stat Assoc 1946)."""
    signs = [d > 0 for d in differences if d != 0]
    return float(binomtest(sum(signs), len(signs)).pvalue) if signs else None


def _baselines(dataset: Dataset, jobs: Sequence[Job], split: str, count: int) -> dict[str, dict[str, float | None]]:
    """Return each baseline's Dice by patient, mean over seeds: counted as the arms are, slices pooled over folds."""
    found: dict[str, dict[str, list[float | None]]] = {}
    alike = {job.seed: job for job in jobs if (job.split, job.train_patients) == (split, count)}
    for job in alike.values():
        pooled: dict[tuple[str, str], np.ndarray] = {}
        for fold in folds_of(dataset, job):
            for patient, slices, predictions in baselines.predict_split(fold.dataset, "test"):
                truth = np.asarray(dataset.labels(patient)[slices])
                for name, labels in predictions.items():
                    key = (name, patient.id)
                    counts = metrics.confusion(truth, labels, dataset.label_set, patient.merge)
                    pooled[key] = pooled.get(key, 0) + counts
        for (name, identity), counts in pooled.items():
            found.setdefault(name, {}).setdefault(identity, []).append(metrics.mean_dice([counts], dataset.label_set))
    return {name: {p: _mean(values) for p, values in by.items()} for name, by in found.items()}


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write `report.json`, `table.md` and `arms.png`."""
    write_json(path / "report.json", report)
    write_text(path / "table.md", table(report) + "\n")
    figure.arms(report, path / "arms.png")


def table(report: Mapping[str, Any]) -> str:
    """Lay the report out as Markdown."""
    lines: list[str] = []
    for setting in report["settings"]:
        lines += [*_setting(report["patients"], setting), ""]
    return "\n".join(lines).rstrip()


def _setting(patients: Sequence[str], setting: Mapping[str, Any]) -> list[str]:
    by_patient = setting["split"] == "patient"
    trained = f"trained on {setting['train_patients'] or 'all the other'} patients"
    title = f"Each patient left out in turn, {trained}" if by_patient else "Split by slice: every patient trained on"
    head = ["arm", *patients, "mean of patients", "trained slices", "s per run", "steps to 90 %"]
    rows = []
    for arm, row in setting["arms"].items():
        notes = [f"stopped: {'; '.join(row['stopped'])}"] if row["stopped"] else []
        notes += [f"all background: {'; '.join(row['all_background'])}"] if row["all_background"] else []
        scores = [_seeds(row["patients"].get(patient, {})) for patient in patients]
        means = [f"**{number(row['mean_of_patients'])}**", number(row["fit_dice"])]
        times = [number(row["seconds"], 0), number(row["steps_to_90"], 0)]
        rows.append([f"{arm} ({'; '.join(notes)})" if notes else arm, *scores, *means, *times])
    for name, folds in setting["baselines"].items():
        scores = [number(folds.get(patient)) for patient in patients]
        rows.append([f"*{name.replace('_', ' ')}*", *scores, number(_mean(folds.values())), "-", "-", "-"])
    lines = [f"### {title}", "", *_grid(head, rows)]
    if not by_patient:
        return lines
    for control, compared in setting["compared"].items():
        head = ["against " + control, *patients, "mean", "higher in", "p (sign test)", "direction"]
        rows = []
        for arm, row in compared.items():
            differences = [number(row["differences"].get(patient), sign=True) for patient in patients]
            agreeing = f"{row['higher']} of {len(row['differences'])}"
            mean, p = number(row["mean_difference"], sign=True), number(row["sign_test_p"])
            rows.append([arm, *differences, mean, agreeing, p, row["direction"]])
        lines += ["", *_grid(head, rows)]
    return [
        *lines,
        "",
        f"A direction is named only where all {len(patients)} patients agree beyond the seeds' spread, and from "
        f"{AGREEING} patients on: five that agree have p = 0.06, two-sided.",
    ]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return [first, "|---" * len(head) + "|", *others]


def _seeds(values: Mapping[str, float | None]) -> str:
    known = [value for value in values.values() if value is not None]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    return f"{mean:.2f}" + (f" ({min(known):.2f} to {max(known):.2f})" if len(known) > 1 else "")
