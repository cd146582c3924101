"""Checkpoints by Orbax: the state, the position in the data, and what the model was trained to see."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from heartseg_jax.errors import UserError
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.training.steps import TrainState

# Orbax tells every save in a dozen lines; what a user must know is said by the run itself.
absl_logging.set_verbosity(absl_logging.ERROR)
logging.getLogger("orbax").setLevel(logging.ERROR)


class Saved(NamedTuple):
    """What a checkpoint holds beside the state."""

    step: int
    data: Mapping[str, Any]
    contract: Mapping[str, Any]


class Checkpoints:
    """The folder `checkpoints/<step>/` of one run.

    `keep` (how many) is given by who trains, under the run's lock, and by nobody else: who only reads gives none.
    """

    def __init__(self, path: Path, keep: int | None = None):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=keep is not None)
        self._path = path.absolute()
        if keep is not None:
            # What a killed run began to write; Orbax passes it over, but would leave it on the disk for ever.
            for left in self._path.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)
        # Named handlers, so that a manager that has not saved anything itself can read the metadata too.
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "contract": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self._path, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def choose(self, step: int | None = None) -> int:
        """Return `step` if it has a checkpoint, the last step where None is given; else raise a UserError."""
        known = self.steps()
        if not known:
            raise UserError(f"{self._path} has no checkpoint yet; let the run train first")
        if step is not None and step not in known:
            raise UserError(f"{self._path} has no checkpoint of step {step}; there are {', '.join(map(str, known))}")
        return known[-1] if step is None else step

    def save(self, state: TrainState, data: Mapping[str, Any], contract: Mapping[str, Any]) -> None:
        """Write a checkpoint of `state`; what was begun but not committed is never taken for one.

        The caller has made sure that the loss of this state's last step is finite. The arrays are copied to
        the host first: on a CPU they may share memory with buffers that the next step is given to overwrite.
        """
        host = jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(state._asdict()))
        self._manager.save(
            int(host["step"]),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(host),
                data=ocp.args.JsonSave(dict(data)),
                contract=ocp.args.JsonSave(dict(contract)),
            ),
        )

    def read(self, step: int) -> Saved:
        """Return what lies beside the state of `step`."""
        restored = self._restore(step, data=ocp.args.JsonRestore(), contract=ocp.args.JsonRestore())
        return Saved(step, restored["data"], restored["contract"])

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Return the state of `step`, placed as `like` (arrays or shapes with shardings) is.

        Raises:
          UserError: an array is missing, superfluous, or of another shape or dtype, naming it.
        """
        expected = like._asdict()
        self._compare(step, expected)
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)),
            expected,
        )
        return TrainState(**self._restore(step, state=ocp.args.StandardRestore(target))["state"])

    def restore_arrays(self, step: int) -> dict[str, Any]:
        """Return the state of `step` as a tree of numpy arrays in the form it was saved, for inspection."""
        metadata = self._metadata(step)
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
        return self._restore(step, state=ocp.args.StandardRestore(target))["state"]

    def close(self) -> None:
        """Wait until everything is on the disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            # The first sentence says which array; what follows is TensorStore's own state, of no use to a user.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". See ")[0][:200]
            raise UserError(
                f"the checkpoint {self._path / str(step)} cannot be read ({reason}); delete that folder to go on "
                "from the one before"
            ) from error

    def _metadata(self, step: int) -> Any:
        try:
            return self._manager.item_metadata(step)["state"]
        except Exception as error:
            raise UserError(
                f"the checkpoint {self._path / str(step)} cannot be read ({type(error).__name__}); delete that folder "
                "to go on from the one before"
            ) from error

    def _compare(self, step: int, expected: Any) -> None:
        """Compare shapes and dtypes by path: Orbax would cast a dtype in silence."""

        def described(tree: Any) -> dict[str, str]:
            leaves = named_leaves(tree).items()
            return {path: f"{tuple(leaf.shape)} {np.dtype(leaf.dtype).name}" for path, leaf in leaves}

        saved, wanted = described(self._metadata(step)), described(expected)
        wrong = [
            f"{name}: saved {saved[name]}, expected {wanted[name]}"
            for name in saved
            if wanted.get(name, saved[name]) != saved[name]
        ]
        wrong += [f"{name} is not in the checkpoint" for name in sorted(set(wanted) - set(saved))]
        wrong += [f"{name} is in the checkpoint alone" for name in sorted(set(saved) - set(wanted))]
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise UserError(
                f"the checkpoint {self._path / str(step)} is of another model: {'; '.join(wrong[:3])}{more}"
            )
