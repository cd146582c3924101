"""The laboratory: says what the comparison will cost, trains what is missing, writes the table and the figure."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from heartseg_jax import workdir as runs
from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import load
from heartseg_jax.config.channels import parse
from heartseg_jax.data.dataset.verify import check_arrays
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json
from heartseg_jax.interop import package
from heartseg_jax.interop.encoder import SHIPPED
from heartseg_jax.lab import report
from heartseg_jax.lab.arms import ARMS, Job, arm_config, arms_of, jobs_of
from heartseg_jax.lab.run import missing_folds, read_results
from heartseg_jax.lab.unseen import check_unseen
from heartseg_jax.lab.workers import work_all
from heartseg_jax.models import cost
from heartseg_jax.models.speed import network_flops_per_second
from heartseg_jax.native import switch
from heartseg_jax.progress import bar, duration, say
from heartseg_jax.training import devices, phases

FREE = ("lab.", "data.threads", "data.cache_gb", "log.", "checkpoint.")
"""Fields that only say which jobs there are, or how they are carried out: they may change from start to start."""

SCORING_S = 3.0
"""Seconds per run for scoring and writing, beside its steps."""
COMPILING_S = 15.0
"""Seconds per program: one for each phase of an arm, and each process compiles its own."""
SHARING = 0.75
"""Share of the time that two processes on the same cores need for what one does by itself."""


def lab(config: FrozenConfigDict, path: Path, argv: list[str]) -> dict[str, Any]:
    """Train every arm on every fold with every seed in the folder `path`, or go on with what lies there.

    Returns the report that `report.json`, `table.md` and `arms.png` are made from; {} with `lab.budget_only`.

    Raises:
      UserError: the folder holds another laboratory, or the config or the data do not fit.
    """
    if not config.train.steps:
        raise UserError("the laboratory compares arms at equal steps; give --config.train.steps=N")
    jobs = jobs_of(config)
    path.mkdir(parents=True, exist_ok=True)
    dataset = dataset_for(config, path)
    check_arrays(dataset, bar("patients compared with their digests"))
    for warning in check_unseen(config, dataset):
        say(f"WARNING {warning}")
    _open(config, dataset, path, argv)
    results = path / "results"
    results.mkdir(exist_ok=True)
    for file, record in read_results(results).items():
        if record is None:
            say(f"WARNING {file} is damaged: it is left out of the table, and trained again if its arm is compared")
    left = {job: len(missing_folds(dataset, job, results)) for job in jobs}
    missing = [job for job in jobs if left[job]]
    cores = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
    workers = config.lab.workers or min(cores, len(arms_of(config)))
    _say_budget(config, dataset, left, workers)
    if config.lab.budget_only:
        return {}
    if missing:
        work_all(config, path, missing, workers, together=config.lab.replicas == "vmap")
    found = report.build([record for record in read_results(results).values() if record], jobs, dataset)
    report.write(path, found)
    print(report.table(found))
    print(f"\nlab: {path}  (table.md, arms.png, report.json; every run in results/)")
    return found


def _open(config: FrozenConfigDict, dataset: Dataset, path: Path, argv: list[str]) -> None:
    """Write `lab.json`, or compare with the one that is there: results of two settings must not meet in one table."""
    fields = {name: value for name, value in load.fields(load.to_plain(config)) if not name.startswith(FREE)}
    depends = {**fields, "dataset_identity": dataset_identity(dataset), "looks": config.lab.looks}
    used = {"brain": config.pretrained.path or "brain16", "synthetic": config.lab.synthetic_run}
    used["heart"] = config.lab.heart_run
    for name, source in used.items():
        depends[f"{name}_sha256"] = _digest(Path(source)) if source else ""
    depends["learning_rates"] = list(config.lab.learning_rates)
    file = path / "lab.json"
    if file.is_file():
        before = read_json(file, fix="give another --workdir").get("depends")
        if not isinstance(before, dict):
            raise UserError(f"{file} is damaged: 'depends' is no object; give another --workdir")
        now = json.loads(json.dumps(depends))
        # A model that no arm used before may be added; one that was used may not change.
        added = {k for k in ("synthetic_sha256", "heart_sha256") if not before.get(k)}
        changed = [k for k in now if before.get(k) != now[k] and k not in added]
        if changed:
            listed = "; ".join(f"{k}: {before.get(k)} -> {now[k]}" for k in changed[:3])
            raise UserError(f"{path} holds a laboratory of other settings ({listed}); give another --workdir")
    write_json(file, {"depends": depends, **runs.provenance(argv)})


def _digest(source: Path) -> str:
    """Return what distinguishes one set of pretrained weights from another."""
    source = package.located(SHIPPED.get(str(source), source))
    if package.is_package(source):
        return hashlib.sha256((source / package.MODEL).read_bytes()).hexdigest()
    if source.is_dir():
        # A run: its newest checkpoint's arrays decide, and each checkpoint is written once.
        names = sorted(str(p.relative_to(source)) for p in (source / "checkpoints").rglob("*") if p.is_file())
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    return hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""


def _say_budget(config: FrozenConfigDict, dataset: Dataset, left: dict[Job, int], workers: int) -> None:
    """Say how many runs are left and, if any, about how long they will take."""
    arms, runs_left = arms_of(config), Counter(dict.fromkeys(arms_of(config), 0))
    for job, folds in left.items():
        runs_left[job.arm] += folds
    say(
        f"laboratory: {len(arms)} arms, {config.lab.seeds} seeds, {len(left)} jobs of {len(dataset.patients)} folds; "
        f"{sum(left.values())} runs of {config.train.steps} steps are left"
    )
    if not any(left.values()):
        return
    say(f"estimating the time from FLOPs and a measured step, a few seconds; computing on {devices.describe()}")
    step_s, total_s = estimate(config, runs_left, workers)
    for arm in arms:
        say(f"  {arm:<27} about {1e3 * step_s[arm]:>5.0f} ms per step   {ARMS[arm][0]}")
    say(
        f"budget: about {duration(total_s)} with {workers} process{'es' if workers > 1 else ''}, compilation and "
        "scoring included; an estimate, good to a factor of two"
    )


def step_flops(config: FrozenConfigDict) -> float:
    """Return the FLOPs of a training step of a config, the mean over its phases.

    The backward pass multiplies twice per layer, and goes down to the finest stage that learns.
    """
    model, size = config.model, config.data.size
    channels = len(parse(config.data.channels, None))
    layers = cost.layer_costs(size, size, cost.shape_of(model, LABEL_SETS[config.data.task], channels))
    stages = phases.stages(model.levels)
    total = 0.0
    for phase in phases.plan(config.transfer, model.levels, config.train.steps):
        learning = [i for i, stage in enumerate(stages) if stage in phase.learning]
        reached = (*stages[min(learning, default=len(stages)) :], "decoder", "head")
        backward = sum(layer.flops for layer in layers if layer.path.startswith(reached))
        total += (phase.end - phase.first) * (sum(layer.flops for layer in layers) + 2 * backward)
    return config.data.batch_size * total / config.train.steps


def estimate(config: FrozenConfigDict, runs_left: dict[str, int], workers: int) -> tuple[dict[str, float], float]:
    """Return (arm -> seconds per step, seconds of the whole) for the runs that each arm has left."""
    rate = network_flops_per_second(config.model.dtype, native=switch.are_possible())
    configs = {arm: arm_config(config, arm) for arm in runs_left}
    step_s = {arm: step_flops(own) / rate for arm, own in configs.items()}
    tried = len(config.lab.learning_rates)
    runs_per_fold = 1 + tried if tried > 1 else 1
    training = sum(runs_left[arm] * runs_per_fold * config.train.steps * step_s[arm] for arm in runs_left)
    programs = sum(
        len(phases.plan(own.transfer, own.model.levels, config.train.steps))
        for arm, own in configs.items()
        if runs_left[arm]
    )
    around = SCORING_S * sum(runs_left.values()) + COMPILING_S * programs
    # On a CPU the processes share the cores that one of them would use.
    shared = SHARING if workers > 1 and jax.default_backend() == "cpu" else 1.0
    return step_s, training * shared + around / workers
