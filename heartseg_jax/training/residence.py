"""Whether the slices of a run are kept on the device: decided by their bytes against the memory that is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from heartseg_jax import distributed
from heartseg_jax.data.examples import SliceStore
from heartseg_jax.errors import UserError
from heartseg_jax.training import devices
from heartseg_jax.training.run import Run, step_memory_bytes

MOST = 0.5
"""'auto' keeps slices where they take at most this share of what is free beside a step: a step's need is estimated,
and others use the machine too."""


class Residence(NamedTuple):
    """The decision, and a line that says it and why."""

    resident: bool
    why: str


def of_run(run: Run) -> Residence:
    """Decide for a run, whose validation slices are kept as well."""
    stores = [run.examples] if run.watched is run.examples else [run.examples, run.watched]
    return decide(
        run.config.data.resident,
        sum(bytes_of(store) for store in stores),
        step_memory_bytes(run.config),
        rows=rows_of(run.examples),
        shown=run.total_steps * run.config.data.batch_size,
    )


def rows_of(store: SliceStore) -> int:
    """Return how many slices a store has, those that only neighbours show included."""
    return len(store.blank().label)


def bytes_of(store: SliceStore, rows: int = 0) -> int:
    """Return the bytes of a store's slices, or of `rows` where it is padded to more."""
    return sum(part.nbytes for part in store.blank(rows) if part is not None)


def decide(asked: str, needed: int, step_bytes: float, *, rows: int, shown: int, among: int = 1) -> Residence:
    """Decide whether slices are kept on the device.

    Args:
      asked: `data.resident`.
      needed: bytes of the slices.
      step_bytes: what a training step needs beside them.
      rows: training slices there are.
      shown: examples that the whole run shows: where they are fewer, most slices would be sent in vain.
      among: processes that share the memory.

    Raises:
      UserError: 'on' is asked for, and they do not fit, or there are several processes.
    """
    given = f"data.resident={asked}"
    if asked == "off":
        return _streamed(given)
    if distributed.count() > 1:
        if asked == "on":
            raise UserError("data.resident=on is for one process, and there are several; leave it at 'auto'")
        return _streamed(f"{given}: there are several processes")
    # The host holds them once, until they have been sent; a CPU's own memory then holds them twice.
    on_cpu = jax.default_backend() == "cpu"
    held, host = needed * (1 + on_cpu), devices.host_available_bytes()
    free = devices.available_bytes()
    beside = None if free is None else max(free - step_bytes, 0) / among
    need = f"{_gib(held)} for {rows} slices"
    fits = f"{need}, and {_gib(beside)} free beside a training step" if beside is not None else need
    if asked == "on":
        if beside is not None and held > beside:
            raise UserError(
                f"data.resident=on needs {_gib(held)} of memory and {_gib(beside)} are available beside a training "
                "step; leave data.resident at 'auto'"
            )
        return Residence(True, f"data: kept on the device ({given}: {fits})")
    if shown < rows:
        return _streamed(f"{given}: {rows} slices, of which the run shows {shown}")
    if beside is None:
        return _streamed(f"{given}: the free memory is unknown")
    if held > MOST * beside:
        return _streamed(f"{given}: {fits}, of which at most {MOST:.0%} are used")
    if host is not None and needed > host:
        return _streamed(f"{given}: {need}, and the machine has {_gib(host)} free to read them into")
    return Residence(True, f"data: kept on the device ({given}: {fits})")


def of_replica(config: Any, stores: Sequence[SliceStore], rows: int, steps: int, among: int) -> Residence:
    """Decide for a laboratory's training, each store padded to `rows`; the first holds the training slices."""
    return decide(
        config.data.resident,
        sum(bytes_of(store, rows) for store in stores),
        step_memory_bytes(config),
        rows=rows_of(stores[0]),
        shown=steps * config.data.batch_size,
        among=among,
    )


def _streamed(why: str) -> Residence:
    return Residence(False, f"data: sent to the device batch by batch ({why})")


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
