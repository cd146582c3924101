"""How a run ends early: on purpose, or because the machine refuses something; and what a misspelt word meant."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Sequence

MOST_LISTED = 24
"""Known words that a message lists; of more, only the most similar is named."""


class UserError(Exception):
    """A user's mistake: one line that names the thing and the fix. `main.py` exits with status 2."""


class GuardStop(Exception):
    """A guard stopped the run: the message says what was seen, the likely cause and what to try. Exit status 3."""


def refused_by_machine(error: BaseException) -> str | None:
    """Return one line for an error that says what this machine lacks (disk, permission, memory, device), else None."""
    text = str(error)
    exhausted = "RESOURCE_EXHAUSTED" in text
    if isinstance(error, MemoryError) or (exhausted and "RuntimeError" in type(error).__name__):
        wanted = f" ({text.splitlines()[0]})" if text else ""
        return f"out of memory{wanted}; lower data.batch_size, data.size or model.width"
    # Tensorstore raises a ValueError and numpy an OSError without a number where the disk is full.
    full = exhausted or " requested and " in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError | ValueError) and full:
        place = getattr(error, "filename", None)
        return f"{f'{place}: ' if place else ''}the disk is full; free some space, or name another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; name another place, or change its permissions"
    if isinstance(error, RuntimeError | AssertionError) and _no_device():
        asked = os.environ.get("JAX_PLATFORMS")
        if asked:
            return f"JAX finds no device for JAX_PLATFORMS={asked}; unset it, or install JAX for that platform"
        return f"JAX finds no device that it can use ({text}); JAX_PLATFORMS=cpu computes without it"
    return None


def _no_device() -> bool:
    """Whether JAX was imported and cannot initialise any backend."""
    jax = sys.modules.get("jax")
    if jax is None:
        return False
    try:
        return not jax.devices()
    except (RuntimeError, AssertionError):
        return True


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
