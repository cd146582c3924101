"""What patients are called in a dataset: by their files' names where these are mere codes, else by keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from heartseg_jax.errors import UserError
from heartseg_jax.privacy import patient_key, read_salt

HOW = ("auto", "keep", "key")
WORDS = (
    "(?:anon|cases?|ct|cta|chest|frame|heart|images?|img|masks?|pat|patients?|ph|phantom|pt|scan|series|slices?|study|"
    "subj?|subject|test|train|training|val|valid|validation|vol|volume)"
)
NUMBER = r"(?:\d{1,4}|0\d{4})"
CODE = re.compile(rf"(?:{WORDS}|[a-z])?{NUMBER}[a-z]?|{WORDS}|[a-z]", re.IGNORECASE)
"""A part of a code: a common word or one letter, and up to four digits (five, if the first is 0)."""
KEY = re.compile(r"p[0-9a-f]{12}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MOST_NUMBERS = 2


def is_code(name: str) -> bool:
    """Return whether a name is certainly no person's, nor a hospital's number or a date of birth.

    `1001`, `case_012`, `ct_train_1001`, `s0011` and `1001_63` are codes; `Meier`, `ID7741903`, `MRN12345`,
    `1931-04-17` and `123-45-6789` are not, nor is what cannot name a file everywhere.
    """
    if not FILE_NAME.fullmatch(name):
        return False
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", name) if part]
    if KEY.fullmatch(parts[0]):
        return len(parts) <= 2 and all(part.isdecimal() for part in parts[1:])
    numbers = [number for part in parts for number in re.findall(r"\d+", part)]
    # A year beside another number may be a date of birth.
    dated = len(numbers) > 1 and any(re.fullmatch(r"(19|20)\d\d", number) for number in numbers)
    return len(numbers) <= MOST_NUMBERS and not dated and all(CODE.fullmatch(part) for part in parts)


@dataclass
class Naming:
    """How patients are named: 'keep' their names, 'key' all of them, or 'auto': key all unless every name is a code.

    `table` collects (key, name, source) of those that were keyed, `notes` what the user should know.
    """

    how: str = "auto"
    table: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise UserError(f"--names must be one of {', '.join(HOW)}, not '{self.how}'")

    def called(self, names: Sequence[str], files: Sequence[str] = ()) -> dict[str, str]:
        """Return {name: its id in the dataset}; `files` are other names that would be kept along with them."""
        strange = [name for name in [*names, *files] if not is_code(name)]
        if self.how == "keep" or (self.how == "auto" and not strange):
            return {name: name for name in names}
        note = (
            "patients are called by keys, since their names may identify them; --names=keep keeps the names, "
            "--keep_table writes a table of keys and patients for you"
        )
        if strange and self.how == "auto" and note not in self.notes:
            self.notes.append(note)
        salt = read_salt()
        return {name: self.keyed(f"name\n{name}", name, "", salt) for name in names}

    def keyed(self, secret: str, shown: str, source: str, salt: bytes) -> str:
        """Return the key of a patient, and add both to the table."""
        key = patient_key(secret, salt)
        self.table.append((key, shown, source))
        return key
