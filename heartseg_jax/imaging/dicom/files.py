"""Every file of a study: below a folder, in a zip, or a single one. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from heartseg_jax.errors import UserError

MOST_FILES = 100_000
MOST_MEMBER_BYTES = 2**30
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, RuntimeError, ValueError, EOFError, KeyError)
"""What unpacking damaged zips raises."""
MOST_RATIO = 2000
"""Beyond this ratio of unpacked to packed size, a zip's member is a bomb."""
CLUTTER = ("thumbs.db", "desktop.ini", ".ds_store")
"""What file managers leave in folders, in lower case."""


class Source(NamedTuple):
    """One file: its name within the study, and how to open it for reading."""

    name: str
    open: Callable[[], BinaryIO]


class Listing(NamedTuple):
    """The files of a study, and links whose files are not among them: links to folders, and those that lead nowhere."""

    sources: list[Source]
    linked_folders: list[str]
    dangling: list[str]


def is_clutter(name: str) -> bool:
    """Return whether a file manager has left this file: it is passed over without a word."""
    return name.lower() in CLUTTER or name.startswith("._")


def sources_of(path: Path) -> Listing:
    """Return the files of a study in the order of their names.

    A folder is walked at any depth; a file named DICOMDIR means its folder; a .zip is read in place; any other file is
    the only one.

    Raises:
      UserError: nothing there, a broken zip, or more than can be meant.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link that leads nowhere; fetch the file that it means")
    if not path.exists():
        raise UserError(f"there is nothing at {path}")
    if path.is_file() and path.name.upper() == "DICOMDIR":
        path = path.parent
    if path.is_file():
        if zipfile.is_zipfile(path):
            return _members(path)
        return Listing([Source(path.name, lambda: path.open("rb"))], [], [])
    found: list[Source] = []
    links: list[Path] = []
    for number, file in enumerate(walk(path, links)):
        if number >= MOST_FILES:
            raise UserError(f"{path} holds more than {MOST_FILES:,} files; name the study's own folder")
        found.append(Source(str(file.relative_to(path)), lambda file=file: file.open("rb")))  # type: ignore[misc]
    folders = [str(link.relative_to(path)) for link in links if link.is_dir()]
    dangling = [str(link.relative_to(path)) for link in links if not link.is_dir()]
    if not found:
        because = f" ({len(dangling)} links lead nowhere: fetch the files that they mean)" if dangling else ""
        if folders:
            because += f" (folders behind links, such as {folders[0]}, are not followed: give the folder itself)"
        raise UserError(f"{path} holds no file{because}; give the folder, zip or file of a DICOM study")
    return Listing(found, folders, dangling)


def walk(folder: Path, links: list[Path] | None = None) -> Iterator[Path]:
    """Yield the plain files below a folder, folder by folder in the order of their names, without clutter.

    Links to folders are not followed, so no walk goes in circles, and no depth is too deep; they, and links that lead
    nowhere, are added to `links`.

    Raises:
      UserError: a folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            entries = [entry for entry in sorted(place.iterdir()) if not is_clutter(entry.name)]
            below = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
            files = [entry for entry in entries if entry.is_file()]
        except OSError as error:
            raise UserError(f"{place} cannot be read ({error.strerror})") from error
        if links is not None:
            links += [entry for entry in entries if entry.is_symlink() and not entry.is_file()]
        yield from files
        waiting += reversed(below)


def _members(path: Path) -> Listing:
    try:
        # It stays open as long as a member may be asked for: to open it again reads its whole table again.
        archive = zipfile.ZipFile(path)
        entries = archive.infolist()
    except BROKEN as error:
        raise UserError(f"{path} is a damaged zip file; pack the study again") from error
    # Some programs on Windows part folders by backslashes.
    named = sorted(((entry.filename.replace("\\", "/"), entry) for entry in entries), key=lambda pair: pair[0])
    named = [(name, entry) for name, entry in named if not name.endswith("/") and not is_clutter(name.split("/")[-1])]
    if len(named) > MOST_FILES:
        raise UserError(f"{path} holds more than {MOST_FILES:,} files; pack only the study")
    sources, links = [], []
    for name, entry in named:
        if entry.flag_bits & 1:
            raise UserError(f"{path} is encrypted; pack the study without a password")
        if entry.file_size > MOST_MEMBER_BYTES or entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
            raise UserError(f"a file in {path} claims {entry.file_size:,} bytes; pack the study again")
        if stat.S_ISLNK(entry.external_attr >> 16):
            links.append(name)  # the zip holds where it leads, not what lies there
        else:
            sources.append(Source(name, _opener(archive, path, entry)))
    return Listing(sources, [], links)


def _opener(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    def opened() -> BinaryIO:
        # Whole in memory: pydicom seeks, and a zip's stream seeks by reading from its start again.
        try:
            with archive.open(entry) as member:
                return io.BytesIO(member.read(MOST_MEMBER_BYTES))
        except BROKEN as error:
            raise UserError(f"{entry.filename} in {path} cannot be unpacked; pack the study again") from error

    return opened
