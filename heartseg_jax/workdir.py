"""The run folder: its paths, its config, its provenance and its metrics file. No JAX here."""

from __future__ import annotations

import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ml_collections import FrozenConfigDict

from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.files import PREFIX, append_line, read_json, write_json, write_text

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ml_collections")


class Workdir:
    """The paths of one run's files.

    Attributes:
      config: the resolved config.
      run: provenance: versions, command, machine, dataset.
      metrics: one JSON object per line.
      transfer: where the initial weights came from, and the proof of what each phase froze.
      checkpoints: one folder per step, and `best`.
      evaluation: `summary.json` and `cases.csv` of the last step.
      figures: `curves.png`, `predictions.png`, `inputs.png`.
      done: exists only when the run is complete.
    """

    def __init__(self, path: Path):
        self.path = path
        self.config, self.run, self.transfer = (path / f"{name}.json" for name in ("config", "run", "transfer"))
        self.metrics, self.done = path / "metrics.jsonl", path / "DONE"
        self.checkpoints, self.evaluation, self.figures = path / "checkpoints", path / "evaluation", path / "figures"


def open_for_training(path: Path, config: FrozenConfigDict) -> tuple[Workdir, IO[str]]:
    """Make the folder, or open the run that it holds. The returned lock must be kept as long as the run.

    Raises:
      UserError: the folder holds a run of another config, a run in progress, or files of something else.
    """
    workdir = Workdir(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"--workdir={path} is a file; give a folder")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    strangers = {name for name in names if name != ".lock" and not name.startswith(PREFIX)}
    if strangers and not workdir.config.is_file():
        raise UserError(f"{path} holds files but no run (config.json is missing); give another --workdir")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "w")  # noqa: SIM115 -- held until the process ends
    except OSError as error:
        raise UserError(f"cannot write to --workdir={path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"another process is training in {path}; wait for it or give another --workdir") from None
    # Without a checkpoint there is nothing that another config could spoil: the corrected command may proceed.
    if has_checkpoint(workdir):
        changed = load.differences(read_config(workdir), config)
        if changed:
            raise UserError(f"{path} holds a run of another config ({'; '.join(changed)}); give another --workdir")
    else:
        write_json(workdir.config, load.to_plain(config))
    return workdir, lock


def has_checkpoint(workdir: Workdir) -> bool:
    """Return whether a run with any checkpoint is there."""
    return workdir.config.is_file() and workdir.checkpoints.is_dir() and any(workdir.checkpoints.iterdir())


def write_provenance(workdir: Workdir, config: FrozenConfigDict, record: Mapping[str, Any]) -> None:
    """Write `config.json` and `run.json` of a start that can no longer be refused; earlier starts are kept."""
    try:
        before = read_json(workdir.run)
    except UserError:
        before = {}  # It is rewritten here: nothing that the run needs is lost.
    starts = before.pop("earlier_starts", [])
    earlier = [*(starts if isinstance(starts, list) else []), *([before] if before else [])]
    write_json(workdir.config, load.to_plain(config))
    write_json(workdir.run, {**record, "earlier_starts": earlier})


def read_config(workdir: Workdir) -> FrozenConfigDict:
    """Return the config of a run, with the defaults of fields that were added later.

    Raises:
      UserError: there is no run, or its config is damaged or of a later version.
    """
    if not workdir.config.is_file():
        raise UserError(f"no run at {workdir.path} (config.json is missing); give the --workdir of a run")
    try:
        return load.complete(read_json(workdir.config))
    except (ValueError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise UserError(
            f"{workdir.config} is damaged, or of another version ({error}); give the --workdir of another run"
        ) from error


def provenance(argv: list[str]) -> dict[str, Any]:
    """Return date, command (as it can be pasted into a shell), commit, versions and machine of this process."""
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "main.py", *argv]),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _commit() -> str | None:
    """Return the commit of the code that runs, '+' for local changes, or None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        run = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def read_metrics(workdir: Workdir) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, up to the first line that is not a row, such as one cut short by a kill."""
    if not workdir.metrics.is_file():
        return []
    rows = []
    for line in workdir.metrics.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            break
        if not all(value is None or type(value) in (int, float) for value in row.values()):
            break
        rows.append(row)
    return rows


def rewind_metrics(workdir: Workdir, step: int) -> None:
    """Drop the rows after `step`, from which the run is resumed: it will write them again."""
    rows = [row for row in read_metrics(workdir) if row["step"] <= step]
    write_text(workdir.metrics, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def append_metrics(workdir: Workdir, row: Mapping[str, Any]) -> None:
    """Append one row; `step` comes first."""
    append_line(workdir.metrics, json.dumps(row, allow_nan=False))
