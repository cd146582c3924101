"""Several trainings of one shape side by side: seeds and folds, in one compiled program or one after the other."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.data.examples import SliceStore, batch_at, in_order
from heartseg_jax.evaluation import metrics
from heartseg_jax.models.unet import UNet
from heartseg_jax.training import fingerprints, steps
from heartseg_jax.training.clock import Clock
from heartseg_jax.training.phase_steps import PhaseProgram, take_steps
from heartseg_jax.training.phases import Phase


class Program(NamedTuple):
    """What the replicas share: the network, what is learned when, and how."""

    model: UNet
    train: Any
    augmentation: Any
    phases: tuple[Phase, ...]
    total_steps: int
    rewarm_steps: int
    batch_size: int


class Replica(NamedTuple):
    """One training: its slices, its seed, and the weights that it starts from."""

    examples: SliceStore
    unseen: SliceStore
    seed: int
    params: Any
    batch_stats: Any


class Outcome(NamedTuple):
    """What came of a replica.

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
    if not together:
        return [outcome for replica in replicas for outcome in _train(program, [replica], looks)]
    return _train(program, list(replicas), looks)


def _train(program: Program, replicas: list[Replica], looks: int) -> list[Outcome]:
    """Train replicas in one program: a single one as it is, several stacked along a first axis."""
    several = len(replicas) > 1
    state, keys = _start(program, replicas)
    eval_step = steps.compiled_eval(program.model, program.train)
    every = max(program.total_steps // looks, 1)
    tracks = [_Track([], []) for _ in replicas]
    clock = Clock()

    def own(state: Any, i: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[i], state) if several else state

    def fetch(step: int) -> Any:
        if step == program.total_steps:
            return None
        return _stack([batch_at(r.examples, r.seed, step, program.batch_size) for r in replicas])

    def start_phase(number: int, _: PhaseProgram, state: Any, __: Any) -> None:
        for i, track in enumerate(tracks):
            track.before = _fingerprint(program, own(state, i))
        clock.start()

    for taken in take_steps(
        program.phases, lambda number: _program(program, number, several), state, keys, fetch, start_phase
    ):
        step, state = taken.step, taken.state
        looked = step % every == 0 or step == program.total_steps
        ended = step == program.phases[taken.phase].end
        if not (looked or ended):
            continue
        losses = np.atleast_1d(jax.device_get(taken.metrics["loss"]))  # waits for the device, only here
        clock.stop()
        for i, (replica, track) in enumerate(zip(replicas, tracks, strict=True)):
            if looked:
                if not math.isfinite(losses[i]):
                    track.stop(f"the loss is {losses[i]} at step {step}")
                seen, unseen = (
                    pooled_dice(eval_step, own(state, i), examples, program.batch_size)
                    for examples in (replica.examples, replica.unseen)
                )
                track.curve.append((step, seen, unseen))
            if ended:
                track.end_phase(program.phases[taken.phase], taken.phase, _fingerprint(program, own(state, i)))
        clock.start()
    clock.stop()
    return [
        Outcome(
            own(state, i).params,
            own(state, i).batch_stats,
            track.curve,
            track.stopped,
            track.proofs,
            clock.seconds / len(replicas),
        )
        for i, track in enumerate(tracks)
    ]


@dataclasses.dataclass
class _Track:
    """What is noted of one replica while it trains."""

    curve: list[tuple[int, float, float]]
    proofs: list[dict[str, Any]]
    stopped: str | None = None
    before: dict[str, str] = dataclasses.field(default_factory=dict)

    def stop(self, reason: str) -> None:
        """Note why the replica is given up; the first reason counts."""
        self.stopped = self.stopped or reason

    def end_phase(self, phase: Phase, number: int, after: dict[str, str]) -> None:
        """Note whether what the phase froze is as it was at the phase's start."""
        self.proofs.append(
            {
                "phase": number + 1,
                "first_step": phase.first + 1,
                "last_step": phase.end,
                "frozen": sorted(phase.frozen),
                "identical": all(self.before[group] == after[group] for group in phase.frozen),
            }
        )
        for finding in fingerprints.findings(number + 1, phase, self.before, after):
            self.stop(finding.seen)


def _start(program: Program, replicas: Sequence[Replica]) -> tuple[Any, Any]:
    """Return the state before step 1 and the keys; a copy, since steps overwrite it and the caller keeps its own."""
    tx = _program(program, 0, several=False)
    state = _stack([steps.begin(tx, replica.params, replica.batch_stats) for replica in replicas])
    return jax.tree.map(jnp.copy, state), _stack([jax.random.key(replica.seed) for replica in replicas])


def _stack(trees: Sequence[Any]) -> Any:
    """Return several trees stacked along a first axis, a single one as it is."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if len(trees) > 1 else trees[0]


def measure(program: Program, replicas: Sequence[Replica], count: int = 4) -> float:
    """Return the seconds that one step of one replica takes in the first phase, compilation left out.

    Several `replicas` take their steps in one program.
    """
    step = _program(program, 0, len(replicas) > 1).step
    state, keys = _start(program, replicas)
    batch = _stack([batch_at(r.examples, r.seed, 0, program.batch_size) for r in replicas])
    state, found = step(state, batch, keys)
    jax.block_until_ready(found)
    began = time.perf_counter()
    for _ in range(count):
        state, found = step(state, batch, keys)
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / count / len(replicas)


def _program(program: Program, number: int, several: bool) -> PhaseProgram:
    """Return the program of a phase; `several` maps it over a first axis of all its inputs."""
    asked = (program.model, program.train, program.augmentation, program.phases[number])
    lengths = (program.total_steps, program.rewarm_steps)
    tx, step = steps.compiled_phase(*asked, *lengths, **({"replicas": True} if several else {}))
    return PhaseProgram(jax.vmap(tx.init) if several else tx.init, step)


def pooled_dice(eval_step: Callable[..., Any], state: Any, examples: SliceStore, batch_size: int) -> float:
    """Return the mean Dice over structures of all slices of `examples` pooled, at the network's resolution."""
    total = sum(
        np.asarray(eval_step(state, batch)["confusion"], np.int64).sum(axis=0)
        for _, batch in in_order(examples, batch_size)
    )
    dice = metrics.mean_dice([total], examples.dataset.label_set)
    return math.nan if dice is None else dice


def _fingerprint(program: Program, state: Any) -> dict[str, str]:
    groups = [group for group, _ in program.phases[0].multipliers]
    return fingerprints.fingerprint(state.params, state.batch_stats, groups)
