"""The laboratory's jobs shared out among processes, each with its own cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from heartseg_jax.config import load
from heartseg_jax.data.run_dataset import dataset_for
from heartseg_jax.errors import UserError
from heartseg_jax.lab.arms import Job
from heartseg_jax.lab.run import run_job
from heartseg_jax.native.library import turn_on
from heartseg_jax.progress import duration, say

COST = {"brain_staged": 3, "brain_surgical": 3, "scratch": 1, "random_frozen": 1.3, "brain_frozen": 1.3}
"""Rough cost of an arm, 2 where it is not named: staged and surgical ones compile six programs."""


def work_all(config: FrozenConfigDict, path: Path, missing: list[Job], workers: int, together: bool) -> None:
    """Do all jobs and wait for them.

    Raises:
      UserError: a process failed; what was finished is kept.
    """
    plain = load.to_plain(config)
    shares = share(missing, workers)
    if len(shares) == 1:
        _work(plain, path, shares[0], together, None)
        return
    cores = sorted(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    children = []
    for number, own in enumerate(shares):
        pinned = [core for i, core in enumerate(cores) if i % len(shares) == number] or cores
        children.append(context.Process(target=_work, args=(plain, path, own, together, pinned), daemon=True))
    # A terminal sends Ctrl-C to the children too: they ignore it from their first import on, and are ended from here.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for child in children:
            child.start()
        signal.signal(signal.SIGINT, interrupt)
        while any(child.is_alive() for child in children):
            for child in children:
                child.join(timeout=1)
            if any(child.exitcode not in (None, 0) for child in children):
                break
    finally:
        signal.signal(signal.SIGINT, interrupt)
        for child in children:
            if child.pid is not None:  # it was started
                child.terminate()
                child.join()
    # The others were ended because of the one that failed: its status is the one to name.
    failed = sorted((c.exitcode for c in children if c.exitcode), key=lambda code: code == -signal.SIGTERM)
    if failed:
        raise UserError(
            f"a worker of the laboratory ended with status {failed[0]}; its message is above. What was finished is "
            "kept: the same command goes on from there"
        )


def share(missing: Sequence[Job], workers: int) -> list[list[Job]]:
    """Return the jobs of each process: an arm's jobs stay together, so that only one process compiles its programs.

    The most expensive arm first, each to the process with least so far; within a process the jobs keep their order.
    """
    arms = list(dict.fromkeys(job.arm for job in missing))
    load_of = [0.0] * min(workers, len(arms))
    shares: list[list[Job]] = [[] for _ in load_of]
    for arm in sorted(arms, key=lambda arm: -COST.get(arm, 2)):
        least = load_of.index(min(load_of))
        load_of[least] += COST.get(arm, 2)
        shares[least] += [job for job in missing if job.arm == arm]
    return [sorted(own, key=list(missing).index) for own in shares]


def _work(plain: dict[str, Any], path: Path, jobs: list[Job], together: bool, cores: list[int] | None) -> None:
    """Do some jobs; in a process of its own where `cores` says which to keep to."""
    if cores is not None:
        # Before the backend starts its threads: it takes as many as it may use.
        os.sched_setaffinity(0, cores)
    turn_on()
    config = load.complete(plain)
    dataset = dataset_for(config, path)
    began = time.perf_counter()
    for done, job in enumerate(jobs, 1):
        run_job(config, dataset, job, path / "results", together)
        left = (time.perf_counter() - began) / done * (len(jobs) - done)
        say(f"[{done}/{len(jobs)} jobs of this process; about {duration(left)} left]")
