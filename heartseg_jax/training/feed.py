"""What a training's steps are given: batches sent one by one, or places among slices that lie on the device.

Both show the same examples in the same order and have the same state, so that a run may go on either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from heartseg_jax.data import examples, pipeline
from heartseg_jax.data.examples import Slices, SliceStore
from heartseg_jax.data.indexed import Indexed, examples_from
from heartseg_jax.progress import bar
from heartseg_jax.training import devices
from heartseg_jax.training.run import Run

STEPS_SENT = 256
"""Steps whose order is computed and sent at once."""

POSITION = "next_index"
"""Grain's name for the step that comes next; the only thing that a state holds."""


class Feed(Protocol):
    """An iterator over what the steps from 0 are given, on the devices; its state is JSON-able, for checkpoints."""

    def load(self) -> None:
        """Bring to the devices what stays there; without it the first `next` does."""

    def __next__(self) -> Any: ...

    def watched(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield (numbers of the real examples, what the evaluation is given) over the watched slices in order."""

    def shapes(self) -> tuple[Any, Any]:
        """Return what a step and an evaluation are given, of which only shapes, types and shardings count."""

    def get_state(self) -> dict[str, Any]:
        """Return the position of the next step."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from the position that either kind of feed gave."""

    def close(self) -> None:
        """End its threads, and give back what it keeps on the devices."""


def open_feed(run: Run, resident: bool) -> Feed:
    """Return the feed of a run, from step 0: `resident` or streamed. Nothing is read yet."""
    return _Resident(run) if resident else _Streamed(run)


class _Streamed:
    """Batches that threads load ahead, each sent while the step before it runs; a process loads its own rows only."""

    def __init__(self, run: Run):
        data = run.config.data
        self._run, self._rows = run, devices.own_rows(run.mesh, data.batch_size)
        self._batches = pipeline.train_batches(
            run.examples, run.config.seed, data.batch_size, run.total_steps, data.threads, self._rows
        )

    def load(self) -> None:
        pass

    def __next__(self) -> Any:
        return devices.to_devices(self._run.mesh, next(self._batches))

    def watched(self) -> Iterator[tuple[np.ndarray, Any]]:
        for real, batch in examples.in_order(self._run.watched, self._run.config.data.batch_size, self._rows):
            yield real, devices.to_devices(self._run.mesh, batch)

    def shapes(self) -> tuple[Any, Any]:
        [batch] = self._run.first_batches(1)
        return devices.to_devices(self._run.mesh, batch), next(self.watched())[1]

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._batches.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._batches.set_state(state)

    def close(self) -> None:
        self._batches.close()


class _Resident:
    """Slices that lie on the devices, whole on each; every device gathers its part of a batch from its own."""

    def __init__(self, run: Run):
        self._run, self._next = run, 0
        self._train = Held(run.examples, run.mesh)
        self._watched = self._train if run.watched is run.examples else Held(run.watched, run.mesh)

    def load(self) -> None:
        for held in {id(held): held for held in (self._train, self._watched)}.values():
            held.load(self._run.config.data.threads)

    def __next__(self) -> Indexed:
        self.load()
        given = self._given()
        self._next += 1
        return given

    def _given(self) -> Indexed:
        return self._train.steps(self._run.config.seed, self._next, self._run.config.data.batch_size)

    def watched(self) -> Iterator[tuple[np.ndarray, Indexed]]:
        return self._watched.in_order(self._run.config.data.batch_size)

    def shapes(self) -> tuple[Indexed, Indexed]:
        return self._given(), next(self.watched())[1]

    def get_state(self) -> dict[str, Any]:
        return {POSITION: self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._next = int(state[POSITION])

    def close(self) -> None:
        self._train.release()
        self._watched.release()


class Held:
    """The slices of a store on the devices, and the order in which they are shown.

    Until `load` there are only their shapes, for a compilation. With a `mesh` each of its devices holds all slices,
    and examples are split among them; without one they are on the default device. Fewer slices than `rows` are filled
    up to them, so that stores of different length share a program.
    """

    def __init__(self, store: SliceStore, mesh: Mesh | None = None, rows: int = 0):
        self._store, self._mesh, self._rows = store, mesh, rows
        self.release()
        planes = np.zeros((max(rows, len(store)), store.planes.shape[1]), np.int32)
        planes[: len(store)] = store.planes
        self._planes = self._put(planes)
        self._looks: tuple[int, list[tuple[np.ndarray, Any, Any]]] | None = None

    def release(self) -> None:
        """Keep only the slices' shapes: their memory is free once nobody else holds what was given."""
        whole = None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec())
        shape = lambda part: jax.ShapeDtypeStruct(part.shape, part.dtype, sharding=whole)  # noqa: E731
        self._slices: Slices = jax.tree.map(shape, self._store.blank(self._rows))
        self._sent: tuple[tuple[int, int, int], Indexed] | None = None
        self._loaded = False

    def load(self, threads: int = 1) -> None:
        """Read all slices and send them, unless they are there."""
        if not self._loaded:
            self._slices = self._put(self._store.whole(self._rows, threads, bar("slices sent to the device")))
            self._sent, self._loaded = None, True

    def steps(self, seed: int, step: int, batch_size: int) -> Indexed:
        """Return what a global step is given: the order of several steps, this one among them."""
        first = step - step % STEPS_SENT
        asked = seed, first, batch_size
        if self._sent is None or self._sent[0] != asked:
            numbers, mask = examples_from(self._store, seed, first, STEPS_SENT, batch_size)
            self._sent = asked, self._indexed(*self._send(numbers, mask), self._put(np.int32(first)))
        return self._sent[1]

    def in_order(self, batch_size: int) -> Iterator[tuple[np.ndarray, Indexed]]:
        """Yield (numbers of the real examples, what gathers their batch as that of step 0) over all in order."""
        if self._looks is None or self._looks[0] != batch_size:
            batches = examples.padded(np.arange(len(self._store)), batch_size)
            self._looks = batch_size, [(real, *self._send(filled[None], mask[None])) for real, filled, mask in batches]
        first = self._put(np.int32(0))
        for real, numbers, mask in self._looks[1]:
            yield real, self._indexed(numbers, mask, first)

    def _indexed(self, numbers: Any, mask: Any, first: Any) -> Indexed:
        return Indexed(self._slices, self._planes, numbers, mask, first)

    def _send(self, numbers: np.ndarray, mask: np.ndarray) -> tuple[Any, Any]:
        return self._put(numbers.astype(np.int32), None, "batch"), self._put(mask, None, "batch")

    def _put(self, tree: Any, *axes: str | None) -> Any:
        return jax.device_put(tree, None if self._mesh is None else NamedSharding(self._mesh, PartitionSpec(*axes)))
