"""Which confidence finds the bad structures: area under the risk-coverage curve of several, on patients not trained on.

python benchmarks/confidence.py --members=RUN[,RUN...] [--members=RUN[,RUN...]] [--data=DATASET] [--split=test]
    [--part=NAME] [--per=patient|slice] [--json=FILE]

Each --members is one model: a run, or several whose probabilities are averaged, scored on the test patients of its own
dataset or on DATASET; of several joined datasets only on those of --part. Give it once per fold of a leave-one-patient-
out: the cases of all are ranked together. A case is a structure in a patient (or a slice), which truth or prediction
has; its risk is 1 - Dice. Structures that a source does not label by themselves are left out. Confidences of what is
not predicted at all are the lowest, 0:

max_probability  mean over the structure's pixels of the largest class probability
entropy          1 - mean entropy of the class probabilities there, as a share of log(classes)
soft_dice        2 sum(p m) / (sum(p) + sum(m)) of its probability p and its predicted mask m: the Dice to expect
members          mean Dice over pairs of the members' masks, where there are several
views            the same over the test-time views of the first member (seven passes of one network)
structure        for comparison: the structure's mean Dice in the other cases, knowing nothing of this one
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from heartseg_jax.anatomy import IGNORED, merge_labels
from heartseg_jax.evaluation.report import number
from heartseg_jax.evaluation.risk_coverage import risk_at, risk_coverage
from heartseg_jax.files import write_json
from heartseg_jax.inference.agreement import mean_pairwise_dice
from heartseg_jax.inference.predictor import Predictor
from heartseg_jax.inference.slices import merged, predict_slices
from heartseg_jax.verbs.evaluate import _patients
from heartseg_jax.verbs.models import load_models

KEPT = 0.8
"""Coverage at which the remaining risk is shown."""


class Case(NamedTuple):
    """One structure in one patient or slice: its Dice, and each confidence by name."""

    unit: str
    structure: str
    dice: float
    confidences: dict[str, float]


class _Sums(NamedTuple):
    """Per class, over the slices of a unit: counts of pixels and sums of probabilities, and what members share."""

    counts: dict[str, np.ndarray]
    shared: dict[str, np.ndarray]


def cases_of(
    runs: list[Path], data: str | None, split: str | None, per: str, part: str | None = None
) -> Iterator[Case]:
    """Yield the cases of one model: the mean of its runs, on the patients that are asked for."""
    mean, contract, config = load_models(runs)
    predictors = {"members": mean, "views": load_models(runs[:1], views=True)[0]}
    predictors = {name: found._replace(batch_size=1) for name, found in predictors.items()}  # slices are kept apart
    asked = [_patients(run, config, contract, data, split) for run in runs]
    for warning in sorted({warning for patients in asked for warning in patients.warnings}):
        print(f"WARNING {warning}", file=sys.stderr)
    dataset, used = asked[0].dataset, asked[0].split
    for position, slices in dataset.slices_of(used).items():
        patient = dataset.patients[position]
        if part is not None and dataset.part_of(patient).name != part:
            continue
        spec, _ = contract.input.for_intensity(dataset.part_of(patient).intensity)
        images, truth = dataset.images(patient), np.asarray(dataset.labels(patient)[slices])
        given = spec, images, slices, patient.spacing_mm, patient.contiguous
        found = [_slice(*row, patient.merge) for row in zip(truth, *_outputs(predictors, given), strict=True)]
        units = [[one] for one in found] if per == "slice" else [found]
        names = [f"{patient.id} {patient.slice_name(z)}" for z in slices] if per == "slice" else [patient.id]
        for name, parts in zip(names, units, strict=True):
            yield from _cases(name, parts, dataset.label_set, patient.merge)


def _outputs(predictors: dict[str, Predictor], given: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Return for each slice the mean's probabilities `[H, W, K]`, and what members and views share, by name."""
    shared: dict[str, list[np.ndarray]] = {name: [] for name in predictors}
    found = [part[0] for part in predict_slices(predictors["members"], *given, shared["members"])]
    for _ in predict_slices(predictors["views"], *given, shared["views"]):
        pass
    by_slice = [{name: each[i] for name, each in shared.items() if each} for i in range(len(found))]
    return found, by_slice


def _slice(truth: np.ndarray, probabilities: np.ndarray, shared: dict[str, np.ndarray], merge: tuple) -> _Sums:
    """Return the sums of one slice."""
    p = merged(probabilities, merge).astype(np.float64)
    classes, labels = p.shape[-1], p.argmax(axis=-1)
    own = merge_labels(np.where(truth == IGNORED, 0, truth), merge)
    counted = truth != IGNORED
    of = lambda where, weights=None: np.bincount(where.ravel(), weights, minlength=classes)  # noqa: E731
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1) / np.log(classes)
    counts = {
        "true": of(own[counted]),
        "predicted": of(labels[counted]),
        "both": of(own[counted & (own == labels)]),
        "pixels": of(labels),
        "largest": of(labels, p.max(axis=-1).ravel()),
        "entropy": of(labels, entropy.ravel()),
        "all": p.sum(axis=(0, 1)),
    }
    return _Sums(counts, shared)


def _cases(unit: str, parts: list[_Sums], labels: Any, merge: tuple) -> Iterator[Case]:
    """Yield the cases of one unit from the sums of its slices."""
    s = {name: sum(part.counts[name] for part in parts) for name in parts[0].counts}
    agreement = {name: mean_pairwise_dice(sum(part.shared[name] for part in parts)) for name in parts[0].shared}
    for structure in labels.foreground:
        k = structure.label
        alone = merge[k] == k and merge.count(k) == 1
        if not alone or s["true"][k] + s["predicted"][k] == 0:
            continue
        pixels = s["pixels"][k]
        there = pixels > 0
        # The pixels of the mask are those in which it has the largest probability.
        confidences = {
            "max_probability": s["largest"][k] / pixels if there else 0.0,
            "entropy": 1 - s["entropy"][k] / pixels if there else 0.0,
            "soft_dice": 2 * s["largest"][k] / (s["all"][k] + pixels) if there else 0.0,
            **{name: float(np.nan_to_num(dice[k])) if there else 0.0 for name, dice in agreement.items()},
        }
        dice = 2 * s["both"][k] / (s["true"][k] + s["predicted"][k])
        yield Case(unit, structure.name, float(dice), {name: float(value) for name, value in confidences.items()})


def with_prior(cases: list[Case]) -> list[Case]:
    """Return the cases with the confidence `structure`: the mean Dice of the same structure in the others."""
    dice = defaultdict(list)
    for case in cases:
        dice[case.structure].append(case.dice)
    everywhere = float(np.mean([case.dice for case in cases]))

    def prior(case: Case) -> float:
        own = dice[case.structure]
        return (sum(own) - case.dice) / (len(own) - 1) if len(own) > 1 else everywhere

    return [case._replace(confidences=case.confidences | {"structure": prior(case)}) for case in cases]


def compare(cases: list[Case]) -> list[dict[str, Any]]:
    """Return a row per confidence, chance and oracle first: its area, over all cases and within structures."""
    risks = np.array([1 - case.dice for case in cases])
    groups = [np.array([c.structure == name for c in cases]) for name in sorted({c.structure for c in cases})]
    confidences = {
        "chance": np.zeros(len(cases)),
        "oracle": -risks,
        # In some folds there may be one member, in others several: only what all cases have is compared.
        **{
            name: np.array([case.confidences[name] for case in cases])
            for name in cases[0].confidences
            if all(name in case.confidences for case in cases)
        },
    }
    rows = []
    for name, values in confidences.items():
        found = risk_coverage(risks, values)
        within = [risk_coverage(risks[group], values[group]).aurc for group in groups]
        rows.append(
            {
                "confidence": name,
                "aurc": found.aurc,
                "gain": found.gain,
                "risk_at_80": risk_at(KEPT, risks, values),
                "aurc_within_structures": float(np.mean(within)),
            }
        )
    return rows


def main(argv: list[str]) -> None:
    """Predict, compare, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--members", action="append", required=True, metavar="RUN[,RUN...]")
    parser.add_argument("--data", help="another dataset than the runs' own; all of its patients")
    parser.add_argument(
        "--split", choices=("train", "validation", "test", "all"), help="default: test; with --data: all"
    )
    parser.add_argument("--part", help="of several joined datasets, the name of the only one to score")
    parser.add_argument("--per", choices=("patient", "slice"), default="patient")
    parser.add_argument("--json", type=Path, help="also write the rows and every case here")
    asked = parser.parse_args(argv)
    models = [[Path(run) for run in group.split(",")] for group in asked.members]
    cases = with_prior(
        [case for runs in models for case in cases_of(runs, asked.data, asked.split, asked.per, asked.part)]
    )
    if not cases:
        raise SystemExit("no case: neither truth nor prediction has a structure")
    rows = compare(cases)
    units = len({case.unit for case in cases})
    mean = np.mean([case.dice for case in cases])
    print(f"{len(cases)} cases (structures in {units} {asked.per}{'s' * (units != 1)}), mean Dice {mean:.3f}\n")
    print("| confidence | AURC | gain | risk at 80 % coverage | AURC within structures |\n|---|---|---|---|---|")
    for row in rows:
        cells = [number(row[key], 3) for key in ("aurc", "gain", "risk_at_80", "aurc_within_structures")]
        print(f"| {row['confidence']} | {' | '.join(cells)} |")
    if asked.json:
        write_json(asked.json, {"confidences": rows, "cases": [case._asdict() for case in cases]})


if __name__ == "__main__":
    main(sys.argv[1:])
