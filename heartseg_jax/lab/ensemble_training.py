"""Several trainings of one arm: seeds and folds, one after the other or in one compiled program."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.data.examples import SliceStore, batch_at, in_order
from heartseg_jax.evaluation import metrics
from heartseg_jax.models.unet import UNet
from heartseg_jax.training import averaging, phase_log, residence, steps
from heartseg_jax.training.clock import Clock
from heartseg_jax.training.feed import Held
from heartseg_jax.training.phase_steps import PhaseProgram, phase_program, take_steps
from heartseg_jax.training.phases import Phase


class Program(NamedTuple):
    """What the replicas of an arm share: its config, its network, and what is learned when."""

    config: Any
    model: UNet
    phases: tuple[Phase, ...]


SHOWN = ("examples", "unseen")
"""The stores of a replica."""


class Replica(NamedTuple):
    """One training: its slices, its seed, and the weights that it starts from."""

    examples: SliceStore
    unseen: SliceStore
    seed: int
    params: Any
    batch_stats: Any


class Outcome(NamedTuple):
    """What came of a replica; its weights are the averaged ones where `train.ema_decay` asks for them.

    `curve` has (step, pooled Dice of the training slices, of the unseen ones) at each look; `stopped` says why it was
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
    groups = [replicas] if together else [[replica] for replica in replicas]
    return [outcome for group in groups for outcome in _train(program, group, looks)]


@dataclasses.dataclass
class _Notes:
    """What is noted of one replica while it trains; the first of `reasons` to give it up counts."""

    curve: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    proofs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)
    before: dict[str, str] = dataclasses.field(default_factory=dict)


def _train(program: Program, replicas: Sequence[Replica], looks: int) -> list[Outcome]:
    """Train replicas in one program: a single one as it is, several mapped over a first axis of all arrays."""
    several = len(replicas) > 1
    config, phases = program.config, program.phases
    total, size = phases[-1].end, config.data.batch_size
    every = max(total // looks, 1)
    groups = [group for group, _ in phases[0].multipliers]
    notes = [_Notes() for _ in replicas]
    clock = Clock()
    held = {} if several else _held(program, replicas[0])

    def stacked(trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if several else trees[0]

    def of_each(state: steps.TrainState) -> list[steps.TrainState]:
        return [jax.tree.map(itemgetter(i), state) for i in range(len(replicas))] if several else [state]

    def fetch(step: int) -> Any:
        if step == total:
            return None
        if held:
            return held["examples"].steps(replicas[0].seed, step, size)
        return stacked([batch_at(r.examples, r.seed, step, size) for r in replicas])

    def start_phase(_number: int, _program: PhaseProgram, state: steps.TrainState, _batch: Any) -> None:
        for note, own in zip(notes, of_each(state), strict=True):
            note.before = phase_log.fingerprint(own, groups)
        clock.start()

    def program_of(number: int) -> PhaseProgram:
        found = phase_program(config, program.model, phases, number, replicas=several)
        return found._replace(init=jax.vmap(found.init)) if several else found

    first = phase_program(config, program.model, phases, 0)
    # A copy, since steps overwrite the state and the caller keeps its own.
    state = jax.tree.map(
        jnp.copy, stacked([steps.begin(first, r.params, r.batch_stats, config.train.ema_decay) for r in replicas])
    )
    keys = stacked([jax.random.key(r.seed) for r in replicas])
    for step, number, latest, found in take_steps(phases, program_of, state, keys, fetch, start_phase):
        state = latest
        looked, ended = step % every == 0 or step == total, step == phases[number].end
        if not (looked or ended):
            continue
        losses = np.atleast_1d(jax.device_get(found["loss"]))  # waits for the device, only here
        clock.stop()
        for replica, note, own, loss in zip(replicas, notes, of_each(state), losses, strict=True):
            if looked:
                if not math.isfinite(loss):
                    note.reasons.append(f"the loss is {loss} at step {step}")
                dice = [_pooled_dice(program, own, getattr(replica, name), held.get(name)) for name in SHOWN]
                note.curve.append((step, dice[0], dice[1]))
            if ended:
                after = phase_log.fingerprint(own, groups)
                note.proofs.append(_proof(number, phases[number], note.before, after))
                found_wrong = phase_log.findings(number + 1, phases[number], note.before, after)
                note.reasons += [finding.seen for finding in found_wrong]
        clock.start()
    clock.stop()
    return [
        Outcome(
            *averaging.weights_of(own.arrays()),
            note.curve,
            next(iter(note.reasons), None),
            note.proofs,
            clock.seconds / len(replicas),
        )
        for own, note in zip(of_each(state), notes, strict=True)
    ]


def _proof(number: int, phase: Phase, before: dict[str, str], after: dict[str, str]) -> dict[str, Any]:
    """Return whether what the phase froze is as it was at the phase's start."""
    return {
        "phase": number + 1,
        "first_step": phase.first + 1,
        "last_step": phase.end,
        "frozen": sorted(phase.frozen),
        "identical": all(before[group] == after[group] for group in phase.frozen),
    }


def _held(program: Program, replica: Replica) -> dict[str, Held]:
    """Return the slices of a replica on the device, by their name in it; nothing where they are sent batch by batch.

    Each store is filled up to the slices of the dataset, which every fold divides: one program serves all of them.
    """
    config, stores = program.config, {name: getattr(replica, name) for name in SHOWN}
    rows = sum(patient.num_slices for patient in replica.examples.dataset.patients)
    among = config.lab.workers or os.cpu_count() or 1
    found = residence.of_replica(config, list(stores.values()), rows, program.phases[-1].end, among)
    held = {name: Held(store, rows=rows) for name, store in stores.items() if found.resident}
    for one in held.values():
        one.load(config.data.threads)
    return held


def _pooled_dice(program: Program, state: steps.TrainState, examples: SliceStore, held: Held | None) -> float:
    """Return the mean Dice over structures of all slices of `examples` pooled, at the network's resolution."""
    eval_step, size = steps.compiled_eval(program.model, program.config.train), program.config.data.batch_size
    total = sum(
        np.asarray(eval_step(state, given)["confusion"], np.int64).sum(axis=0)
        for _, given in (held.in_order(size) if held else in_order(examples, size))
    )
    dice = metrics.mean_dice([total], examples.dataset.label_set)
    return math.nan if dice is None else dice
