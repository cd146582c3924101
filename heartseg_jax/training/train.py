"""The training run, from the first folder to the last figure. Read it from `train` downwards."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from heartseg_jax import distributed
from heartseg_jax import workdir as runs
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.progress import StepProgress, say
from heartseg_jax.training import devices, phase_log, residence, steps
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.clock import Clock
from heartseg_jax.training.feed import Feed, open_feed
from heartseg_jax.training.metrics_log import MetricsLog, brief
from heartseg_jax.training.opening import blank_dataset, open_folder, open_together
from heartseg_jax.training.phase_steps import PhaseProgram, take_steps
from heartseg_jax.training.run import Run, first_state, learning_rates


def train(config: Any, path: Path, argv: list[str], *, as_control: bool = False) -> dict[str, Any]:
    """Train the model of `config` in the folder `path`, or go on with the run that lies there.

    Returns the summary of the final evaluation (of several processes the first one's, nothing in the others); with
    `as_control` nothing of it is printed.

    Raises:
      UserError: the folder, the data or the config do not fit.
      GuardStop: a guard found something that makes going on pointless.
    """
    from heartseg_jax.training import ahead, outcome  # scores and figures: whoever only imports the loop needs none

    # Act 1: the folder. A run of another config is refused before anything is touched.
    folder, lock = open_folder(path, config)
    with lock, ahead.compiling(config, folder, blank_dataset(config, folder)) as compiled:
        run = open_together(config, folder)

        # Act 2: the state, on one of three rungs: its own last checkpoint, weights from elsewhere, or fresh ones.
        kept = compiled.residence.result() or residence.of_run(run)  # as it was compiled for
        feed = open_feed(run, kept.resident)
        # Closed however the steps end: a checkpoint that is being written when a guard stops is finished first.
        with closing(Checkpoints(folder.checkpoints, config.checkpoint.keep)) as checkpoints, closing(feed):
            state = first_state(run, checkpoints, feed)
            step = int(state.step)

            # Act 3: what the network will see, as a picture, before the first step is taken.
            distributed.first(lambda: outcome.begin(run, argv, step))

            # Act 4: the steps, phase by phase.
            if step < run.total_steps:
                say(kept.why)
                feed.load()
                compiled.step.wait()
                with distributed.ending_if_lost():
                    state = _take_steps(run, state, feed, checkpoints, compiled.is_compiled)

        # Act 5: the score on patients it never saw, the figures, and the mark that all is there.
        summary = distributed.first(lambda: outcome.score(run, state)) or {}
        if config.transfer.control:
            from heartseg_jax.training import control  # most runs have none

            say("the control: as many steps of the same data above a frozen encoder of random weights")
            train(control.config_of(config, run.dataset.location), control.folder_of(path), argv, as_control=True)
        return distributed.first(lambda: outcome.conclude(run, summary, as_control=as_control)) or {}


def _take_steps(
    run: Run, state: steps.TrainState, feed: Feed, checkpoints: Checkpoints, is_compiled: bool
) -> steps.TrainState:
    """Take the steps that are left, the first phase's program `is_compiled` or not.

    The host never waits for the step that it has just sent off.

    The order: send a step off; fetch the next batch; log the step before. Where an evaluation, a checkpoint or the
    end of a phase is due the host waits, and only there. The evaluation and its row come before the checkpoint: a
    state at which a guard stops is not kept, so that the same command cannot take it for a finished run, and a kill
    between the two leaves no row out for ever.
    """
    cadence, folder = run.cadence, run.folder
    first = int(state.step)
    clock, shown = Clock(), StepProgress(run.total_steps, first)
    log = MetricsLog(run.config.guards, run.dataset.label_set, run.tag, cadence.collapse_evaluations)
    log.restore(runs.read_metrics(folder))
    rates = learning_rates(run)
    position: dict[str, Any] = {}  # in the data, behind the last step that was sent off

    def fetch(taken: int) -> Any:
        nonlocal position
        position = feed.get_state()
        if taken == run.total_steps:
            return None
        with clock.waiting():
            return next(feed)

    def start_phase(number: int, program: PhaseProgram, state: steps.TrainState, given: Any) -> None:
        clock.stop()
        if run.transfers:
            distributed.first(lambda: phase_log.start_phase(run, number, state))
        devices.compile_step(program.step, state, given, run.key, again=is_compiled and number == 0)
        clock.start()
        shown.start()

    # No number crosses between host and device but by device_put and device_get: a hidden wait is an error.
    with closing(shown), jax.transfer_guard("disallow"):
        for taken in take_steps(run.phases, run.program, state, run.key, fetch, start_phase, first):
            step, state = taken.step, taken.state
            clock.step()
            log.record(step, taken.metrics)
            ends_phase = step == run.phases[taken.phase].end
            if ends_phase or cadence.evaluates(step) or cadence.saves(step):
                log.flush()  # the loss of this very step must be known to be finite before it is kept
            row = {}
            if cadence.evaluates(step):
                with clock.paused():
                    row = log.evaluate(step, *evaluate(run, feed, state), patients_by_part(run.dataset))
            if ends_phase and run.transfers:
                distributed.first(functools.partial(phase_log.end_phase, run, taken.phase, state))
            if row or cadence.logs(step):
                start = {"step": step, "epoch": step / cadence.per_epoch} | log.means()
                rate = {f"train/learning_rate/{group}": float(rates[group][step - 1]) for group in rates}
                row = start | rate | clock.lap(run.config.data.batch_size, run.step_flops(taken.phase)) | row
                if distributed.is_first():
                    runs.append_metrics(folder, row)
            if cadence.evaluates(step) and run.tag == "val" and log.finite:
                with clock.paused():
                    checkpoints.save_best(state, position, run.contract.to_json(), row["val/dice/mean"])
            if cadence.saves(step) and log.finite:
                with clock.paused():
                    checkpoints.save(state, position, run.contract.to_json())
            left = clock.seconds_left(run.total_steps - step)
            shown.update(step, brief(row, run.tag), left, notable=cadence.evaluates(step))
    return state


def patients_by_part(dataset: Dataset) -> dict[str, list[int]]:
    """Return the numbers of the patients of each joined dataset by its name; nothing for a single one."""
    found: dict[str, list[int]] = {part.name: [] for part in dataset.members}
    for number in range(len(dataset.patients) if dataset.members else 0):
        found[dataset.part_of(number).name].append(number)
    return found


def evaluate(run: Run, feed: Feed, state: steps.TrainState) -> tuple[float, dict[int, np.ndarray]]:
    """Return the mean loss and each patient's confusion `[C, C]` on the watched slices, in inference mode."""
    eval_step = steps.compiled_eval(run.model, run.config.train)
    results = [(real, eval_step(state, given)) for real, given in feed.watched()]
    loss = 0.0
    confusions: dict[int, np.ndarray] = {}
    for real, result in results:
        found = devices.to_host(run.mesh, result)
        loss += float(found["loss"]) * len(real) / len(run.watched)
        for number, counts in zip(real, np.asarray(found["confusion"], np.int64), strict=False):
            patient = int(run.watched.patient[number])
            confusions[patient] = confusions.get(patient, 0) + counts
    return loss, confusions
