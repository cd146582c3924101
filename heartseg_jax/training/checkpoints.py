"""Checkpoints by Orbax: the state, the position in the data, and what the model was trained to see.

Each keeps the SHA-256 of its files, compared before it is read: Orbax's array files have no checksums of their own.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from heartseg_jax import distributed
from heartseg_jax.errors import UserError
from heartseg_jax.files import full_disk_refused
from heartseg_jax.models.tree import mismatches
from heartseg_jax.training import devices
from heartseg_jax.training.saved import ITEMS, JSON, Damaged, Folder, Kept, Step, write_seal

if TYPE_CHECKING:
    from heartseg_jax.training.steps import TrainState

# Orbax logs a dozen lines per save, and each error with several tracebacks; what matters is raised as well.
absl_logging.set_verbosity(absl_logging.FATAL)
for _name in ("orbax", "asyncio"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def _quiet_late_answers(unraisable: Any, report: Any = sys.unraisablehook) -> None:
    """TensorStore answers for each array of a failed save or restore; Orbax has stopped listening at the first."""
    if str(unraisable.exc_value) != "Event loop is closed":
        report(unraisable)


sys.unraisablehook = _quiet_late_answers

DICE = "validation_dice"  # in the data of the best checkpoint


class Checkpoints(Folder["_Store"]):
    """The folder `checkpoints/` of one run: `<step>/` for each kept step, and `best/<step>/`.

    `keep` (how many) is given by the process that trains, which holds the run's lock; readers give none.
    """

    def __init__(self, path: Path, keep: int | None = None):
        root = path.absolute()
        super().__init__(root, lambda place: _Store(place, keep if place == root else keep and 1))
        self._best_dice: float | None = None

    def save(self, state: TrainState, data: Mapping[str, Any], contract: Mapping[str, Any]) -> None:
        """Write a checkpoint of `state`; what was begun but not committed is never taken for one.

        The caller has made sure that the loss of this state's last step is finite.

        Raises:
          UserError: the disk is full, at this save or the one before, which ends in the background.
        """
        self._steps.save(state, data, contract)

    def save_best(
        self, state: TrainState, data: Mapping[str, Any], contract: Mapping[str, Any], dice: float | None
    ) -> bool:
        """Write `state` to `best/` if its validation Dice is higher than what is kept there; return whether it was.

        Of equal ones the earlier stays, so a run that repeats steps after a kill keeps the same best. None (no
        structure to score) and NaN are never kept.
        """
        if dice is None or not math.isfinite(dice):
            return False
        if self._best_dice is None and self._best.steps():  # of the process before
            with contextlib.suppress(Damaged):  # what cannot be read is replaced
                kept = self._best.read(self._best.steps()[-1]).data.get(DICE)
                self._best_dice = kept if isinstance(kept, float) else None
        if self._best_dice is not None and dice <= self._best_dice:
            return False
        self._best_dice = float(dice)
        self._best.save(state, {**data, DICE: float(dice)}, contract)
        return True

    def restore(self, step: Step, like: TrainState) -> TrainState:
        """Return the state of `step`, placed as `like` (arrays or shapes with shardings) is.

        Raises:
          UserError: an array is missing, superfluous, of another shape or dtype, or not what was saved, naming it.
        """
        expected = like.arrays()
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)),
            expected,
        )
        with self._opened(step) as (store, number):
            wrong = mismatches(store.metadata(number), expected)
            if wrong:
                more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
                raise UserError(f"the checkpoint {self.folder(step)} is of another model: {'; '.join(wrong[:3])}{more}")
            return like._replace(**store.state(number, target))

    def restore_arrays(self, step: Step) -> dict[str, Any]:
        """Return the state of `step` as a tree of numpy arrays in the form it was saved, whatever the model.

        Raises:
          UserError: it cannot be read, or an array is not what was saved, naming it.
        """
        with self._opened(step) as (store, number):
            return store.state(number)

    def close(self) -> None:
        """Wait until everything is on the disk; what could not be written is removed.

        Raises:
          UserError: the disk is full.
        """
        try:
            self._steps.close()
        finally:
            if "_best" in self.__dict__:
                self._best.close()


class _Store(Kept):
    """One Orbax manager: the folders `<step>/` of a root folder."""

    def __init__(self, path: Path, keep: int | None):
        super().__init__(path)
        self._unsealed = -1
        self._writes = keep is not None
        if self._writes and distributed.is_first():
            path.mkdir(parents=True, exist_ok=True)
            self._sweep()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            create=False,
            multiprocessing_options=_processes(path.name, together=self._writes),
        )
        # Named handlers, so that a manager that has saved nothing itself can read the metadata too.
        handlers = {"state": ocp.StandardCheckpointHandler(), **{item: ocp.JsonCheckpointHandler() for item in JSON}}
        self._manager = ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, data: Mapping[str, Any], contract: Mapping[str, Any]) -> None:
        arrays, step = devices.copied(state.arrays()), int(jax.device_get(state.step))
        with full_disk_refused(self.path):
            self._manager.wait_until_finished()
            if step in self.steps():
                self._manager.delete(step)
            self._unsealed = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    data=ocp.args.JsonSave(dict(data)),
                    contract=ocp.args.JsonSave(dict(contract)),
                ),
            )

    def metadata(self, step: int) -> Any:
        """Return the state's tree with the shape and dtype of each leaf."""
        try:
            return self._manager.item_metadata(step)["state"]
        except Exception as error:
            raise Damaged(f"its metadata cannot be read: {type(error).__name__}") from error

    def state(self, step: int, target: Any = None) -> dict[str, Any]:
        """Return the state in the form of `target`, or as saved."""
        self.check(step)
        if target is None:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self.metadata(step))
        return self._restore(step, state=ocp.args.StandardRestore(target))["state"]

    def is_whole(self, step: int) -> bool:
        with contextlib.suppress(Damaged):
            return bool(self.read(step)) and bool(self.state(step))
        return False

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # in reverse order, each step whatever the one before it raised
            if self._writes and distributed.is_first():
                stack.callback(self._sweep)
            stack.enter_context(full_disk_refused(self.path))
            stack.callback(self._manager.close)
            self._manager.wait_until_finished()

    def _sweep(self) -> None:
        """Remove what was begun and not committed; Orbax never takes it for whole, but would leave it for ever."""
        for left in self.path.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left, ignore_errors=True)

    def _seal(self) -> None:
        """Add the digests to what is written whole; Orbax calls it in its own thread, before it commits the folder."""
        for folder in [*self.path.glob(f"{self._unsealed}.orbax-checkpoint-tmp*"), self.path / str(self._unsealed)]:
            if folder.is_dir():
                write_seal(folder, ITEMS)

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            # The first sentence says which array; what follows is TensorStore's own state, of no use to a user.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". See ")[0][:200]
            raise Damaged(reason) from error


def _processes(name: str, *, together: bool) -> ocp.options.MultiprocessingOptions:
    """Return who works on a store: all `together`, who wait by the runtime's barriers, or this process by itself."""
    own, everyone = distributed.number(), set(range(distributed.count()))
    if together:  # named, though they are all: else Orbax's barriers are computations, which could meet the steps'
        return ocp.options.MultiprocessingOptions(active_processes=everyone, barrier_sync_key_prefix=name)
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
