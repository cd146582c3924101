"""Opening a run: its data looked at by the guards, its contract, and the checkpoint that it goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from heartseg_jax import workdir as runs
from heartseg_jax.anatomy import HEART
from heartseg_jax.data import pipeline
from heartseg_jax.data.dataset.write import Dataset
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity
from heartseg_jax.errors import UserError
from heartseg_jax.files import write_json
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.augment import PRESETS
from heartseg_jax.progress import say
from heartseg_jax.training import initial_weights, phases, steps
from heartseg_jax.training.checkpoints import Checkpoints, Saved
from heartseg_jax.training.data_guards import inspect_data
from heartseg_jax.training.phases import Phase
from heartseg_jax.training.steps import TrainState


class Run(NamedTuple):
    """What stays the same from the first step to the last."""

    config: Any
    folder: runs.Workdir
    dataset: Dataset
    view: pipeline.View
    examples: pipeline.Examples
    watched: pipeline.Examples
    per_epoch: int
    total_steps: int
    phases: tuple[Phase, ...]
    contract: dict[str, Any]

    def first_batches(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the first `count` batches of the training slices, in the order of training."""
        size = self.config.data.batch_size
        for step in range(count):
            epoch, place = divmod(step, self.per_epoch)
            yield self.examples.gather(*pipeline.indices(self.config.seed, epoch, place, len(self.examples), size))

    @property
    def transfers(self) -> bool:
        """Whether phases or weights from elsewhere are asked for: then the run keeps their log."""
        asked = self.config
        return asked.transfer.schedule != "none" or bool(asked.pretrained.path or asked.pretrained.recalibrate_batches)

    @property
    def tag(self) -> str:
        """'val' where there are validation patients; 'fit' where the training slices stand in for them."""
        return "fit" if self.watched is self.examples else "val"


def open_run(config: Any, folder: runs.Workdir) -> Run:
    """Bring the data up and look at them with the guards."""
    dataset = dataset_for(config, folder.path)
    view = pipeline.view_of(config.data, dataset.intensity)
    if not dataset.examples("train"):
        raise UserError(f"{dataset.path} has no training patients; prepare it with others, or fewer test patients")
    for warning in inspect_data(dataset, config.guards):
        say(f"WARNING {warning}")
    for warning in pipeline.misfits(view, dataset.patients):
        say(f"WARNING {warning}")
    examples = pipeline.Examples(dataset, "train", view, config.data.cache_gb)
    validates = bool(dataset.examples("validation"))
    watched = pipeline.Examples(dataset, "validation", view, config.data.cache_gb) if validates else examples
    per_epoch = pipeline.steps_per_epoch(len(examples), config.data.batch_size)
    total_steps = config.train.steps or per_epoch * config.train.epochs
    planned = phases.plan(config.transfer, config.model.levels, total_steps)
    contract = {
        # Where the last phase ends may change: a run can go on. Where the others begin may not.
        "phases": [{"first_step": phase.first, "multipliers": dict(phase.multipliers)} for phase in planned],
        "view": dict(pipeline.as_contract(view)),
        "dataset": str(dataset.path.absolute()),
        "dataset_identity": dataset_identity(dataset),
        "task": dataset.label_set.name,
        "per_epoch": per_epoch,
    }
    names = ", ".join(
        f"{len(dataset.patients_in(s))} {s} ({len(dataset.examples(s))} slices)"
        for s in ("train", "validation", "test")
    )
    say(f"data: {dataset.path}; patients: {names}")
    return Run(config, folder, dataset, view, examples, watched, per_epoch, total_steps, planned, contract)


def sign(run: Run, argv: list[str]) -> None:
    """Write `config.json` and `run.json` of this start, once it is known that the run can go on."""
    devices = [device.device_kind for device in jax.devices()]
    runs.sign(run.folder, run.config, {**runs.provenance(argv), "dataset": run.contract, "devices": devices})


def first_state(run: Run, model: UNet, mesh: Any, key: jax.Array, checkpoints: Checkpoints, batches: Any) -> TrainState:
    """Return the state to go on from, on one of three rungs: the run's own last checkpoint, weights from elsewhere, or
    fresh ones. Where there is a checkpoint, the data are set to its place.

    Raises:
      UserError: the checkpoint is of other data, of another model, or of more steps than the config asks for; or the
        weights that `initial_weights.path` names do not fit.
    """
    params, batch_stats = steps.init_params(model, key, run.config.data.size)
    saved = _own_checkpoint(run, checkpoints)
    number = phases.phase_at(run.phases, saved.step - 1 if saved else 0)
    tx, _ = phase_step(run, model, number)
    if saved is None:
        if run.transfers:
            params, batch_stats, source = initial_weights.start(
                run.config, model, params, batch_stats, run.first_batches
            )
            write_json(run.folder.transfer, {"pretrained": source, "phases": []})
            say(f"weights before step 1: {run.config.pretrained.path or 'random'}")
        return steps.replicate(mesh, steps.begin(tx, params, batch_stats))
    if saved.step < run.total_steps:
        batches.set_state(dict(saved.data))
    say(f"going on from step {saved.step} of {run.total_steps}")
    return checkpoints.restore(saved.step, steps.replicate(mesh, steps.begin(tx, params, batch_stats)))


def phase_step(run: Run, model: UNet, number: int) -> tuple[Any, Any]:
    """Return the optimizer and the jitted step of the run's phase `number` (from 0)."""
    config = run.config
    # The end of the last phase only says when to stop: it must not make another program of the same steps.
    return steps.compiled_phase(
        model,
        config.train,
        PRESETS[config.data.augment],
        run.phases[number],
        run.total_steps,
        config.transfer.rewarm_steps,
    )


def learning_rates(run: Run) -> dict[str, np.ndarray]:
    """Return the rate of every step for each group, or for 'all' where none is told apart.

    All at once and beforehand: asked for step by step, each would wait in the device's queue behind a step.
    """
    whole = steps.learning_rate_schedule(run.config.train, run.total_steps)
    found: dict[str, list[np.ndarray]] = {}
    for phase in run.phases:
        places = np.arange(phase.first, phase.end)
        schedule = phases.learning_rates(whole, phase, run.config.transfer.rewarm_steps)
        rates = np.broadcast_to(np.asarray(schedule(places)), places.shape)
        for group, multiplier in phase.multipliers:
            found.setdefault(group, []).append(rates * multiplier)
    joined = {group: np.concatenate(parts) for group, parts in found.items()}
    return joined if run.transfers else {"all": joined["head"]}


def enter(run: Run, model: UNet, mesh: Any, number: int, state: TrainState) -> TrainState:
    """Return the state as phase `number` takes it over from the one before: what thaws gets a fresh optimizer."""
    before, after = run.phases[number - 1], run.phases[number]
    fresh = steps.replicate(mesh, phase_step(run, model, number)[0].init(state.params))
    return state._replace(opt_state=phases.carry_over(before, state.opt_state, after, fresh))


def _own_checkpoint(run: Run, checkpoints: Checkpoints) -> Saved | None:
    """Return what lies beside the run's newest checkpoint once it is known to fit, or None where there is none."""
    if not checkpoints.steps():
        return None
    saved = checkpoints.read(checkpoints.steps()[-1])
    # Where the dataset lies is noted, not compared: its identity tells whether it is the same. Runs from before
    # there were phases had a single one, those from before there were tasks are of the heart.
    old = {"phases": run.contract["phases"] if len(run.phases) == 1 else None, "task": HEART.name, **saved.contract}
    changed = [key for key in run.contract if key != "dataset" and old.get(key) != run.contract[key]]
    if changed:
        raise UserError(
            f"{run.folder.path} was trained on other data, another view of them or in other phases "
            f"({', '.join(changed)} changed); give another --workdir"
        )
    if saved.step > run.total_steps:
        raise UserError(
            f"{run.folder.path} has already trained {saved.step} steps, more than the {run.total_steps} that "
            f"train.epochs={run.config.train.epochs} asks for; raise --config.train.epochs"
        )
    return saved
