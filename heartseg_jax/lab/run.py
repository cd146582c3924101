"""One job of the laboratory: an arm trained on every fold with one seed. Each fold's result is a JSON file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from heartseg_jax.anatomy import LABEL_SETS, LabelSet
from heartseg_jax.config import load
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.data.examples import SliceStore, batch_at
from heartseg_jax.errors import UserError
from heartseg_jax.evaluation import metrics
from heartseg_jax.files import read_json, write_json
from heartseg_jax.inference.dataset import predict_split
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.lab.arms import Fold, Job, arm_config, folds_of, inner_fold, rates_of
from heartseg_jax.lab.ensemble_training import Outcome, Program, Replica, train_replicas
from heartseg_jax.models.registry import build_model
from heartseg_jax.preprocess.contract import input_spec
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.progress import say
from heartseg_jax.training import initial_weights, phases, steps

FIELDS: dict[str, tuple[type, ...]] = {
    "arm": (str,),
    "split": (str,),
    "train_patients": (int,),
    "seed": (int,),
    "fold": (str,),
    "patients": (dict,),
    "fit_dice": (int, float, type(None)),
    "curve": (list,),
    "seconds": (int, float),
    "stopped": (str, type(None)),
    "all_background": (bool,),
    "proofs": (list,),
}
"""What a result must hold to be shown."""


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a result, or None where there is none that can be used."""
    try:
        found: dict[str, Any] = read_json(path)
        if not all(isinstance(found[name], kinds) for name, kinds in FIELDS.items()):
            return None
        counts = [np.asarray(table) for table in found["patients"].values()]
        points = [[number is None or float(number) for number in point] for point in found["curve"]]
        proven = all(isinstance(proof["identical"], bool) for proof in found["proofs"])
    except (UserError, KeyError, TypeError, ValueError):
        return None
    square = all(c.ndim == 2 and c.shape[0] == c.shape[1] and c.dtype.kind == "i" for c in counts)
    usable = square and proven and points and all(len(point) == 3 for point in points)
    return found if usable else None


def read_results(folder: Path) -> dict[Path, dict[str, Any] | None]:
    """Return the result of every file of a folder, None where it is damaged."""
    return {file: read_result(file) for file in sorted(folder.glob("*.json"))}


def missing_folds(dataset: Dataset, job: Job, folder: Path) -> list[Fold]:
    """Return the folds of a job that have no result yet; a damaged one counts as missing."""
    return [fold for fold in folds_of(dataset, job) if read_result(folder / job.file(fold.name)) is None]


def program_of(config: FrozenConfigDict) -> Program:
    """Return what all folds of an arm with this config share."""
    model = build_model(config.model, LABEL_SETS[config.data.task])
    return Program(config, model, phases.plan(config.transfer, config.model.levels, config.train.steps))


def replica_of(program: Program, fold: Fold, seed: int) -> Replica:
    """Return one training: its slices, and its weights before step 1."""
    config, model = program.config, program.model
    spec = input_spec(config.data, fold.dataset.intensity)
    seen, unseen = (SliceStore(fold.dataset, split, spec, config.data.cache_gb) for split in ("train", "test"))
    drawn = steps.init_params(model, jax.random.key(seed), config.data.size, len(spec.channels))

    def first_batches(count: int) -> Iterator[Batch]:
        return (batch_at(seen, seed, step, config.data.batch_size) for step in range(count))

    params, batch_stats, _ = initial_weights.start(config, model, *drawn, first_batches)
    return Replica(seen, unseen, seed, params, batch_stats)


def run_job(config: FrozenConfigDict, dataset: Dataset, job: Job, folder: Path, together: bool) -> None:
    """Train what is still missing of a job and write a result for each fold."""
    arm = arm_config(config, job.arm)
    programs = {rate: program_of(load.changed(arm, {"train.learning_rate": rate})) for rate in rates_of(config)}
    missing = missing_folds(dataset, job, folder)
    for group in [missing] if together and missing else [[fold] for fold in missing]:
        chosen = [_choose(programs, fold, job) for fold in group]
        for rate in sorted(set(chosen)):
            some = [fold for fold, own in zip(group, chosen, strict=True) if own == rate]
            began = time.perf_counter()
            replicas = [replica_of(programs[rate], fold, job.seed) for fold in some]
            outcomes = train_replicas(programs[rate], replicas, config.lab.looks, together)
            for fold, replica, outcome in zip(some, replicas, outcomes, strict=True):
                record = result_of(job, fold, programs[rate], replica, outcome)
                record["learning_rate"] = rate
                record["wall_s"] = round((time.perf_counter() - began) / len(some), 2)
                write_json(folder / job.file(fold.name), record)
                say(f"{job.file(fold.name)}: {_brief(record, dataset.label_set)}")


def _choose(programs: dict[float, Program], fold: Fold, job: Job) -> float:
    """Return the learning rate that scores best on one of the training patients, left out for the choice."""
    if len(programs) == 1:
        return next(iter(programs))
    inner, scores = inner_fold(fold), {}
    for rate, program in programs.items():
        (outcome,) = train_replicas(program, [replica_of(program, inner, job.seed)], 1, False)
        dice = outcome.curve[-1][2]
        scores[rate] = -1.0 if outcome.stopped is not None or np.isnan(dice) else dice
    return max(scores, key=lambda rate: scores[rate])


def result_of(job: Job, fold: Fold, program: Program, replica: Replica, outcome: Outcome) -> dict[str, Any]:
    """Return a fold's result: counts of every unseen slice on its own grid, the learning curve, the proofs."""
    dataset, patients, predicted, true, total = fold.dataset, {}, 0, 0, 0
    if outcome.stopped is None:
        predictor = make_predictor(
            program.model, [(outcome.params, outcome.batch_stats)], program.config.data.batch_size
        )
        for found in predict_split(predictor, dataset, "test", replica.unseen.spec):
            patient = dataset.patients[found.patient]
            truth = np.asarray(dataset.labels(patient)[found.slices])
            counts = metrics.confusion(truth, found.labels, dataset.label_set, patient.merge)
            patients[patient.id] = counts.tolist()
            predicted += int(counts[:, 1:].sum())
            true += int(counts[1:].sum())
            total += int(counts.sum())
    return {
        **job._asdict(),
        "fold": fold.name,
        "train_slices": len(replica.examples),
        "test_slices": len(replica.unseen),
        "steps": program.phases[-1].end,
        "patients": patients,
        "fit_dice": _finite(outcome.curve[-1][1]),
        "curve": [[step, _finite(seen), _finite(unseen)] for step, seen, unseen in outcome.curve],
        "seconds": round(outcome.seconds, 2),
        "stopped": outcome.stopped,
        # A mask without structures is a finding of its own, whatever the accuracy.
        "all_background": bool(patients) and predicted < 0.02 * true,
        "background_share": 1 - true / total if total else None,
        "proofs": outcome.proofs,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _brief(record: dict[str, Any], labels: LabelSet) -> str:
    if record["stopped"]:
        return f"STOPPED: {record['stopped']}"
    counts = [np.asarray(matrix) for matrix in record["patients"].values()]
    unseen, trained = (
        "no" if dice is None else f"{dice:.3f}" for dice in (metrics.mean_dice(counts, labels), record["fit_dice"])
    )
    black = "  ALL BACKGROUND" if record["all_background"] else ""
    return f"Dice {unseen} unseen, {trained} trained, {record['wall_s']:.0f} s{black}"
