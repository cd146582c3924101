"""What more looks and more models are worth, on the patients that each of several folds left out: no training.

python benchmarks/inference_choices.py --members=RUN[,RUN...] [--members=RUN[,RUN...]] [--looks=0.5,0.7]
    [--part=NAME] [--json=FILE] [--output=DIR]

Each --members is one fold: a run, or several whose probabilities are averaged, scored on the test patients of its own
dataset. Give it once per fold of a leave-one-patient-out. Every run is scored alone and, where there are several, their
mean; each of these with the looks asked for (`data.closer`; 'none' is one look alone), once per --looks. A row is a
choice; of a dataset in which every fold left out patients of its own the patients' means are shown, of one whose
patients all folds share each structure's lowest and highest mean over the folds. --part keeps it to one dataset.
With --output, `table.md` and `by_patient.png` show each left-out patient's structures by the last choice.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.patient_figure import by_patient
from heartseg_jax.anatomy import LabelSet
from heartseg_jax.config.words import closer_of
from heartseg_jax.evaluation.metrics import PatientScore, score_patient, summarise
from heartseg_jax.evaluation.report import number
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.files import write_json
from heartseg_jax.inference.dataset import predict_split
from heartseg_jax.native.library import turn_on
from heartseg_jax.verbs.evaluate import _patients
from heartseg_jax.verbs.models import load_models

NO_LOOK = "none"


Scores = dict[str, dict[str, PatientScore]]
"""Dataset -> patient -> its score."""


def scores_of(runs: list[Path], looks: tuple[float, ...] | None, part: str | None) -> tuple[Scores, str, LabelSet]:
    """Return what the mean of `runs` scores on their test patients, its looks, and the structures."""
    predictor, contract, config = load_models(runs)
    spec = contract.input if looks is None else dataclasses.replace(contract.input, closer=looks)
    dataset = _patients(runs[0], config, contract, None, "test").dataset
    if part is not None:
        wanted = tuple(p for p in dataset.patients if dataset.part_of(p).name == part)
        dataset = dataclasses.replace(dataset, patients=wanted)
    scores: Scores = defaultdict(dict)
    for found in predict_split(predictor, dataset, "test", spec):
        patient = dataset.patients[found.patient]
        truth = np.asarray(dataset.labels(patient)[found.slices])
        score = score_patient(truth, found.labels, dataset.label_set, patient.merge, None, False)
        scores[dataset.part_of(patient).name][patient.id] = score
    return scores, ", ".join(f"{share:g}" for share in spec.closer) or NO_LOOK, dataset.label_set


def main(argv: list[str]) -> None:
    """Score every choice on every fold, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--members", action="append", required=True, metavar="RUN[,RUN...]")
    parser.add_argument("--looks", action="append", metavar="SHARES", help=f"'{NO_LOOK}', or such as 0.5,0.7")
    parser.add_argument("--part", help="of several joined datasets, the name of the only one to score")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--output", type=Path, help="folder for the table and the figure of the last choice")
    asked = parser.parse_args(argv)
    turn_on()  # as in a run
    folds = [[Path(run) for run in group.split(",")] for group in asked.members]
    if len({len(runs) for runs in folds}) > 1:
        parser.error("every --members must name as many runs")
    count = len(folds[0])
    wanted: list[tuple[float, ...] | None] = [None]
    if asked.looks:
        wanted = [closer_of(text.split(",") if text != NO_LOOK else ()) for text in asked.looks]
    groups = {f"run {k + 1}": [[runs[k]] for runs in folds] for k in range(count)} if count > 1 else {"run": folds}
    if count > 1:
        groups[f"mean of {count}"] = folds
    rows = []
    for called, models in groups.items():
        for looks in wanted:
            row = {"models": called}
            by_fold = []
            for runs in models:
                print(f"scoring {called} of {' and '.join(map(str, runs))}", file=sys.stderr)
                scores, row["looks"], labels = scores_of(runs, looks, asked.part)
                by_fold.append(scores)
            rows.append(row | _row(by_fold, labels))
    if len({tuple(row) for row in rows}) > 1:
        raise SystemExit("the runs of a fold have different test patients: each must have left out the same ones")
    names = list(rows[0])
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    if asked.json:
        write_json(asked.json, {"choices": rows})
    if asked.output:
        _show(_left_out(by_fold), labels, asked.output)


def _left_out(by_fold: list[Scores]) -> dict[str, PatientScore]:
    """Return the scores of the patients that one fold alone has."""
    found = [{name: set(own) for name, own in scores.items()} for scores in by_fold]
    return {
        patient: score
        for scores in by_fold
        for name, own in scores.items()
        if len(by_fold) == 1 or any(one[name] != set(own) for one in found)
        for patient, score in own.items()
    }


def _show(scores: dict[str, PatientScore], labels: LabelSet, output: Path) -> None:
    """Write a row per patient and a column per structure, and the figure of the same."""
    shorts = [structure.short for structure in labels.foreground]
    lines = [f"| left out | slices | {' | '.join(shorts)} | mean Dice |", f"|---|---|{'---|' * (len(shorts) + 1)}"]
    cases, means = [], []
    columns: dict[str, list[float]] = defaultdict(list)
    for patient, score in scores.items():
        own = summarise({patient: score}, labels)
        dice = {s.name: own["structures"][s.name]["dice"] for s in labels.foreground}
        cells = [number(value) for value in (*dice.values(), own["mean_dice"])]
        lines.append(f"| {patient.rpartition('/')[2]} | {score.slices} | {' | '.join(cells)} |")
        means.append(own["mean_dice"])
        for name, value in dice.items():
            cases.append({"patient": patient.rpartition("/")[2], "structure": name, "dice": value})
            columns[name] += [] if value is None else [value]
    total = [number(float(np.mean(columns[s.name])) if columns[s.name] else None) for s in labels.foreground]
    slices = sum(score.slices for score in scores.values())
    lines.append(f"| **mean** | {slices} | {' | '.join(total)} | **{number(float(np.mean(means)), 3)}** |")
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text("\n".join(lines) + "\n")
    by_patient(cases, output / "by_patient.png", Palette(labels, "display"), title="Each patient left out in turn")


def _row(by_fold: list[Scores], labels: LabelSet) -> dict[str, str]:
    """Return the cells of one choice."""
    cells: dict[str, str] = {}
    for name in by_fold[0]:
        own = [scores[name] for scores in by_fold]
        if len(own) > 1 and all(set(one) == set(own[0]) for one in own):
            for structure in labels.foreground:
                found = [summarise(one, labels)["structures"][structure.name]["dice"] for one in own]
                if all(dice is not None for dice in found):
                    low, high = number(min(found), 3), number(max(found), 3)
                    cells[f"{name}: {structure.short}"] = low if low == high else f"{low} to {high}"
            continue
        scores = {patient: score for one in own for patient, score in one.items()}
        every = {patient: summarise({patient: score}, labels)["mean_dice"] for patient, score in scores.items()}
        means = [dice for dice in every.values() if dice is not None]
        cells |= {patient: number(dice, 2) for patient, dice in every.items()}
        cells[f"{name}: mean"] = number(float(np.mean(means)) if means else None, 3)
    return cells


if __name__ == "__main__":
    main(sys.argv[1:])
