"""What the laboratory compares: arms as changes of a config, folds as splits of a dataset. Nothing runs here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import FrozenConfigDict

from heartseg_jax.config import load, schema
from heartseg_jax.data.dataset.write import Dataset, with_test_patients
from heartseg_jax.errors import UserError, suggestion
from heartseg_jax.training.control import CALIBRATION_BATCHES
from heartseg_jax.training.networks import network_fields

TRANSFER = {"model.norm": "encoder"}
BRAIN = {**TRANSFER, "pretrained.path": "brain16"}
HEART = "heart_v1"
"""The arm that starts from a trained heart model; it has that model's network and channels, not the config's."""
NEEDED = {"synthetic_full": "lab.synthetic_run", HEART: "lab.heart_run"}
"""Arms that start from a model which the config names; they come in where it does."""

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch": ("the original's network from random weights", {"model.norm": "none", "model.levels": 3}),
    "scratch_deep": ("the transfer network from random weights, nothing frozen: the fair control", TRANSFER),
    "random_frozen": (
        "encoder frozen at random weights, its BatchNorm calibrated",
        {**TRANSFER, "transfer.schedule": "frozen", "pretrained.recalibrate_batches": CALIBRATION_BATCHES},
    ),
    "brain_frozen": ("brain encoder, frozen", {**BRAIN, "transfer.schedule": "frozen"}),
    "brain_frozen_recalibrated": (
        "brain encoder, frozen, its BatchNorm calibrated on the heart",
        {**BRAIN, "transfer.schedule": "frozen", "pretrained.recalibrate_batches": CALIBRATION_BATCHES},
    ),
    "brain_staged": ("brain encoder, thawed stage by stage, deepest first", {**BRAIN, "transfer.schedule": "staged"}),
    "brain_surgical": (
        "brain encoder, thawed stage by stage, finest first",
        {**BRAIN, "transfer.schedule": "surgical"},
    ),
    "brain_full": ("brain encoder, everything learns from the first step", {**BRAIN, "transfer.schedule": "full"}),
    "synthetic_full": (
        "whole network from a run on phantoms only, everything learns",
        {**TRANSFER, "transfer.schedule": "full", "pretrained.load": "all"},
    ),
    HEART: (
        "whole network of a heart model that was trained without the left-out patients, everything learns",
        {"transfer.schedule": "full", "pretrained.load": "all"},
    ),
}
"""Name -> (what it is, the fields in which it differs from the laboratory's config)."""


class Job(NamedTuple):
    """All folds of one arm with one seed."""

    arm: str
    split: str
    train_patients: int
    seed: int

    def file(self, fold: str) -> str:
        """The name of the result file of a fold."""
        return f"{self.split}-n{self.train_patients}-{self.arm}-seed{self.seed}-{fold}.json"


class Fold(NamedTuple):
    """A dataset split into what trains and what is left out."""

    name: str
    dataset: Dataset


def arms_of(config: Any) -> list[str]:
    """Return the arms that a config asks for, in the table's order.

    Raises:
      UserError: an unknown one, or one without the model that it starts from.
    """
    if config.data.detail > 1:
        raise UserError("lab keeps slices at the network's size; give --config.data.detail=1")
    asked = list(config.lab.arms) or [name for name in ARMS if name not in NEEDED or source_of(config, name)]
    unknown = [name for name in asked if name not in ARMS]
    if unknown:
        raise UserError(f"lab.arms has '{unknown[0]}'{suggestion(unknown[0], list(ARMS))}")
    if "synthetic_full" in asked and not config.lab.synthetic_run:
        raise UserError("the arm synthetic_full needs --config.lab.synthetic_run=RUN, a run of configs/synthetic.py")
    if HEART in asked and not config.lab.heart_run:
        raise UserError(
            f"the arm {HEART} needs --config.lab.heart_run=RUN, a run or a package of a heart model that was trained "
            "without the patients of this dataset"
        )
    return [name for name in ARMS if name in asked]


def source_of(config: Any, arm: str) -> str:
    """Return what an arm's weights come from: a name or a path; '' where they are random."""
    if arm in NEEDED:
        return str(config.lab[NEEDED[arm].removeprefix("lab.")])
    own = str(ARMS[arm][1].get("pretrained.path", ""))
    return config.pretrained.path or own if own else ""  # the user's own encoder instead of the one included


def arm_config(config: FrozenConfigDict, arm: str) -> FrozenConfigDict:
    """Return the laboratory's config as an arm has it."""
    own = ARMS[arm][1]
    changes = {**own, "pretrained.path": source_of(config, arm)}
    if arm == HEART:
        changes |= network_fields(changes["pretrained.path"])
    # What only says which jobs there are must not make another program of an arm.
    changes |= {field: value for field, value in load.fields(schema.defaults()) if field.startswith("lab.")}
    return load.changed(config, changes)


def jobs_of(config: Any) -> list[Job]:
    """Return the jobs, by patient before by slice, and every arm with one seed before the next seed."""
    splits = list(config.lab.splits) or ["patient", "slice"]
    for split in splits:
        if split not in ("patient", "slice"):
            raise UserError(f"lab.splits has '{split}'; there are patient, slice")
    rule = "whole numbers of 0 (all others) or more"
    counts = _numbers(config.lab.train_patients, int, lambda n: n >= 0, f"lab.train_patients must be {rule}") or [0]
    rates_of(config)
    return [
        Job(arm, split, count, config.seed + seed)
        for split in splits
        # A split by slice has slices of every patient on both sides: the number of patients does not apply there.
        for count in (counts if split == "patient" else [0])
        for seed in range(config.lab.seeds)
        for arm in arms_of(config)
    ]


def rates_of(config: Any) -> list[float]:
    """Return the learning rates that every arm tries: the config's own where `lab.learning_rates` has none."""
    rule = "lab.learning_rates must be numbers above 0"
    return _numbers(config.lab.learning_rates, float, lambda rate: 0 < rate < math.inf, rule) or [
        config.train.learning_rate
    ]


def _numbers(texts: Sequence[str], kind: Any, allowed: Callable[[Any], bool], rule: str) -> list[Any]:
    try:
        found = [kind(text) for text in texts]
    except ValueError:
        found = [None]
    if None in found or not all(map(allowed, found)):
        raise UserError(f"{rule}, not {', '.join(texts)}")
    return found


def folds_of(dataset: Dataset, job: Job) -> list[Fold]:
    """Return as many folds as there are patients: each left out in turn, or slices dealt out at random.

    A person with several volumes is one patient here, named after the first of them.

    Which patients train, where not all others do, and how slices are dealt out follow from the job's seed: they are
    the same for every arm.

    Raises:
      UserError: there are fewer patients than the job needs.
    """
    if dataset.members:
        raise UserError(f"lab leaves out the patients of one dataset in turn, and {dataset.path} are several; name one")
    who = [patient.who for patient in dataset.patients]
    patients = list(dict.fromkeys(who))
    if len(patients) < 2 or job.train_patients >= len(patients):
        raise UserError(
            f"{dataset.path} has {len(patients)} patients; training on {job.train_patients or 'all others'} "
            "and leaving one out needs more"
        )
    if job.split == "slice":
        places = [(p, z) for p, patient in enumerate(dataset.patients) for z in range(patient.num_slices)]
        order = np.random.default_rng([job.seed, 1]).permutation(len(places))
        dealt = {places[place]: number % len(patients) for number, place in enumerate(order)}
        return [
            Fold(f"fold{fold}", _resplit(dataset, lambda p, z, fold=fold: "test" if dealt[p, z] == fold else "train"))
            for fold in range(len(patients))
        ]
    folds = []
    for number, left_out in enumerate(patients):
        split = with_test_patients(dataset, [patient.id for patient in dataset.patients if patient.who == left_out])
        if job.train_patients:
            others = [identity for identity in patients if identity != left_out]
            kept = set(np.random.default_rng([job.seed, number]).permutation(others)[: job.train_patients].tolist())
            split = _resplit(
                split,
                lambda p, z, out=left_out, kept=kept: (
                    "test" if who[p] == out else "train" if who[p] in kept else "validation"
                ),
            )
        folds.append(Fold(left_out, split))
    return folds


def inner_fold(fold: Fold) -> Fold:
    """Return a fold's training slices split once more: the next patient in turn is left out, to choose by.

    What the fold itself leaves out is on neither side: a choice made by it would be a choice made by the test.

    Raises:
      UserError: no patient would be left to train on.
    """
    who = [patient.who for patient in fold.dataset.patients]
    trained = {patient.who for patient in fold.dataset.patients_in("train")}
    if len(trained) < 2:
        raise UserError(
            "lab.learning_rates are chosen by a training patient left out: lab.train_patients must be 2 or more"
        )
    everybody = list(dict.fromkeys(who))
    at = everybody.index(fold.name) if fold.name in everybody else 0
    chosen = next(identity for identity in everybody[at + 1 :] + everybody if identity in trained)

    def place(p: int, z: int) -> str:
        if fold.dataset.patients[p].splits[z] != "train":
            return "validation"
        return "test" if who[p] == chosen else "train"

    return Fold(f"{fold.name}-inner", _resplit(fold.dataset, place))


def _resplit(dataset: Dataset, place: Any) -> Dataset:
    """Return the dataset with the split of each (patient number, slice) as `place` says."""
    patients = tuple(
        dataclasses.replace(patient, splits=tuple(place(p, z) for z in range(patient.num_slices)))
        for p, patient in enumerate(dataset.patients)
    )
    return dataclasses.replace(dataset, patients=patients)
