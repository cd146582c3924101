"""Why a study was refused, in words that may be kept: they name no patient, no file and no series."""

from __future__ import annotations

import re
import traceback

from heartseg_jax.errors import UserError

LEFT_OUT = "(...)"
COUNT = re.compile(r"\d{1,5}( x \d{1,5})*", re.ASCII)
"""Longer numbers may be dates."""
PHRASE = re.compile(r" [a-zA-Z]|[a-zA-Z] ")
"""Of single words, such as a file's ending, some would be found in names."""


def kept_reason(error: UserError) -> str:
    """Return what may be kept of a message, in one line.

    That is what the error itself says may be kept (`UserError.kept`). Of other messages it is what stands literally in
    the code that raised them, and counts: whatever was filled in may be a file's name, a series' description or a UID.
    """
    if error.kept:
        return " ".join(error.kept.split())
    said, pieces, end = str(error), [], 0
    for match in re.finditer("|".join(map(re.escape, _own_texts(error))) or "(?!)", said):
        pieces += [_filled_in(said[end : match.start()], first=end == 0), match[0]]
        end = match.end()
    if not end:
        return "see what was printed when it was tried"
    return " ".join("".join([*pieces, _filled_in(said[end:])]).split())


def _filled_in(text: str, *, first: bool = False) -> str:
    if not text.strip(" :;,.()'") or COUNT.fullmatch(text):
        return text
    end = re.search(r"[:;,]? ?$", text)
    return ("the study" if first and re.search(r"[/\\]", text) else LEFT_OUT) + (end[0] if end else "")


def _own_texts(error: BaseException | None) -> list[str]:
    """Return the literal texts of the functions through which an error and its causes came, the longest first."""
    found: set[str] = set()
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            found |= {text for text in frame.f_code.co_consts if isinstance(text, str) and PHRASE.search(text)}
        error = error.__cause__ or error.__context__
    return sorted(found, key=lambda text: (-len(text), text))
