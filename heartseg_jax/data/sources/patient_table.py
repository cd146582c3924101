"""Tables that users keep: which patient a file is of, as spreadsheets write such tables."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax.data.sources.listing import natural_key, stem
from heartseg_jax.errors import UserError

MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""Byte-order marks, and the encodings they announce."""


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a table, cells stripped of blanks, empty rows left out.

    The separator is a comma, a semicolon or a tab, whichever the first row has most of; Excel's own first line
    `sep=;` names it. UTF-8 with or without a byte-order mark, and UTF-16 with one.

    Raises:
      UserError: it cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
        text = content.decode(next((name for mark, name in MARKS if content.startswith(mark)), "utf-8"))
        first, _, rest = text.partition("\n")
        if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
            separator, text = first.strip()[-1], rest
        else:
            separator = max(",;\t", key=first.count)
        found = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        rows = [[cell.strip() for cell in row] for row in found]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8: save it again as 'CSV UTF-8'") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from error
    return [row for row in rows if any(row)]


def read_table(path: Path) -> dict[str, str]:
    """Return `{name of a file without its suffix: patient}` of a CSV that begins with `file,patient`, or UserError."""
    rows = read_rows(path)
    if not rows or [cell.lower() for cell in rows[0]] != ["file", "patient"]:
        raise UserError(f"the patients' table {path} must begin with the line file,patient")
    patients: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not all(row):
            raise UserError(f"row {number} of {path} must hold a file and a patient, not {','.join(row)!r}")
        # Names may be composed or not, as the systems have it that wrote the table and the files.
        name = unicodedata.normalize("NFC", stem(Path(row[0].replace("\\", "/"))))
        if patients.setdefault(name, row[1]) != row[1]:
            raise UserError(f"{path} gives {row[0]} to two patients, {patients[name]} and {row[1]}")
    return patients


def patients_of(names: Sequence[str], table: Path, *, every_row: bool = False) -> dict[str, str]:
    """Return `{name: patient}` for each of `names`, as a table of patients says.

    Raises:
      UserError: the table cannot be read or lacks a name; with `every_row`, it has a row for none of them.
    """
    patients = read_table(table)
    wanted = {name: unicodedata.normalize("NFC", name) for name in names}
    for lacking, wrong in (
        (set(wanted.values()) - set(patients), "misses"),
        (set(patients) - set(wanted.values()) if every_row else set(), "names without an image"),
    ):
        if lacking:
            shown = ", ".join(sorted(lacking, key=natural_key)[:5])
            raise UserError(f"the table {table} {wrong} {len(lacking)} of the files: {shown}")
    return {name: patients[plain] for name, plain in wanted.items()}
