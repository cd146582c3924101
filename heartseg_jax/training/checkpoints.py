"""Checkpoints by Orbax: the state, the position in the data, and what the model was trained to see.

Each keeps the SHA-256 of its files, compared before it is read: Orbax's array files have no checksums of their own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from heartseg_jax import distributed
from heartseg_jax.errors import UserError
from heartseg_jax.files import full_disk_refused
from heartseg_jax.models.tree import mismatches
from heartseg_jax.training import devices, seal

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

JSON = ("data", "contract")
ITEMS = ("state", *JSON)

BEST = "best"
"""In place of a step: the checkpoint with the highest validation Dice, kept in the folder of that name."""

DICE = "validation_dice"  # in the data of the best checkpoint

Step = int | str


class Saved(NamedTuple):
    """What a checkpoint holds beside the state."""

    step: int
    data: Mapping[str, Any]
    contract: Mapping[str, Any]


class Damaged(Exception):
    """A checkpoint that cannot be read or is not what was saved; `Checkpoints` adds which other one is good."""


class Checkpoints:
    """The folder `checkpoints/` of one run: `<step>/` for each kept step, and `best/<step>/`.

    `keep` (how many) is given by the process that trains, which holds the run's lock; readers give none.
    """

    def __init__(self, path: Path, keep: int | None = None):
        self._path = path.absolute()
        self._keep = keep
        self._best_dice: float | None = None
        self._steps = _Store(self._path, keep)

    @functools.cached_property
    def _best(self) -> _Store:
        return _Store(self._path / BEST, self._keep and 1)

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, oldest first; the best one is not among them."""
        return self._steps.steps()

    def choose(self, step: Step | None = None) -> Step:
        """Return `step` (or 'best') if it has a checkpoint, the last step where None is given; else raise a UserError.

        What is returned is what `read` and `restore` take; `read(...).step` is always a number.
        """
        if step == BEST:
            if not (self._path / BEST).is_dir() or not self._best.steps():
                raise UserError(
                    f"{self._path} has no best checkpoint: nothing was scored on validation patients yet, or an "
                    "earlier version trained it; give a step"
                )
            return BEST
        known = self.steps()
        if not known:
            raise UserError(f"{self._path} has no checkpoint yet; let the run train first")
        if step is not None and step not in known:
            raise UserError(f"{self._path} has no checkpoint of step {step}; there are {', '.join(map(str, known))}")
        return known[-1] if step is None else step

    def folder(self, step: Step) -> Path:
        """Return the folder of a chosen step's checkpoint."""
        store, number = self._at(step)
        return store.path / str(number)

    def digest(self, step: Step) -> str:
        """Return the SHA-256 of a chosen checkpoint: of the digests of its files, by name."""
        store, number = self._at(step)
        return store.digest(number)

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

    def read(self, step: Step) -> Saved:
        """Return what is kept beside the state of `step`.

        Raises:
          UserError: it cannot be read, is not what was saved, or holds something else than objects.
        """
        with self._opened(step) as (store, number):
            return store.read(number)

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

    def _at(self, step: Step) -> tuple[_Store, int]:
        return (self._best, self._best.steps()[-1]) if step == BEST else (self._steps, int(step))

    @contextlib.contextmanager
    def _opened(self, step: Step) -> Iterator[tuple[_Store, int]]:
        """Give the store and the number of a chosen step; where that is damaged, name a good one."""
        try:
            yield self._at(step)
        except Damaged as error:
            good = next((n for n in reversed(self.steps()) if n != step and self._steps.is_whole(n)), None)
            fix = "no other checkpoint of this run is good: delete that folder to train again"
            if good is not None:
                fix = f"delete that folder, or give --step={good}, to use step {good}, the newest good one"
            raise UserError(f"the checkpoint {self.folder(step)} is damaged ({error}); {fix}") from error


class _Store:
    """One Orbax manager: the folders `<step>/` of a root folder."""

    def __init__(self, path: Path, keep: int | None):
        self.path = path
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

    def read(self, step: int) -> Saved:
        self._check(step)
        found = self._restore(step, data=ocp.args.JsonRestore(), contract=ocp.args.JsonRestore())
        for item in JSON:
            if not isinstance(found[item], dict):
                raise Damaged(f"its {item} is not a JSON object")
        return Saved(step, found["data"], found["contract"])

    def metadata(self, step: int) -> Any:
        """Return the state's tree with the shape and dtype of each leaf."""
        try:
            return self._manager.item_metadata(step)["state"]
        except Exception as error:
            raise Damaged(f"its metadata cannot be read: {type(error).__name__}") from error

    def state(self, step: int, target: Any = None) -> dict[str, Any]:
        """Return the state in the form of `target`, or as saved."""
        self._check(step)
        if target is None:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self.metadata(step))
        return self._restore(step, state=ocp.args.StandardRestore(target))["state"]

    def digest(self, step: int) -> str:
        return seal.digest_of(self.path / str(step), ITEMS)

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
                seal.write(folder, ITEMS)

    def _check(self, step: int) -> None:
        """Compare the files with their digests; checkpoints of earlier versions have none and are accepted."""
        if wrong := seal.broken(self.path / str(step), ITEMS):
            raise Damaged(wrong)

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
