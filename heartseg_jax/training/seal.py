"""The digests of a checkpoint's files, kept beside them: Orbax's array files have no checksums of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json

SEAL = "sha256.json"
"""In a checkpoint's folder: the SHA-256 of every file of its items."""


def digests(folder: Path, items: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint's items, by its path in the folder."""
    paths = sorted(path for item in items for path in (folder / item).rglob("*"))
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file() and path.name != "commit_success.txt"
    }


def write(folder: Path, items: Sequence[str]) -> None:
    """Add the digests to a checkpoint that is written whole."""
    write_json(folder / SEAL, digests(folder, items))


def broken(folder: Path, items: Sequence[str]) -> str:
    """Return what of a checkpoint is not as it was saved, or ''; those of earlier versions have no digests and pass."""
    if not (folder / SEAL).is_file():
        return ""
    try:
        kept = read_json(folder / SEAL)
    except UserError:
        return f"{SEAL} cannot be read"
    seen = digests(folder, items)
    wrong = sorted(name for name in kept if kept[name] != seen.get(name))
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more} differs from what was saved, by SHA-256" if wrong else ""


def digest_of(folder: Path, items: Sequence[str]) -> str:
    """Return one SHA-256 for a checkpoint that is not `broken`: of its files' digests, in the order of their names."""
    kept = read_json(folder / SEAL) if (folder / SEAL).is_file() else digests(folder, items)
    return hashlib.sha256("".join(f"{name} {kept[name]}\n" for name in sorted(kept)).encode()).hexdigest()
