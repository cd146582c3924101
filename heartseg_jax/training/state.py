"""The state that a run goes on from: its own last checkpoint's, weights from elsewhere, or fresh ones."""

from __future__ import annotations

from typing import Any

from heartseg_jax.errors import UserError
from heartseg_jax.files import write_json
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.progress import say
from heartseg_jax.training import devices, phases, steps
from heartseg_jax.training.checkpoints import Checkpoints, Saved
from heartseg_jax.training.run import Run
from heartseg_jax.training.steps import TrainState


def first_state(run: Run, checkpoints: Checkpoints, batches: Any) -> TrainState:
    """Return the state to go on from, on every device. Where there is a checkpoint, `batches` are set to its position.

    Raises:
      UserError: the checkpoint is of other data, of another model, or of more steps than the config asks for; or the
        weights that `pretrained.path` names do not fit.
    """
    saved = _own_checkpoint(run, checkpoints)
    params, batch_stats = steps.init_params(run.model, run.key, run.config.data.size, len(run.contract.input.channels))
    program = run.program(phases.phase_at(run.phases, saved.step - 1 if saved else 0))
    if saved is None and run.transfers:
        from heartseg_jax.training import initial_weights  # with it come the readers of Keras files

        params, batch_stats, source = initial_weights.start(
            run.config, run.model, params, batch_stats, run.first_batches
        )
        write_json(run.folder.transfer, {"pretrained": source, "phases": []})
        say(f"weights before step 1: {run.config.pretrained.path or 'random'}")
    params, batch_stats = devices.replicate(run.mesh, (params, batch_stats))
    state = devices.replicate(run.mesh, steps.begin(program, params, batch_stats))
    if saved is None:
        return state
    if saved.step < run.total_steps:
        batches.set_state(dict(saved.data))
    say(f"going on from step {saved.step} of {run.total_steps}")
    return checkpoints.restore(saved.step, state)


def _own_checkpoint(run: Run, checkpoints: Checkpoints) -> Saved | None:
    """Return what lies beside the run's newest checkpoint once it is known to fit, or None where there is none."""
    if not checkpoints.steps():
        return None
    saved = checkpoints.read(checkpoints.steps()[-1])
    where = f"the checkpoint of step {saved.step} in {run.folder.path}"
    changed = Contract.from_json(saved.contract, where).differences(run.contract)
    if changed:
        raise UserError(
            f"{run.folder.path} was trained on other data, with another input or in other phases "
            f"({', '.join(changed)} changed); give another --workdir"
        )
    if saved.step > run.total_steps:
        raise UserError(
            f"{run.folder.path} has already trained {saved.step} steps, more than the {run.total_steps} that "
            f"train.epochs={run.config.train.epochs} asks for; raise --config.train.epochs"
        )
    return saved
