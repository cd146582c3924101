"""What patients are called in a dataset: as their files are, where that is a mere code, else by a key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from heartseg_jax.errors import UserError
from heartseg_jax.privacy import patient_key, read_salt

HOW = ("auto", "keep", "key")
WORDS = (
    "anon|cases?|ct|cta|chest|frame|heart|images?|img|masks?|pat|patients?|ph|phantom|pt|scan|series|slices?|study|"
    "subj?|subject|test|train|training|val|valid|validation|vol|volume"
)
CODE = re.compile(rf"(?:{WORDS})\d{{0,5}}[a-z]?|[a-z]|[a-z]{{0,3}}\d{{1,5}}[a-z]?|p[0-9a-f]{{12}}", re.IGNORECASE)
"""A part of a code: a word of the trade, one letter, up to five digits with up to three letters before, or a key."""


def is_code(name: str) -> bool:
    """Tell whether a name is surely no human being's, nor a hospital's number or a date of birth.

    `1001`, `case_012`, `ct_train_1001`, `s0011` are codes; `Meier`, `ID7741903` and `19310417` are not.
    """
    parts = [part for part in re.split(r"[\W_]+", name) if part]
    return bool(parts) and all(CODE.fullmatch(part) for part in parts)


@dataclass
class Naming:
    """How patients are named: 'keep' their names, 'key' all of them, or 'auto': key all unless every name is a code.

    `table` fills with (key, name, source) of those that were keyed; `notes` with what was decided.
    """

    how: str = "auto"
    table: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise UserError(f"--names must be one of {', '.join(HOW)}, not '{self.how}'")

    def called(self, names: Sequence[str], files: Sequence[str] = ()) -> dict[str, str]:
        """Return {name: what it is called in the dataset}; `files` are other names that would be kept beside them."""
        strange = [name for name in [*names, *files] if not is_code(name)]
        if self.how == "keep" or (self.how == "auto" and not strange):
            return {name: name for name in names}
        if strange and self.how == "auto":
            self.notes.append(
                "patients are called by keys, since their names may be a human being's; --names=keep keeps them, "
                "--keep_table keeps a list of who is who for you"
            )
        salt = read_salt()
        return {name: self.keyed(f"name\n{name}", name, "", salt) for name in names}

    def keyed(self, secret: str, shown: str, source: str, salt: bytes | None = None) -> str:
        """Return the key of a patient, and remember who it is."""
        key = patient_key(secret, read_salt() if salt is None else salt)
        self.table.append((key, shown, source))
        return key
