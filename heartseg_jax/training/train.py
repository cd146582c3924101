"""The training run, from the first folder to the last figure. Read it from `train` downwards."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from heartseg_jax import workdir as runs
from heartseg_jax.data import pipeline
from heartseg_jax.evaluation import report
from heartseg_jax.evaluation.score_split import score_split
from heartseg_jax.figures import slices
from heartseg_jax.figures.curves import curves
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.files import write_text
from heartseg_jax.findings import apply_policy
from heartseg_jax.inference.predictor import make_probabilities
from heartseg_jax.models.registry import build_model
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.augment import PRESETS
from heartseg_jax.progress import say, step_bar
from heartseg_jax.training import control, guards, phase_log, steps
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.metrics_log import Ledger
from heartseg_jax.training.phases import phase_at
from heartseg_jax.training.run import Run, enter, first_state, learning_rates, open_run, phase_step, sign


def train(config: Any, path: Path, argv: list[str], *, as_control: bool = False) -> dict[str, Any]:
    """Train the model of `config` in the folder `path`, or go on with the run that lies there.

    Returns the summary of the final evaluation; with `as_control` nothing of it is printed.

    Raises:
      UserError: the folder, the data or the config do not fit.
      GuardStop: a guard found something that makes going on pointless.
    """
    # Act 1: the folder. A run of another config is refused before anything is touched.
    folder, lock = runs.open_for_training(path, config)
    with lock:
        run = open_run(config, folder)

        # Act 2: the model, on one of three rungs: its own last checkpoint, weights from elsewhere, or fresh ones.
        mesh = steps.data_mesh(config.data.batch_size)
        model = build_model(config.model, run.dataset.label_set)
        root = jax.random.key(config.seed)
        batches = pipeline.train_batches(
            run.examples, config.seed, config.data.batch_size, run.total_steps, config.data.threads
        )
        # Closed however the steps end: a checkpoint that is being written when a guard stops is finished first.
        with closing(Checkpoints(folder.checkpoints, config.checkpoint.keep)) as checkpoints, closing(batches):
            state = first_state(run, model, mesh, root, checkpoints, batches)
            sign(run, argv)
            runs.rewind_metrics(folder, int(state.step))

            # Act 3: what the network will see, as a picture, before the first step is taken.
            if config.log.figures and int(state.step) == 0:
                _draw_inputs(run, root)

            # Act 4: the steps, phase by phase.
            if int(state.step) < run.total_steps:
                folder.done.unlink(missing_ok=True)
                state = _loop(run, model, state, batches, checkpoints, mesh, root)

        # Act 5: the score on patients it never saw, the figures, and the mark that all is there.
        summary = _finish(run, model, state)
        if config.transfer.control:
            say("the control: as many steps of the same data above a frozen encoder of random weights")
            train(control.config_of(config, run.dataset.path), control.folder_of(path), argv, as_control=True)
            summary = report.with_controls(summary, control.scores(path, summary["split"], int(state.step)))
            report.write_summary(folder.evaluation / "summary.json", summary)
        if not as_control:
            print(report.table(summary, run.dataset.label_set))
        shares = summary["foreground_fraction"]
        found = guards.check_black(f"{summary['split']} patients", shares["prediction"], shares["truth"])
        for warning in apply_policy(found, config.guards):
            say(f"WARNING {warning}")
        if not as_control:
            print(f"\nrun: {folder.path}  (summary.json and cases.csv in evaluation/, pictures in figures/)")
        write_text(folder.done, f"step {int(state.step)}\n")
        return summary


def _loop(
    run: Run, model: UNet, state: steps.TrainState, batches: Any, checkpoints: Checkpoints, mesh: Any, root: jax.Array
) -> steps.TrainState:
    """Take the steps that are left. The host never waits for the step that it has just sent off.

    The order within a step: send it off; load and send the next batch while it runs; only then read the
    metrics of the step before. Where a checkpoint, an evaluation or the end of a phase is due the host waits, and
    only there. The evaluation and its row come before the checkpoint: a state at which a guard stops is not kept, so
    that the same command cannot take it for a finished run, and a kill between the two leaves no row out for ever.
    """
    config, first = run.config, int(state.step)
    ledger = Ledger(
        config.guards,
        tag=run.tag,
        batch_size=config.data.batch_size,
        per_epoch=run.per_epoch,
        write=lambda row: runs.append_metrics(run.folder, row),
        tell=say,
        labels=run.dataset.label_set,
    )
    ledger.recall(runs.read_metrics(run.folder))
    eval_step = steps.make_eval_step(model, config.train)
    rates = learning_rates(run)
    batch = steps.to_devices(mesh, next(batches))
    bar = step_bar(run.total_steps, first)
    number, entering = -1, False
    train_step: Any = None
    for step in range(first + 1, run.total_steps + 1):
        if (phase := phase_at(run.phases, step - 1)) != number:
            number, train_step = phase, phase_step(run, model, phase)[1]
            if step - 1 == run.phases[number].first and number:
                state = enter(run, model, mesh, number, state)
            if run.transfers:
                phase_log.begin(run, number, state)
            ledger.start_clock()
            entering = True
        ends = step == run.phases[number].end
        saves = step == run.total_steps or step % config.checkpoint.every_steps == 0
        looks = step == run.total_steps or step % (run.per_epoch * config.log.evaluate_every_epochs) == 0
        state, current = train_step(state, batch, root)
        position = batches.get_state() if saves else {}
        if step < run.total_steps:
            began = time.perf_counter()
            batch = steps.to_devices(mesh, next(batches))
            ledger.waited(time.perf_counter() - began)
        ledger.take(step, current)
        if saves or looks or ends:
            ledger.settle()  # the loss of this very step must be known to be finite before it is kept
        row = {}
        if looks:
            began = time.perf_counter()
            row = ledger.look(step, *_watch(run, eval_step, state, mesh))
            ledger.paused(time.perf_counter() - began)
        if ends and run.transfers:
            phase_log.end(run, number, state)
        if row or step % config.log.every_steps == 0:
            ledger.write(step, {group: float(rate[step - 1]) for group, rate in rates.items()}, row)
        if saves and ledger.finite:
            began = time.perf_counter()
            checkpoints.save(state, position, run.contract)
            ledger.paused(time.perf_counter() - began)
        if entering:
            # From here on: the bar's estimate and the rates would otherwise take compilation for the pace.
            jax.block_until_ready(current)
            ledger.start_clock()
            bar.unpause()
            entering = False
        bar.update()
        bar.set_postfix_str(ledger.brief, refresh=False)
        if bar.disable and row:
            say(f"step {step}/{run.total_steps}  {ledger.brief}")
    bar.close()
    return state


def _watch(run: Run, eval_step: Any, state: steps.TrainState, mesh: Any) -> tuple[float, dict[int, np.ndarray]]:
    """Return the mean loss and each patient's confusion on the watched slices, in inference mode."""
    examples = run.watched
    results = [
        (real, eval_step(state, steps.to_devices(mesh, batch)))
        for real, batch in pipeline.in_order(examples, range(len(examples)), run.config.data.batch_size)
    ]
    loss = 0.0
    confusions: dict[int, np.ndarray] = {}
    for real, result in results:
        loss += float(result["loss"]) * len(real) / len(examples)
        for number, counts in zip(real, np.asarray(result["confusion"], np.int64), strict=False):
            patient = int(examples.patient[number])
            confusions[patient] = confusions.get(patient, 0) + counts
    return loss, confusions


def _finish(run: Run, model: Any, state: steps.TrainState) -> dict[str, Any]:
    """Score the test patients (or, where there are none, the best that there is) and draw the curves."""
    split = next(s for s in ("test", "validation", "train") if run.dataset.examples(s))
    draw = run.config.log.figures
    summary = score_split(
        make_probabilities(model, state.params, state.batch_stats),
        run.dataset,
        split,
        run.view,
        output=run.folder.evaluation,
        batch_size=run.config.data.batch_size,
        step=int(state.step),
        checkpoint=str(run.folder.checkpoints / str(int(state.step))),
        draw=draw,
    )
    if draw:
        run.folder.figures.mkdir(exist_ok=True)
        (run.folder.evaluation / "predictions.png").replace(run.folder.figures / "predictions.png")
        rows = runs.read_metrics(run.folder)
        black = next((row[key] for row in rows if (key := f"{run.tag}/all_background_accuracy") in row), None)
        path = run.folder.figures / "curves.png"
        bounds = (
            [(phase.first + 1, f"phase {n}") for n, phase in enumerate(run.phases, 1)] if len(run.phases) > 1 else []
        )
        curves(
            rows,
            path,
            title=run.folder.path.name,
            background_accuracy=black,
            phase_boundaries=bounds,
            palette=_palette(run),
        )
    return summary


def _palette(run: Run) -> Palette:
    return Palette(run.dataset.label_set, run.config.log.get("colours", "display"))


def _draw_inputs(run: Run, root: jax.Array) -> None:
    """Draw the first batch as the network receives it: after windowing and augmentation."""
    numbers, mask = pipeline.indices(run.config.seed, 0, 0, len(run.examples), run.config.data.batch_size)
    batch = run.examples.gather(numbers, mask)
    key = steps.named_key(root, "augment", 0)
    settings = PRESETS[run.config.data.augment]
    image, label = jax.jit(lambda batch: steps.prepare_inputs(batch, key, settings))(batch)
    places = [run.examples.index[n] for n in numbers[:8]]
    names = [run.dataset.patients[p].names[z] for p, z in places]
    slices.inputs(
        np.asarray(image)[:8],
        np.asarray(label)[:8],
        run.folder.figures / "inputs.png",
        _palette(run),
        names=names,
    )
