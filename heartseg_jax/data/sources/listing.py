"""What lies in a source's folder: the files to read, in natural order, and a count of those that are not."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted, some
from heartseg_jax.imaging.dicom.files import walk
from heartseg_jax.imaging.pictures import PICTURES, natural_key

VOLUMES = (".nii.gz", ".nii.bz2", ".nii")
NRRDS = (".seg.nrrd", ".nrrd", ".nhdr")
GRIDS = (*VOLUMES, *NRRDS)
"""Images and label maps with a geometry, other than DICOM's."""
STUDIES = (".zip", ".dcm")
NAMED = frozenset(
    (*PICTURES, *VOLUMES, *STUDIES)
    + (
        ".nrrd",
        ".nhdr",
        ".mha",
        ".mhd",
        ".hdr",
        ".img",
        ".webp",
        ".heic",
        ".gif",
        ".jp2",
        ".npy",
        ".npz",
        ".mat",
        ".h5",
        ".gz",
    )
    + (".csv", ".tsv", ".xlsx", ".json", ".xml", ".txt", ".md", ".pdf", ".docx", ".stl", ".vtk", ".rar", ".7z")
)
"""Suffixes that the count of other files names; any other could be part of a patient's name."""
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
"""What Windows and macOS put into folders; names that begin with a dot are theirs as well."""


class Listing(NamedTuple):
    """The files to read, in the order of their names, and how many others there are, by what they are."""

    files: list[Path]
    others: Counter[str]


class FilePair(NamedTuple):
    """An image and its mask or label map."""

    image: Path
    labels: Path


def list_files(folder: Path, endings: Sequence[str], *, deep: bool = False, beside: Sequence[str] = ()) -> Listing:
    """Return the files in `folder` with one of the endings, upper or lower case; with `deep`, in its subfolders too.

    Neither the operating system's files nor those with an ending in `beside` are read or counted; links to folders are
    not followed.
    """
    files: list[Path] = []
    others: Counter[str] = Counter()
    links: list[Path] = []
    for path in walk(folder, links) if folder.is_dir() else ():
        parts, suffix = path.relative_to(folder).parts, path.suffix.lower()
        if any(map(is_system, parts)) or suffix in beside:
            continue
        if len(parts) > 1 and not deep:
            others["in subfolders"] += 1
        elif path.name.lower().endswith(tuple(endings)):
            files.append(path)
        else:
            others[suffix if suffix in NAMED else "of other formats"] += 1
    others["linked folders"] = sum(link.is_dir() for link in links)
    others["links that lead nowhere"] = len(links) - others["linked folders"]
    return Listing(files, +others)  # without zeros


def not_read(*listings: Listing) -> list[str]:
    """Return the warning that counts what lies in the folders and was not read, if there is anything."""
    others = sum((listing.others for listing in listings), Counter[str]())
    if not others:
        return []
    kinds = ", ".join(f"{count} {what}" for what, count in others.most_common())
    return [f"{counted(others.total(), 'file')} in the input not read: {kinds}"]


def by_stem(listing: Listing) -> dict[str, Path]:
    """Return the files by their names without ending, letters composed. Raises UserError where two have one name."""
    named: dict[str, Path] = {}
    for path in listing.files:
        name = unicodedata.normalize("NFC", stem(path))  # two systems may have written the image and its mask
        if named.setdefault(name, path) != path:
            raise UserError(f"{named[name]} and {path} have the same name: remove one")
    return named


def pairs_in(folder: Path, kinds: tuple[str, str], endings: Sequence[str]) -> tuple[dict[str, FilePair], list[str]]:
    """Return the files that two folders have by one name, in natural order, and warnings of what is not read.

    Raises:
      UserError: a folder is missing or empty, or a file has no mate.
    """
    for kind in kinds:
        if not (folder / kind).is_dir():
            raise UserError(f"no folder {folder / kind}: the input holds `{kinds[0]}` and `{kinds[1]}`")
    listed = [list_files(folder / kind, endings) for kind in kinds]
    images, others = (by_stem(one) for one in listed)
    unread = not_read(*listed)
    for have, mates, kind in ((images, others, kinds[1]), (others, images, kinds[0])):
        if lacking := [f"{path.parent.name}/{path.name}" for name, path in have.items() if name not in mates]:
            text = f"no file of the same name in {kind} for {some(lacking)} in {folder}: add it, or remove these"
            raise UserError("; ".join([text, *unread]))
    if not images:
        raise UserError("; ".join([f"{folder / kinds[0]} holds no {', '.join(endings)} file", *unread]))
    return {name: FilePair(images[name], others[name]) for name in sorted(images, key=natural_key)}, unread


def stem(path: Path) -> str:
    """Return a file's name without the ending of a picture, volume or study."""
    endings = (ending for ending in (*PICTURES, *GRIDS, *STUDIES) if path.name.lower().endswith(ending))
    return path.name[: len(path.name) - len(next(endings, ""))]


def is_system(name: str) -> bool:
    """Return whether a file or folder of this name is the operating system's."""
    return name.startswith(".") or name.lower() in SYSTEM
