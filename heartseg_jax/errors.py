"""The two ways in which a run ends early on purpose, and what a misspelt word meant. Any other error is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

MOST_LISTED = 24
"""Known words that a message lists; of more, only the most similar is named."""


class UserError(Exception):
    """A user's mistake: one line that names the thing and the fix. `main.py` exits with status 2.

    `kept` is what of the message may be written to a file: it names no patient and no file. Empty where nobody said.
    """

    def __init__(self, message: str = "", *, kept: str = ""):
        super().__init__(message)
        self.kept = kept


class GuardStop(Exception):
    """A guard stopped the run: the message says what was seen, the likely cause and what to try. Exit status 3."""


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return '; did you mean X?' for a word that one of `known` resembles, else '; there are A, B', else ''."""
    meant = _meaning(word, known)
    if meant:
        return f"; did you mean {meant}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= MOST_LISTED else ""


def _meaning(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is most probably meant, or None.

    In this order: the only one that begins with `word` ('eval'); the only one whose last part is `word`
    ('learning_rate' for train.learning_rate) or whose last part has these initials ('train.lr'); the most similar one.
    """
    if not word.strip("-."):
        return None
    group, _, leaf = word.rpartition(".")
    begins = [one for one in known if one.startswith(word)]
    ends = [one for one in known if one.endswith(f".{word}")]
    short = [
        one
        for one in known
        if "".join(part[:1] for part in one.rpartition(".")[2].split("_")) == leaf and len(leaf) > 1
    ]
    own_group = [one for one in short if one.rpartition(".")[0] == group]
    for found in (begins, ends, own_group, short):
        if len(found) == 1:
            return found[0]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return close[0] if close else None
