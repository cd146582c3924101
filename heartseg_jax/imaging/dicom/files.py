"""Every file of a study: below a folder, in a zip, or alone. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from heartseg_jax.errors import UserError

MOST_FILES = 100_000
MOST_MEMBER_BYTES = 2**30
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, EOFError, KeyError),
)
"""What unpacking damaged zips raises."""
MOST_RATIO = 2000
"""How many times larger than its packed form a zip's member may be; beyond that it is a bomb."""


class Source(NamedTuple):
    """One file: its name within the study, and how to open it for reading."""

    name: str
    open: Callable[[], BinaryIO]


def sources_of(path: Path) -> list[Source]:
    """Return the files of a study in the order of their names.

    A folder is walked at any depth; a file named DICOMDIR stands for its folder; a .zip is read in place; any other
    file stands for itself.

    Raises:
      UserError: nothing there, a broken zip, or more than can be meant.
    """
    if not path.exists():
        raise UserError(f"there is nothing at {path}")
    if path.is_file() and path.name.upper() == "DICOMDIR":
        path = path.parent
    if path.is_file():
        if zipfile.is_zipfile(path):
            return _members(path)
        return [Source(path.name, lambda: path.open("rb"))]
    found = []
    for number, file in enumerate(walk(path)):
        if number >= MOST_FILES:
            raise UserError(f"{path} holds more than {MOST_FILES:,} files; name the study's own folder")
        found.append(Source(str(file.relative_to(path)), lambda file=file: file.open("rb")))  # type: ignore[misc]
    if not found:
        raise UserError(f"{path} holds no file")
    return found


def walk(folder: Path) -> Iterator[Path]:
    """Yield the plain files below a folder, folder by folder in the order of their names.

    Links to folders are not followed, so no walk goes in circles, and no depth is too deep.

    Raises:
      UserError: a folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            entries = sorted(place.iterdir())
            below = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
            yield from (entry for entry in entries if entry.is_file())
        except OSError as error:
            raise UserError(f"{place} cannot be read ({error.strerror})") from error
        waiting += reversed(below)


def _members(path: Path) -> list[Source]:
    try:
        # It stays open as long as a member may be asked for: to open it anew reads its whole table again.
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except BROKEN as error:
        raise UserError(f"{path} is a damaged zip file; pack the study again") from error
    if len(entries) > MOST_FILES:
        raise UserError(f"{path} holds more than {MOST_FILES:,} files; pack the study alone")
    for entry in entries:
        if entry.flag_bits & 1:
            raise UserError(f"{path} is encrypted; pack the study without a password")
        if entry.file_size > MOST_MEMBER_BYTES or entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
            raise UserError(f"a file in {path} claims {entry.file_size:,} bytes; pack the study again")
    return [Source(e.filename, _opener(archive, path, e)) for e in sorted(entries, key=lambda e: e.filename)]


def _opener(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        # Whole in memory: pydicom seeks, and a zip's stream seeks by reading from its start again.
        try:
            with archive.open(entry) as member:
                return io.BytesIO(member.read(MOST_MEMBER_BYTES))
        except BROKEN as error:
            raise UserError(f"{entry.filename} in {path} cannot be unpacked; pack the study again") from error

    return opened
