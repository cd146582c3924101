"""What became of every study of a batch: one report and one table, derived from the outputs, whoever wrote them."""

from __future__ import annotations

import csv
import fcntl
import json
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
NOT_STORED = "not stored: "
SHARE = 0.05
"""Of the time, that writing report and table may take: in a large batch they are not written after every study."""


class Outcome(NamedTuple):
    """What became of a study.

    Attributes:
      study: its name.
      status: DONE, REFUSED, FAILED or WAITING.
      reason: empty for one that is done; names no patient.
      stored: with --store, whether its DICOM objects are in the archive: 'stored', 'not stored: ...' or 'not
        applicable: ...'.
      made_by_other: its outputs were made by another model, version or with other options than the batch's.
    """

    study: str
    status: str
    reason: str = ""
    stored: str = ""
    made_by_other: bool = False

    def failed(self, storing: bool) -> bool:
        """Return whether less was done than was asked for; `storing`: whether that was to store, too."""
        return self.status != DONE or (storing and self.stored.startswith(NOT_STORED))


class _Measured(NamedTuple):
    """What a study's folder holds: its rows of the table, none where it is damaged, and by what it was made."""

    changed: int
    rows: list[dict[str, Any]]
    made_by: Any = None


class BatchReport:
    """Report and table of a batch, written again and again; several processes may do so at once."""

    def __init__(self, output: Path, studies: Sequence[str], made_by: Mapping[str, Any]):
        """`studies` are the names of all, those of other shards too; `made_by` is `Job.identity()`."""
        self._output, self._studies = output, frozenset(studies)
        self._made_by = json.loads(json.dumps(made_by))  # as it is read back
        self._read: dict[str, _Measured] = {}
        self._next = 0.0

    def stored(self, study: str) -> str:
        """Return what an earlier call noted of a finished study's objects."""
        noted = self._noted(self._record(study))
        return noted.stored if noted is not None and noted.status == DONE else ""

    def note(self, outcome: Outcome) -> None:
        """Keep or take back the record that a study failed, and write report and table if it is time to."""
        if outcome.status == DONE and not outcome.stored:
            self._record(outcome.study).unlink(missing_ok=True)
        else:
            write_json(self._record(outcome.study), outcome._asdict())
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
                    "made_by_other": sum(outcome.made_by_other for outcome in outcomes),
                    "studies": [outcome._asdict() for outcome in outcomes],
                },
            )
            with writing(self._output / TABLE) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                for outcome in outcomes:
                    if outcome.status == DONE:
                        table.writerows(content[outcome.study].rows)
        took = time.monotonic() - began
        self._next = time.monotonic() + took / SHARE
        return outcomes

    def write_shard(self, shard: tuple[int, int], outcomes: Sequence[Outcome]) -> None:
        """Write `report-K-of-N.json`: what this shard did."""
        content = {"version": VERSION, "studies": [outcome._asdict() for outcome in outcomes]}
        write_json(self._output / f"report-{shard[0]}-of-{shard[1]}.json", content)

    def _measurements(self) -> dict[str, _Measured]:
        """Return what every finished study's folder holds, by its name. Each is read once."""
        for folder in self._output.iterdir():
            file = folder / MEASUREMENTS
            if folder.name.startswith("."):
                continue
            try:
                if not (folder / REPORT).is_file():
                    continue
                changed = file.stat().st_mtime_ns
                if folder.name not in self._read or self._read[folder.name].changed != changed:
                    found = rows(folder.name, read_json(file))
                    made_by = read_json(folder / REPORT).get("made_by")
                    self._read[folder.name] = _Measured(changed, found, made_by)
            except (UserError, OSError, KeyError, TypeError, ValueError, AttributeError):  # another form, or damaged
                self._read[folder.name] = _Measured(0, [])
        return self._read

    def _outcomes(self, content: Mapping[str, _Measured]) -> list[Outcome]:
        found = {name: Outcome(name, WAITING) for name in self._studies}
        for name, measured in content.items():
            if measured.rows:
                found[name] = Outcome(name, DONE, made_by_other=measured.made_by != self._made_by)
            else:
                found[name] = Outcome(name, FAILED, f"{MEASUREMENTS} is damaged: remove the folder, and predict again")
        for file in (self._output / OWN).glob("[!.]*.json"):
            noted = self._noted(file)
            if noted is None or noted.study not in self._studies:  # it is no longer in the input
                continue
            if noted.status != DONE:
                found[noted.study] = noted
            elif found[noted.study].status == DONE:
                found[noted.study] = found[noted.study]._replace(stored=noted.stored)
        return sorted(found.values(), key=lambda outcome: natural_key(outcome.study))

    def _record(self, study: str) -> Path:
        return self._output / OWN / f"{study}.json"

    def _noted(self, record: Path) -> Outcome | None:
        """Return a record; None where there is none, or another process has just taken it back."""
        try:
            return Outcome(**read_json(record))
        except (UserError, TypeError):
            return None


def refuse_foreign(output: Path) -> None:
    """Raise a UserError where a folder holds files of others that a batch would replace."""
    if (output / MEASUREMENTS).exists():
        raise UserError(
            f"{output} holds the outputs of one study ({MEASUREMENTS}); name another --output for the batch"
        )
    if (report := output / REPORT).exists():
        try:
            is_ours = {"version", "made_by", "counts", "studies"} <= read_json(report).keys()
        except UserError:
            is_ours = False
        if not is_ours:
            raise UserError(f"{report} is not of a batch: it stays as it is; name another --output, or move it")
    if (table := output / TABLE).exists():
        with table.open(newline="", encoding="utf-8", errors="replace") as file:
            header = tuple(next(csv.reader(file), ()))
        shared = min(len(header), len(COLUMNS))
        if shared < 3 or header[:shared] != COLUMNS[:shared]:  # other versions have more columns or fewer at the end
            raise UserError(f"{table} is not of a batch: it stays as it is; name another --output, or move it")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, also of several machines; where the file system has none, do without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        # Without it each file is still written whole; a last call without --shard makes report and table complete.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
