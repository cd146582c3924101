"""What a look at input found: one form for every reader and for `check`, from "cannot be used" to "be told"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError

REFUSE, WARN, NOTE = "refuse", "warn", "note"
LEVELS = (REFUSE, WARN, NOTE)


class Finding(NamedTuple):
    """One thing that was seen.

    Attributes:
      level: 'refuse' (not fit for use), 'warn' (usable, with care) or 'note'.
      check: the check's name, such as 'duplicate_positions'; stable, for programs.
      seen: what was seen, in one sentence without a full stop; never anything that names a patient.
      mend: what to do; may be empty for a note.
    """

    level: str
    check: str
    seen: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:<6} {self.check}: {self.seen}" + (f"\n       {self.mend}" if self.mend else "")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the gravest first; within a level as they came."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def refused(findings: Sequence[Finding]) -> bool:
    """Tell whether any finding refuses the input."""
    return any(finding.level == REFUSE for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return 'fit for use', 'fit for use, with 2 warnings', or 'not fit for use'."""
    if refused(findings):
        return "not fit for use"
    warnings = sum(finding.level == WARN for finding in findings)
    return "fit for use" + (f", with {warnings} warning{'s' if warnings > 1 else ''}" if warnings else "")


def raise_refused(where: str, findings: Sequence[Finding]) -> None:
    """Raise a UserError of one line with the first refusal; the others are counted."""
    grave = [finding for finding in findings if finding.level == REFUSE]
    if grave:
        more = f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""
        mend = f"; {grave[0].mend}" if grave[0].mend else ""
        raise UserError(f"{where}: {grave[0].seen}{mend}{more}")


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the findings, gravest first, for JSON."""
    return [finding._asdict() for finding in in_order(findings)]
