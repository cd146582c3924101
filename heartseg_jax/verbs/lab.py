"""The verb `lab`: prints what the comparison will cost, trains what is missing, writes the table and the figure."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl.flags import DEFINE_string, FlagValues
from ml_collections import FrozenConfigDict

from heartseg_jax import workdir as runs
from heartseg_jax.config import load
from heartseg_jax.config.flags import define_config
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json
from heartseg_jax.interop.encoder import SHIPPED
from heartseg_jax.lab import report
from heartseg_jax.lab.arms import ARMS, Job, arm_config, arms_of, folds_of, jobs_of
from heartseg_jax.lab.ensemble_training import measure
from heartseg_jax.lab.run import program_of, read_results, replica_of, run_job
from heartseg_jax.progress import say

FREE = ("lab.", "data.threads", "data.cache_gb", "log.", "checkpoint.")
"""Fields that only say which jobs there are, or how they are carried out: they may change from start to start."""


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    define_config(values, argv, "what to compare", required=True)
    DEFINE_string("workdir", None, "the laboratory's folder (default: runs/<config name>)", flag_values=values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Train and compare; the same command resumes."""
    name, config = load.config_of(values)
    lab(config, Path(values.workdir or f"runs/{name}"), argv)


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    return "finished runs are kept; the same command trains the others"


def lab(config: FrozenConfigDict, path: Path, argv: list[str]) -> dict[str, Any]:
    """Train every arm on every fold with every seed in the folder `path`, or go on with what lies there.

    Returns the report that `lab.json`, `table.md` and `arms.png` are made from.

    Raises:
      UserError: the folder holds another laboratory, or the config or the data do not fit.
    """
    if not config.train.steps:
        raise UserError("the laboratory compares arms at equal steps; give --config.train.steps=N")
    jobs = jobs_of(config)
    path.mkdir(parents=True, exist_ok=True)
    dataset = dataset_for(config, path)
    _open(config, dataset, path, argv)
    results = path / "results"
    results.mkdir(exist_ok=True)
    missing = [job for job in jobs if _left(dataset, job, results)]
    workers, together = _budget(config, dataset, path, jobs, missing)
    if config.lab.budget_only:
        return {}
    if missing:
        _work_all(config, dataset, path, missing, workers, together)
    found = report.build(read_results(results), jobs, dataset)
    report.write(path, found)
    print(report.table(found))
    print(f"\nlab: {path}  (table.md, arms.png, report.json; every run in results/)")
    return found


def _open(config: FrozenConfigDict, dataset: Dataset, path: Path, argv: list[str]) -> None:
    """Write `lab.json`, or compare with the one that is there: results of two settings must not meet in one table."""
    fields = {name: value for name, value in load.fields(load.to_plain(config)) if not name.startswith(FREE)}
    depends = {**fields, "dataset_identity": dataset_identity(dataset), "looks": config.lab.looks}
    for name, source in (("brain", config.pretrained.path or "brain16"), ("synthetic", config.lab.synthetic_run)):
        depends[f"{name}_sha256"] = _digest(Path(source)) if source else ""
    depends["learning_rates"] = list(config.lab.learning_rates)
    file = path / "lab.json"
    if file.is_file():
        before = read_json(file, fix="give another --workdir").get("depends")
        if not isinstance(before, dict):
            raise UserError(f"{file} is damaged: 'depends' is no object; give another --workdir")
        now = json.loads(json.dumps(depends))
        # A model that was not asked for before may come in; one that was may not change.
        changed = [k for k in now if before.get(k) != now[k] and not (k == "synthetic_sha256" and not before.get(k))]
        if changed:
            listed = "; ".join(f"{k}: {before.get(k)} -> {now[k]}" for k in changed[:3])
            raise UserError(f"{path} holds a laboratory of other settings ({listed}); give another --workdir")
    write_json(file, {"depends": depends, **runs.provenance(argv)})


def _digest(source: Path) -> str:
    """Return what tells one set of pretrained weights from another."""
    source = SHIPPED.get(str(source), source)
    if source.is_dir():
        # A run: its newest checkpoint's arrays decide, and each checkpoint is written once.
        names = sorted(str(p.relative_to(source)) for p in (source / "checkpoints").rglob("*") if p.is_file())
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    return hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""


def _left(dataset: Dataset, job: Job, results: Path) -> int:
    return sum(not (results / f"{job.name(fold.name)}.json").is_file() for fold in folds_of(dataset, job))


def _budget(
    config: FrozenConfigDict, dataset: Dataset, path: Path, jobs: list[Job], missing: list[Job]
) -> tuple[int, bool]:
    """Measure a few steps, print what the whole will cost, and return (workers, whether folds train together)."""
    cpu = jax.default_backend() == "cpu"
    cores = len(os.sched_getaffinity(0))
    arms = arms_of(config)
    workers = config.lab.workers or (min(cores, len(arms)) if cpu else 1)
    left = sum(_left(dataset, job, path / "results") for job in missing)
    say(
        f"laboratory: {len(arms)} arms, {config.lab.seeds} seeds, {len(jobs)} jobs of {len(dataset.patients)} folds; "
        f"{left} runs of {config.train.steps} steps are left"
    )
    if not missing:
        return workers, False
    first = missing[0]
    fold = folds_of(dataset, first)
    step_ms: dict[str, float] = {}
    for arm in ("scratch", "scratch_deep", "random_frozen"):
        own = arm_config(config, arm)
        program = program_of(own)
        step_ms[arm] = 1e3 * measure(program, [replica_of(own, program, fold[0], first.seed)])
    together = config.lab.replicas == "vmap"
    if config.lab.replicas == "auto":
        own = arm_config(config, "scratch_deep")
        program = program_of(own)
        some = [replica_of(own, program, one, first.seed) for one in fold]
        at_once = 1e3 * measure(program, some)
        together = at_once < step_ms["scratch_deep"]
        say(
            f"{len(some)} folds in one program: {at_once:.0f} ms a step and fold; one after the other: "
            f"{step_ms['scratch_deep']:.0f} ms: {'together' if together else 'one after the other'}"
        )
    cost = {arm: _step_ms(arm, step_ms) for arm in arms}
    total = sum(_left(dataset, job, path / "results") * cost[job.arm] * config.train.steps / 1e3 for job in missing)
    total *= 1 + len(config.lab.learning_rates) if len(config.lab.learning_rates) > 1 else 1
    for arm in arms:
        say(f"  {arm:<27} {cost[arm]:>6.0f} ms a step   {ARMS[arm][0]}")
    say(
        f"budget: about {total / 60:.0f} min of steps on {cores} cores in one process; with {workers} "
        f"process{'es' if workers > 1 else ''}, compilation and scoring, expect about "
        f"{total / 60 * (0.75 if cpu and workers > 1 else 1) + left * 3 / 60 / workers + 2:.0f} min"
    )
    return workers, together


def _step_ms(arm: str, measured: dict[str, float]) -> float:
    if arm in measured:
        return measured[arm]
    if "frozen" in arm:
        return measured["random_frozen"]
    if arm == "brain_staged":  # a backward pass that reaches one stage further in each phase
        return (measured["random_frozen"] + measured["scratch_deep"]) / 2
    return measured["scratch_deep"]


def _work_all(
    config: FrozenConfigDict, dataset: Dataset, path: Path, missing: list[Job], workers: int, together: bool
) -> None:
    """Share the jobs out by arm, so that each program is compiled in one process alone, and wait for all."""
    arms = list(dict.fromkeys(job.arm for job in missing))
    # Dearest first, each to whoever has least: staged and surgical ones compile six programs.
    dear = {"brain_staged": 3, "brain_surgical": 3, "scratch": 1, "random_frozen": 1.3, "brain_frozen": 1.3}
    cost = [0.0] * min(workers, len(arms))
    share: list[list[Job]] = [[] for _ in cost]
    for arm in sorted(arms, key=lambda arm: -dear.get(arm, 2)):
        least = cost.index(min(cost))
        cost[least] += dear.get(arm, 2)
        share[least] += [job for job in missing if job.arm == arm]
    plain = load.to_plain(config)
    for own in share:
        own.sort(key=missing.index)
    if len(share) == 1:
        _work(plain, path, share[0], together, None)
        return
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    children = []
    for number, own in enumerate(share):
        pinned = [core for i, core in enumerate(cores) if i % len(share) == number] or cores
        children.append(context.Process(target=_work, args=(plain, path, own, together, pinned), daemon=True))
    try:
        for child in children:
            child.start()
        while any(child.is_alive() for child in children):
            for child in children:
                child.join(timeout=1)
            if any(child.exitcode not in (None, 0) for child in children):
                break
    finally:
        for child in children:
            child.terminate()
            child.join()
    # The others were ended for the sake of the one that failed: its status is the one to tell.
    failed = sorted((c.exitcode for c in children if c.exitcode), key=lambda code: code == -signal.SIGTERM)
    if failed:
        raise UserError(
            f"a worker of the laboratory ended with status {failed[0]}; its message is above. What was finished is "
            "kept: the same command goes on from there"
        )


def _work(plain: dict[str, Any], path: Path, jobs: list[Job], together: bool, cores: list[int] | None) -> None:
    """Do some jobs; in a process of its own where `cores` says which to keep to."""
    if cores is not None:
        # Before the backend starts its threads: it takes as many as it may use.
        os.sched_setaffinity(0, cores)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    config = load.complete(plain)
    dataset = dataset_for(config, path)
    began = time.perf_counter()
    for done, job in enumerate(jobs, 1):
        run_job(config, dataset, job, path / "results", together, say)
        left = (time.perf_counter() - began) / done * (len(jobs) - done)
        say(f"[{done}/{len(jobs)} jobs of this process; about {left / 60:.0f} min left]")
