"""The verb `evaluate`: scores a run again. The scoring itself is in `evaluate_run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl.flags import DEFINE_enum, FlagValues

from heartseg_jax.config.flags import define_step, texts

SPLITS = ("test", "validation", "train", "all")


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        required="workdir",
        workdir="the run's folder",
        data="another dataset than the run's own; all of its patients are scored",
        output="where to write (default: evaluation... in the run's folder)",
    )
    define_step("step", "which checkpoint: a step, or best (default: the last)", values)
    DEFINE_enum("split", None, SPLITS, "which patients (default: test; with --data: all)", flag_values=values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Write summary.json, cases.csv and figures, and print the table."""
    from heartseg_jax.verbs.evaluate_run import evaluate

    evaluate(
        Path(values.workdir),
        step=values.step,
        data=Path(values.data) if values.data else None,
        split=values.split,
        output=Path(values.output) if values.output else None,
    )
