"""Files and folders that appear whole or not at all, and JSON checked for its shape. No other module renames files.

A full disk is the user's to fix: whatever a library raises for it becomes one UserError here.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import socket
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heartseg_jax.errors import UserError

PREFIX = ".partial-"
"""Prefix of what is still being written; what killed processes left is removed when the folder is written to again."""

HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""Process numbers mean something on one machine only, and a folder may be shared by several."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_TEXT = re.compile(r"RESOURCE_EXHAUSTED|No space left|quota exceeded|File too large|\d+ requested and \d+ written")
"""How TensorStore, HDF5 and numpy's short writes report it in text only."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the body writes there is synced and renamed to `path` at the end.

    The temporary name ends as `path` does, so that libraries which go by the suffix write the same format. Missing
    parent folders are made. Where the body raises, the temporary file is removed and an older `path` stays as it was.

    Raises:
      UserError: the disk is full.
    """
    path = Path(path)
    partial = _beside(path)
    with full_disk_refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; with all that the body puts into it, it is renamed to `path` at the end.

    An older folder is replaced as a whole with `overwrite`; an empty one always. Where the body raises, the new folder
    is removed and what was at `path` stays as it was.

    Raises:
      UserError: the disk is full, or `path` is taken when all is written.
    """
    path = Path(os.path.realpath(path))  # a link stays one: what it leads to is replaced
    partial = _beside(path)
    old = partial.with_name(f"{PREFIX}old-{partial.name.removeprefix(PREFIX)}")  # never swept
    with full_disk_refused(path):
        try:
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.exists() and not overwrite:
                raise UserError(f"{path} exists and is not empty: it stays as it is; name another folder")
            elif path.exists():
                path.rename(old)
            partial.rename(path)
            _sync(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)


def check_writable(path: str | Path) -> None:
    """Raise an OSError of `path` where neither a file nor a folder could be made there; leave nothing behind.

    For the start of long work. Tried, not asked of the system, whose permissions do not tell everything (the superuser,
    network drives).
    """
    path = Path(os.path.realpath(path))
    there = next(parent for parent in path.parents if parent.exists())
    try:
        os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=there))
        if path.is_dir():
            os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=path))
    except OSError as error:
        # What could not be made has a name that nobody chose.
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def full_disk_refused(path: str | Path) -> Iterator[None]:
    """Raise a UserError that names `path` for any error of the body that means a full disk; leave all others."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_full_disk(error):
            raise
        reason = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC)
        raise UserError(
            f"the disk is full ({reason}): {path} could not be written and nothing of it was kept; "
            "make room there, or name another place"
        ) from error


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means a full disk, a used-up quota or a file-size limit."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, OSError | ValueError) and FULL_TEXT.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that the file is there whole or not at all."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON (no NaN: ValueError) so that the file is there whole or not at all."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def append_line(path: str | Path, text: str) -> None:
    """Append one line; where the disk is full, what was written of it is taken back."""
    with full_disk_refused(path), open(path, "ab") as file:
        start = file.seek(0, os.SEEK_END)
        try:
            file.write(text.encode() + b"\n")
            file.flush()
        except OSError:
            os.truncate(path, start)
            raise


def read_json(path: str | Path, kind: type[dict] | type[list] = dict, *, fix: str = "restore it") -> Any:
    """Return parsed JSON that is a `kind` (dict or list); a byte-order mark is passed over.

    `fix` says what to do where the file cannot be used, such as "give another --workdir".

    Raises:
      UserError: it cannot be read, is not strict JSON, has a key twice, or holds something else than a `kind`.
    """
    try:
        found = json.loads(
            Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {fix}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: no JSON ({error}); {fix}") from error
    if type(found) is not kind:
        wanted = "an object" if kind is dict else "a list"
        raise UserError(f"{path} is damaged: it holds {json.dumps(found)[:40]}, not {wanted}; {fix}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _beside(path: Path) -> Path:
    """Return a name in the path's folder for what is being written, once killed processes' leftovers there are gone."""
    _sweep(path.parent)
    # A file's name has at most 255 bytes, and its last part decides the format.
    return path.with_name(f"{PREFIX}{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name[-60:]}")


@functools.cache
def _sweep(folder: Path) -> None:
    """Remove from a folder, once per process, what processes of this machine that no longer run were writing."""
    for left in folder.glob(f"{PREFIX}{HOST}-*"):
        writer = re.match(rf"{PREFIX}{HOST}-(\d+)-", left.name)
        if writer and not _is_running(int(writer[1])):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _sync(path: Path) -> None:
    """Have the disk hold what was written; what the file system cannot sync (some folders) is left."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FULL or error.errno == errno.EIO:
            raise
    finally:
        os.close(handle)
