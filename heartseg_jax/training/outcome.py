"""What a run leaves for people: its first inputs as a picture; at its end the scores and the curves."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from heartseg_jax import workdir as runs
from heartseg_jax.data.examples import examples_at
from heartseg_jax.data.learned import memorised
from heartseg_jax.evaluation import report
from heartseg_jax.evaluation.score_split import score_split
from heartseg_jax.figures import slices
from heartseg_jax.figures.curves import curves
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.files import write_text
from heartseg_jax.findings import apply_policy
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.device import augmented
from heartseg_jax.progress import say
from heartseg_jax.training import averaging, control, devices, guards, steps
from heartseg_jax.training.checkpoints import DICE, Checkpoints
from heartseg_jax.training.run import Run, write_provenance
from heartseg_jax.training.saved import BEST


def begin(run: Run, argv: list[str], step: int) -> None:
    """Write what a start from `step` leaves behind it: its provenance, metrics without later rows, the first inputs."""
    write_provenance(run, argv)
    runs.rewind_metrics(run.folder, step)
    if step < run.total_steps:
        run.folder.done.unlink(missing_ok=True)
    if run.config.log.figures and step == 0:
        draw_inputs(run)


def conclude(run: Run, summary: dict[str, Any], *, as_control: bool) -> dict[str, Any]:
    """Return the summary of a run's end with its control's scores; print it, and mark that all is there.

    With `as_control` nothing is printed.

    Raises:
      GuardStop: almost only background is predicted.
    """
    folder, config, step = run.folder, run.config, summary["step"]
    if config.transfer.control:
        summary = report.with_controls(summary, control.scores(folder.path, summary["split"], step))
        report.write_summary(folder.evaluation / "summary.json", summary)
    shares = summary["foreground_fraction"]
    found = guards.check_black(f"{summary['split']} patients", shares["prediction"], shares["truth"])
    for warning in apply_policy(found, config.guards):
        say(f"WARNING {warning}")
    if not as_control:
        print(report.table(summary, run.dataset.label_set))
        print(f"\n{scored_line(summary, folder.path)}")
        print(f"\nrun: {folder.path}  (summary.json and cases.csv in evaluation/, pictures in figures/)")
    write_text(folder.done, f"step {step}\n")
    return summary


def score(run: Run, state: steps.TrainState) -> dict[str, Any]:
    """Score the test patients (or, where there are none, the best that there is) and draw the curves."""
    state = devices.local(state)
    split = next(s for s in ("test", "validation", "train") if run.dataset.examples(s))
    draw = run.config.log.figures
    summary = score_split(
        make_predictor(run.model, [averaging.weights_of(state.arrays())], run.config.data.batch_size),
        run.dataset,
        split,
        run.contract.input,
        output=run.folder.evaluation,
        step=int(state.step),
        checkpoint=str(run.folder.checkpoints / str(int(state.step))),
        scored="last",
        colours=run.config.log.colours,
        draw=draw,
        warnings=memorised(run.dataset.patients_in(split), [one for one in run.contract.learned_from if one.inherited]),
    )
    summary["best_checkpoint"] = best_checkpoint(run)
    report.write_summary(run.folder.evaluation / "summary.json", summary)
    if draw:
        run.folder.figures.mkdir(exist_ok=True)
        (run.folder.evaluation / "predictions.png").replace(run.folder.figures / "predictions.png")
        rows = runs.read_metrics(run.folder)
        black = next((row[key] for row in rows if (key := f"{run.tag}/all_background_accuracy") in row), None)
        path = run.folder.figures / "curves.png"
        bounds = [(phase.first + 1, f"phase {n}") for n, phase in enumerate(run.phases, 1)]
        curves(
            rows,
            path,
            title=run.folder.path.name,
            background_accuracy=black,
            phase_boundaries=bounds if len(bounds) > 1 else [],
            palette=Palette(run.dataset.label_set, run.config.log.colours),
        )
    return summary


def scored_line(summary: dict[str, Any], path: Path) -> str:
    """Say which step was scored, and which is the best by validation Dice where one is kept."""
    best, last = summary["best_checkpoint"], summary["step"]
    if best is None:
        return f"scored: the last step, {last}"
    if best["step"] == last:
        return f"scored: the last step, {last}, also the best by validation Dice"
    return (
        f"scored: the last step, {last}; the best by validation Dice is that of step {best['step']} "
        f"({best['validation_dice']:.3f}): evaluate --workdir={path} --step=best"
    )


def best_checkpoint(run: Run) -> dict[str, Any] | None:
    """Return step and validation Dice of what is kept in `checkpoints/best`, or None where nothing is."""
    if not (run.folder.checkpoints / BEST).is_dir():
        return None
    with closing(Checkpoints(run.folder.checkpoints)) as checkpoints:
        best = checkpoints.read(checkpoints.choose(BEST))
    return {"step": best.step, DICE: best.data[DICE]}


def draw_inputs(run: Run) -> None:
    """Draw the first batch as the network receives it: after windowing and augmentation."""
    numbers, mask = examples_at(run.examples, run.config.seed, 0, run.config.data.batch_size)
    batch = run.examples.gather(numbers, mask)
    key = steps.named_key(devices.local(run.key), "augment", 0)
    settings = PRESETS[run.config.data.augment]
    seen = jax.jit(lambda batch: augmented(batch, key, settings, run.config.data.size))(batch)
    places = [run.examples.index[n] for n in numbers]
    names = [run.dataset.patients[p].names[z] for p, z in places]
    real = mask > 0
    slices.inputs(
        np.asarray(seen.image)[real],
        np.asarray(seen.label)[real],
        run.folder.figures / "inputs.png",
        Palette(run.dataset.label_set, run.config.log.colours),
        names=names,
    )
