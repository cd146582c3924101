"""Each cell measured in a process of its own, one after another. No JAX in this process: it would take the device."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heartseg_jax.benchmarking.cells import Cell, prepare
from heartseg_jax.benchmarking.rows import DOES_NOT_FIT, Row, row_of
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.machine import refused_by_machine


def measure_all(cells: list[Cell]) -> Iterator[tuple[Cell, Row]]:
    """Yield each cell with its row.

    Raises:
      UserError: a dataset does not fit, or the machine lacks something other than memory.
    """
    with tempfile.TemporaryDirectory(prefix="heartseg-benchmark-", ignore_cleanup_errors=True) as folder:
        prepare(cells, Path(folder))
        for cell in cells:
            yield cell, measure_apart(cell, Path(folder))


def measure_apart(cell: Cell, place: Path) -> Row:
    """Return the cell's row, from a process of its own.

    Raises:
      UserError: as `measure_all`.
      RuntimeError: the process failed; its traceback is above.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    asked = (cell.name, load.to_plain(cell.config), cell.work)
    child = context.Process(target=_work, args=(sending, asked, place), daemon=True)
    # A terminal sends Ctrl-C to the child too: it ignores it from its first import on, and is ended from here.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child.start()
        signal.signal(signal.SIGINT, interrupt)
        sending.close()
        try:
            found = receiving.recv()
        except EOFError:
            found = None
        child.join()
    finally:
        signal.signal(signal.SIGINT, interrupt)
        receiving.close()
        if child.pid is not None:
            child.terminate()
            child.join()
    if isinstance(found, UserError):
        raise found
    if found is None and child.exitcode == -signal.SIGKILL:
        return killed(cell)
    if found is None:
        raise RuntimeError(f"the process that measured {cell} ended with status {child.exitcode}")
    return found


def killed(cell: Cell) -> Row:
    """Return the row of a cell whose process the system has killed, as Linux does when memory runs out."""
    config = cell.config
    return row_of(
        config=cell.name,
        work=cell.work,
        size=config.data.size,
        batch_size=config.data.batch_size,
        dtype=config.model.dtype,
        status=DOES_NOT_FIT,
        reason="the system killed its process, as it does when memory runs out",
    )


def _work(sending: Any, asked: tuple[str, dict[str, Any], str], place: Path) -> None:
    """Measure a cell, and send its row or the UserError."""
    name, plain, work = asked
    try:
        with tempfile.TemporaryDirectory(dir=place) as kept:
            _keep_programs(kept)
            from heartseg_jax.benchmarking.measure import measure
            from heartseg_jax.native.library import turn_on

            turn_on()
            found: Any = measure(Cell(name, load.complete(plain), work), place)
    except UserError as error:
        found = error
    except Exception as error:
        refused = refused_by_machine(error)
        if refused is None:
            raise
        found = UserError(refused)
    sending.send(found)


def _keep_programs(folder: str) -> None:
    """Have JAX keep every compiled program in an empty folder, whatever the environment says."""
    import jax

    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
