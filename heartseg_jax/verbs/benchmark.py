"""The verb `benchmark`: what training steps and predictions cost on this machine. It is measured in benchmarking/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl.flags import FlagValues

from heartseg_jax.config import load
from heartseg_jax.config.flags import define_config, define_pages, texts, typed_config
from heartseg_jax.errors import UserError


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    define_config(values, argv, "what to measure, by its fields benchmark.*", required=True)
    texts(values, json="a file for the rows as JSON, one a line; written when all are measured")
    define_pages(values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Measure every cell in a process of its own; print the table, and write the rows where --json names a file.

    The keys of a row are `benchmarking.rows.KEYS`.

    Raises:
      UserError: the config or its grid is not accepted, a dataset does not fit, or --json cannot be written.
    """
    name, config = load.config_of(values)
    target = values.json and Path(values.json)
    if target:
        check_target(target)
    from heartseg_jax.benchmarking import rows
    from heartseg_jax.benchmarking.cells import cells_of
    from heartseg_jax.benchmarking.workers import measure_all
    from heartseg_jax.files import write_text
    from heartseg_jax.native.switch import remember
    from heartseg_jax.progress import say

    remember(values.native_kernels)
    cells = cells_of(name, config, typed_config(values)[1])
    cost = f"each in a process of its own, compiled twice and timed for {config.benchmark.seconds:g} s or more"
    say(f"benchmark: {len(cells)} cells, {cost}")
    found = []
    for number, (cell, row) in enumerate(measure_all(cells), 1):
        found.append(row)
        say(f"[{number}/{len(cells)}] {cell}: {rows.brief(row)}")
    if target:
        write_text(target, rows.lines_of(found))
    print(rows.table(found))


def check_target(path: Path) -> None:
    """Raise a UserError where a file cannot be written: minutes of measuring would be lost."""
    from heartseg_jax.files import check_writable

    if path.is_dir():
        raise UserError(f"--json={path} is a folder; give a file")
    try:
        check_writable(path)
    except OSError as error:
        raise UserError(f"--json={path} cannot be written ({error.strerror}); name another file") from error


def interrupted(values: FlagValues) -> str:
    """Return what there is after Ctrl-C."""
    return "what was measured is above" + (f"; nothing was written to {values.json}" if values.json else "")
