"""Several trainings of one shape side by side: seeds and folds, in one compiled program or one after the other."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.data.pipeline import Examples, in_order, indices, steps_per_epoch
from heartseg_jax.evaluation import metrics
from heartseg_jax.models.unet import UNet
from heartseg_jax.training import fingerprints, steps
from heartseg_jax.training.phases import Phase, carry_over


class Program(NamedTuple):
    """What the replicas share: the network, what is learned when, and how. Hashable but for nothing."""

    model: UNet
    train: Any
    augmentation: Any
    phases: tuple[Phase, ...]
    total_steps: int
    rewarm_steps: int
    batch_size: int


class Replica(NamedTuple):
    """One training: its slices, its seed, and the weights that it starts from."""

    examples: Examples
    unseen: Examples
    seed: int
    params: Any
    batch_stats: Any


class Outcome(NamedTuple):
    """What came of a replica.

    `curve` has (step, Dice on the training slices, Dice on the unseen ones) at each look; `stopped` says why it was
    given up, or None; `proofs` has for each phase its frozen groups and whether they are bit-identical to its start.
    `seconds` is the time of its steps, shared out where replicas ran at once.
    """

    params: Any
    batch_stats: Any
    curve: list[tuple[int, float, float]]
    stopped: str | None
    proofs: list[dict[str, Any]]
    seconds: float


def train_replicas(program: Program, replicas: Sequence[Replica], looks: int, together: bool) -> list[Outcome]:
    """Train every replica for the program's steps, all at once (`together`) or one after the other."""
    if not together:
        return [outcome for replica in replicas for outcome in _train(program, [replica], looks)]
    return _train(program, list(replicas), looks)


def _train(program: Program, replicas: list[Replica], looks: int) -> list[Outcome]:
    """Train replicas in one program: a single one as it is, several stacked along a first axis."""
    several = len(replicas) > 1
    stack = (
        (lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)) if several else lambda trees: trees[0]
    )
    part = (lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)) if several else lambda tree, i: tree
    keys = stack([jax.random.key(replica.seed) for replica in replicas])
    eval_step = steps.make_eval_step(program.model, program.train)
    groups = [group for group, _ in program.phases[0].multipliers]
    every = max(program.total_steps // looks, 1)
    curves: list[list[tuple[int, float, float]]] = [[] for _ in replicas]
    proofs: list[list[dict[str, Any]]] = [[] for _ in replicas]
    stopped: list[str | None] = [None] * len(replicas)
    state: Any = None
    spent = 0.0
    for number, phase in enumerate(program.phases):
        tx, step = _step(program, phase, several)
        if state is None:
            state = stack([steps.begin(tx, r.params, r.batch_stats) for r in replicas])
            state = jax.tree.map(
                jnp.copy, state
            )  # the step is given its buffers to overwrite; the caller keeps its own
        else:
            init = jax.vmap(tx.init) if several else tx.init
            fresh = init(state.params)
            state = state._replace(opt_state=carry_over(program.phases[number - 1], state.opt_state, phase, fresh))
        before = [_fingerprint(part(state, i), groups) for i in range(len(replicas))]
        began = time.perf_counter()
        for position in range(phase.first, phase.end):
            batch = stack([batch_of(replica, position, program.batch_size) for replica in replicas])
            state, found = step(state, batch, keys)
            if (position + 1) % every == 0 or position + 1 == program.total_steps:
                losses = np.atleast_1d(np.asarray(found["loss"]))  # waits for the device, here alone
                spent += time.perf_counter() - began
                for i, replica in enumerate(replicas):
                    if stopped[i] is None and not math.isfinite(losses[i]):
                        stopped[i] = f"the loss is {losses[i]} at step {position + 1}"
                    own = part(state, i)
                    seen, unseen = (
                        _dice(eval_step, own, e, program.batch_size) for e in (replica.examples, replica.unseen)
                    )
                    curves[i].append((position + 1, seen, unseen))
                began = time.perf_counter()
        jax.block_until_ready(state.step)
        spent += time.perf_counter() - began
        for i in range(len(replicas)):
            after = _fingerprint(part(state, i), groups)
            findings = fingerprints.findings(number + 1, phase, before[i], after)
            proofs[i].append(
                {
                    "phase": number + 1,
                    "first_step": phase.first + 1,
                    "last_step": phase.end,
                    "frozen": sorted(phase.frozen),
                    "identical": all(before[i][group] == after[group] for group in phase.frozen),
                }
            )
            if findings and stopped[i] is None:
                stopped[i] = findings[0].seen
    return [
        Outcome(
            part(state, i).params, part(state, i).batch_stats, curves[i], stopped[i], proofs[i], spent / len(replicas)
        )
        for i in range(len(replicas))
    ]


def batch_of(replica: Replica, step: int, batch_size: int) -> dict[str, np.ndarray]:
    """Return the batch of a replica's step (0-based), in the order of its own seed."""
    examples = replica.examples
    epoch, place = divmod(step, steps_per_epoch(len(examples), batch_size))
    return examples.gather(*indices(replica.seed, epoch, place, len(examples), batch_size))


def measure(program: Program, replicas: Sequence[Replica], together: bool, count: int = 4) -> float:
    """Return the seconds that one step of one replica takes in the first phase, compilation left out."""
    used = list(replicas) if together else [replicas[0]]
    several = len(used) > 1
    stack = (
        (lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)) if several else lambda trees: trees[0]
    )
    tx, step = _step(program, program.phases[0], several)
    state = jax.tree.map(jnp.copy, stack([steps.begin(tx, r.params, r.batch_stats) for r in used]))
    keys = stack([jax.random.key(r.seed) for r in used])
    batch = stack([batch_of(r, 0, program.batch_size) for r in used])
    state, found = step(state, batch, keys)
    jax.block_until_ready(found)
    began = time.perf_counter()
    for _ in range(count):
        state, found = step(state, batch, keys)
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / count / len(used)


def _step(program: Program, phase: Phase, several: bool) -> tuple[Any, Any]:
    """Return (optimizer, jitted step) of a phase; `several` maps the step over a first axis of all its inputs."""
    asked = (program.model, program.train, program.augmentation, phase, program.total_steps, program.rewarm_steps)
    return _mapped(*asked) if several else steps.compiled_phase(*asked)


@functools.lru_cache(maxsize=64)
def _mapped(
    model: UNet, train: Any, augmentation: Any, phase: Phase, total_steps: int, rewarm_steps: int
) -> tuple[Any, Any]:
    tx, _ = steps.compiled_phase(model, train, augmentation, phase, total_steps, rewarm_steps)
    one = steps.train_step_function(model, tx, train, augmentation, phase)
    return tx, jax.jit(jax.vmap(one), donate_argnums=0)


def _dice(eval_step: Callable[..., Any], state: Any, examples: Examples, batch_size: int) -> float:
    """Return the mean Dice over structures of all slices of `examples` pooled, at the network's resolution."""
    total = np.zeros((9, 9), np.int64)
    for _, batch in in_order(examples, range(len(examples)), batch_size):
        total += np.asarray(eval_step(state, batch)["confusion"], np.int64).sum(axis=0)
    known = [value for value in metrics.dice_from_counts(total)[1:] if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _fingerprint(state: Any, groups: list[str]) -> dict[str, str]:
    return fingerprints.fingerprint(state.params, state.batch_stats, groups)
