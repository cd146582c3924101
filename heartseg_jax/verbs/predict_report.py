"""What became of every study of a batch: one report and one table, derived from the outputs, whoever wrote them."""

from __future__ import annotations

import csv
import fcntl
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from heartseg_jax.data.sources.listing import natural_key
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json, writing
from heartseg_jax.measure.json_form import COLUMNS, rows
from heartseg_jax.verbs.predict_study import MEASUREMENTS, REPORT, VERSION

TABLE = "measurements.csv"
OWN = ".predict"
"""Folder in the batch's output for failures, one file per study, and for the lock."""
DONE, REFUSED, FAILED, WAITING = "done", "refused", "failed", "waiting"
SHARE = 0.05
"""Of the time, that writing report and table may take: in a large batch they are not written after every study."""


class Outcome(NamedTuple):
    """What became of a study. `reason` is empty for one that is done, and names no patient."""

    study: str
    status: str
    reason: str = ""


class BatchReport:
    """Report and table of a batch, written again and again; several processes may do so at once."""

    def __init__(self, output: Path, studies: Sequence[str], made_by: Mapping[str, Any]):
        """`studies` are the names of all, those of other shards too; `made_by` is `Job.identity()`."""
        self._output, self._studies, self._made_by = output, studies, made_by
        self._read: dict[str, tuple[int, dict[str, Any]]] = {}
        self._next = 0.0

    def note(self, outcome: Outcome) -> None:
        """Keep or take back the record that a study failed, and write report and table if it is time to."""
        record = self._output / OWN / f"{outcome.study}.json"
        if outcome.status == DONE:
            record.unlink(missing_ok=True)
        else:
            write_json(record, outcome._asdict())
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> list[Outcome]:
        """Write `report.json` and `measurements.csv`, each whole, and return what they say."""
        began = time.monotonic()
        with _locked(self._output / OWN / "lock"):  # the last to write has read what all others left
            content = self._measurements()
            outcomes = self._outcomes(content)
            counts = Counter(outcome.status for outcome in outcomes)
            write_json(
                self._output / REPORT,
                {
                    "version": VERSION,
                    "made_by": self._made_by,
                    "counts": {status: counts[status] for status in (DONE, REFUSED, FAILED, WAITING)},
                    "studies": [outcome._asdict() for outcome in outcomes],
                },
            )
            with writing(self._output / TABLE) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                for outcome in outcomes:
                    if outcome.status == DONE:
                        table.writerows(rows(outcome.study, content[outcome.study]))
        took = time.monotonic() - began
        self._next = time.monotonic() + took / SHARE
        return outcomes

    def write_shard(self, shard: tuple[int, int], outcomes: Sequence[Outcome]) -> None:
        """Write `report-K-of-N.json`: what this shard did."""
        content = {"version": VERSION, "studies": [outcome._asdict() for outcome in outcomes]}
        write_json(self._output / f"report-{shard[0]}-of-{shard[1]}.json", content)

    def _measurements(self) -> dict[str, dict[str, Any]]:
        """Return the measurements of every finished study by its name; {} of a damaged one. Each is read once."""
        for folder in self._output.iterdir():
            file = folder / MEASUREMENTS
            if folder.name.startswith(".") or not (folder / REPORT).is_file():
                continue
            try:
                changed = file.stat().st_mtime_ns
                if self._read.get(folder.name, (None,))[0] != changed:
                    self._read[folder.name] = changed, read_json(file)
            except (UserError, OSError):
                self._read[folder.name] = 0, {}
        return {name: content for name, (_, content) in self._read.items()}

    def _outcomes(self, content: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
        found = {name: Outcome(name, WAITING) for name in self._studies}
        for name, measured in content.items():
            damaged = Outcome(name, FAILED, f"{MEASUREMENTS} is damaged: remove the folder, and predict it again")
            found[name] = Outcome(name, DONE) if measured else damaged
        for file in (self._output / OWN).glob("*.json"):
            try:
                failure = Outcome(**read_json(file))
            except (UserError, TypeError):
                continue  # another process has just taken it back
            found[failure.study] = failure
        return sorted(found.values(), key=lambda outcome: natural_key(outcome.study))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, also of several machines; where the file system has none, do without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        # Without it each file is still written whole; a last call without --shard makes report and table complete.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
