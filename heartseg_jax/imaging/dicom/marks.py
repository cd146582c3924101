"""Words in a header which say that a slice is no plain CT reconstruction: maps, renderings, reformations."""

from __future__ import annotations

import functools
import re

MAP, MONOENERGETIC, PROJECTION, REFORMATTED = "not_hu_map", "monoenergetic", "projection", "reformatted"
"""What a mark says, by the name of its check."""
WORDS = {
    MAP: r"IODINE|IODMAP|Z.?EFF|EFFECTIVE.?Z|RHO|ELECTRON.?DENSITY|PERFUSION|CALCIUM.?SUPPRESSED|SPECTRAL|MGML|EDW",
    MONOENERGETIC: r"MONO.?E(?:NERGETIC)?|VMI|\d{2,3}\s?KEV",
    PROJECTION: r"MIP|MINIP|AVERAGE|PROJECTION IMAGE|VRT|VOLREN\w*",
    REFORMATTED: r"MPR|CURVED|REFORMATTED|RESAMPLED",
}
PATTERNS = {mark: re.compile(rf"\b({words})\b") for mark, words in WORDS.items()}
STRONGER = {MONOENERGETIC: MAP, REFORMATTED: PROJECTION}
"""A mark says nothing beside its stronger one."""


@functools.lru_cache(maxsize=4096)
def marks_of(said: str) -> frozenset[tuple[str, str]]:
    """Return the marks in ImageType, SeriesDescription and the like, each with its word in lower case."""
    found = {mark: hit[1].lower() for mark, pattern in PATTERNS.items() if (hit := pattern.search(said.upper()))}
    return frozenset((mark, word) for mark, word in found.items() if STRONGER.get(mark) not in found)
