"""Steps taken phase by phase: the core that a run and the laboratory's replicas share. No files, no metrics here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.training import steps
from heartseg_jax.training.phases import Phase, carry_over
from heartseg_jax.training.steps import Metrics, TrainState, TrainStep


class PhaseProgram(NamedTuple):
    """What a phase runs: `init(params)` is a fresh optimizer state, `step` a step; both are jitted."""

    init: Callable[[Any], Any]
    step: TrainStep


class Taken(NamedTuple):
    """A step that has been sent to the device: its number (from 1), its phase (from 0), what comes out of it."""

    step: int
    phase: int
    state: TrainState
    metrics: Metrics


def phase_program(
    config: Any, model: UNet, phases: Sequence[Phase], number: int, *, replicas: bool = False
) -> PhaseProgram:
    """Return the program of phase `number` (from 0); with `replicas` its step is mapped over a first axis."""
    augmentation, rewarm_steps = PRESETS[config.data.augment], config.transfer.rewarm_steps
    end, size = phases[-1].end, config.data.size
    tx, step = steps.compiled_phase(
        model, config.train, augmentation, phases[number], end, rewarm_steps, size=size, replicas=replicas
    )
    # One program, not one for each shape: every program on a CPU keeps about a MiB of its compiler.
    return PhaseProgram(jax.jit(tx.init), step)


def take_steps(
    phases: Sequence[Phase],
    program_of: Callable[[int], PhaseProgram],
    state: TrainState,
    key: Any,
    fetch: Callable[[int], Any],
    start_phase: Callable[[int, PhaseProgram, TrainState, Any], None],
    first: int = 0,
) -> Iterator[Taken]:
    """Take the steps of `phases` after step `first`, yielding each as soon as it has been sent to the device.

    The host does not wait here: the batch of the next step is fetched while the step runs. A state that has been
    yielded is overwritten by the step after it.

    Args:
      phases: the phases of the whole run.
      program_of: phase number -> its program.
      state: the state after step `first`.
      key: the root key (one per replica, where the program is mapped over replicas).
      fetch: steps taken -> the batch of the step after them; called once more after the last step.
      start_phase: called with (phase number, program, state, batch) before a phase's first step that is taken here.
      first: steps that are taken already.
    """
    batch = fetch(first)
    for number, phase in enumerate(phases):
        if phase.end <= first:
            continue
        program = program_of(number)
        if number and phase.first >= first:
            fresh = program.init(state.params)
            state = state._replace(opt_state=carry_over(phases[number - 1], state.opt_state, phase, fresh))
        start_phase(number, program, state, batch)
        for step in range(max(phase.first, first) + 1, phase.end + 1):
            state, metrics = program.step(state, batch, key)
            batch = fetch(step)
            yield Taken(step, number, state, metrics)
