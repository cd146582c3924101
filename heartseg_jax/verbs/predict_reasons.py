"""Why a study was refused, in words that may be kept: they name no patient, no file and no series."""

from __future__ import annotations

import re

from heartseg_jax.errors import UserError

LEFT_OUT = "(...)"
COUNT = re.compile(r"\d{1,5}( x \d{1,5})*", re.ASCII)
"""Longer numbers may be dates."""


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
    if first and re.search(r"[/\\]", text):
        return "the study"
    return text if not text.strip(" :;,.()'") or COUNT.fullmatch(text) else LEFT_OUT


def _own_texts(error: UserError) -> list[str]:
    """Return the literal texts of the function that raised an error, the longest first."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    constants = trace.tb_frame.f_code.co_consts if trace is not None else ()
    texts = {text for text in constants if isinstance(text, str) and len(text) > 2 and re.search("[a-zA-Z]", text)}
    return sorted(texts, key=lambda text: (-len(text), text))
