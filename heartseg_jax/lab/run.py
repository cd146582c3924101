"""One job of the laboratory: an arm trained on every fold with one seed, each fold's result a JSON file of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from heartseg_jax.anatomy import LABEL_SETS, LabelSet
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.data.examples import SliceStore, batch_at
from heartseg_jax.evaluation import metrics
from heartseg_jax.files import write_json
from heartseg_jax.inference.dataset import predict_split
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.lab.arms import Fold, Job, arm_config, inner_fold
from heartseg_jax.lab.ensemble_training import Outcome, Program, Replica, train_replicas
from heartseg_jax.lab.results import missing_folds, path_of
from heartseg_jax.models.registry import build_model
from heartseg_jax.preprocess.augment import PRESETS
from heartseg_jax.preprocess.contract import input_spec
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.progress import say
from heartseg_jax.training import initial_weights, phases, steps


def program_of(config: FrozenConfigDict, rate: float | None = None) -> Program:
    """Return what all folds of an arm share; `rate` in place of the config's learning rate."""
    train = config.train
    if rate is not None:
        train = FrozenConfigDict({**dict(train.items()), "learning_rate": rate})
    planned = phases.plan(config.transfer, config.model.levels, train.steps)
    return Program(
        build_model(config.model, LABEL_SETS[config.data.task]),
        train,
        PRESETS[config.data.augment],
        planned,
        train.steps,
        config.transfer.rewarm_steps,
        config.data.batch_size,
    )


def replica_of(config: FrozenConfigDict, program: Program, fold: Fold, seed: int) -> Replica:
    """Return one training: its slices, and its weights before step 1."""
    spec = input_spec(config.data, fold.dataset.intensity)
    seen, unseen = (SliceStore(fold.dataset, split, spec, config.data.cache_gb) for split in ("train", "test"))
    params, batch_stats = steps.init_params(program.model, jax.random.key(seed), config.data.size, len(spec.channels))
    replica = Replica(seen, unseen, seed, params, batch_stats)

    def first_batches(count: int) -> Iterator[Batch]:
        return (batch_at(seen, seed, step, program.batch_size) for step in range(count))

    params, batch_stats, _ = initial_weights.start(config, program.model, params, batch_stats, first_batches)
    return replica._replace(params=params, batch_stats=batch_stats)


def run_job(config: FrozenConfigDict, dataset: Dataset, job: Job, folder: Path, together: bool) -> None:
    """Train what is still missing of a job and write a result for each fold."""
    arm = arm_config(config, job.arm)
    missing = missing_folds(dataset, job, folder)
    rates = [float(text) for text in config.lab.learning_rates] or [arm.train.learning_rate]
    for group in [missing] if together and missing else [[fold] for fold in missing]:
        chosen = [_choose(arm, fold, job, rates) for fold in group]
        for rate in sorted(set(chosen)):
            some = [fold for fold, own in zip(group, chosen, strict=True) if own == rate]
            program = program_of(arm, rate)
            began = time.perf_counter()
            replicas = [replica_of(arm, program, fold, job.seed) for fold in some]
            outcomes = train_replicas(program, replicas, config.lab.looks, together)
            for fold, replica, outcome in zip(some, replicas, outcomes, strict=True):
                record = result_of(job, fold, program, replica, outcome)
                record["learning_rate"] = rate
                record["wall_s"] = round((time.perf_counter() - began) / len(some), 2)
                write_json(path_of(folder, job, fold), record)
                say(f"{job.name(fold.name)}: {_brief(record, dataset.label_set)}")


def _choose(arm: FrozenConfigDict, fold: Fold, job: Job, rates: list[float]) -> float:
    """Return the learning rate that scores best on one of the training patients, left out for the choice."""
    if len(rates) == 1:
        return rates[0]
    inner = inner_fold(fold)
    scores = []
    for rate in rates:
        program = program_of(arm, rate)
        (outcome,) = train_replicas(program, [replica_of(arm, program, inner, job.seed)], 1, False)
        dice = outcome.curve[-1][2]
        scores.append(-1.0 if outcome.stopped is not None or np.isnan(dice) else dice)
    return rates[int(np.argmax(scores))]


def result_of(job: Job, fold: Fold, program: Program, replica: Replica, outcome: Outcome) -> dict[str, Any]:
    """Return a fold's result: counts of every unseen slice on its own grid, the learning curve, the proofs."""
    dataset, patients, predicted, true, total = fold.dataset, {}, 0, 0, 0
    if outcome.stopped is None:
        predictor = make_predictor(program.model, [(outcome.params, outcome.batch_stats)], program.batch_size)
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
        "steps": program.total_steps,
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
