"""Whose a file is, by its name or by a table of the user's; and the order of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Of pictures."""
OTHERS = (".nii.gz", ".nii", ".zip", ".dcm")
"""Of volumes and studies, which tables of patients may name with or without."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by value: slice_9 before slice_10."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def read_table(path: Path) -> dict[str, str]:
    """Return `{name of a file without its suffix: patient}` of a CSV that begins with `file,patient`, or UserError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"the patients' table {path} cannot be read ({error})") from error
    if not rows or [cell.lower() for cell in rows[0]] != ["file", "patient"]:
        raise UserError(f"the patients' table {path} must begin with the line file,patient")
    owners: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(row):
            raise UserError(f"row {number} of {path} must hold a file and a patient, not {','.join(row)!r}")
        name = Path(row[0]).name
        ending = next((suffix for suffix in (*SUFFIXES, *OTHERS) if name.lower().endswith(suffix)), "")
        stem = name[: len(name) - len(ending)]
        if owners.setdefault(stem, row[1]) != row[1]:
            raise UserError(f"{path} gives {row[0]} to two patients, {owners[stem]} and {row[1]}")
    return owners


def read_owners(table: Path, names: Sequence[str]) -> dict[str, str]:
    """Return `{name: patient}` of a table that must tell of every one of `names`; UserError for one it misses."""
    owners = read_table(table)
    lacking = [name for name in names if name not in owners]
    if lacking:
        raise UserError(f"the table {table} misses {len(lacking)} of {len(names)}: {', '.join(lacking[:5])}")
    return {name: owners[name] for name in names}
