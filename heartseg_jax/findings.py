"""What a check found: one form for readers, audit and guards, and what a policy makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any

from heartseg_jax.errors import GuardStop, UserError

REFUSE, WARN, NOTE = "refuse", "warn", "note"
LEVELS = (REFUSE, WARN, NOTE)


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Attributes:
      level: 'refuse' (not fit for use), 'warn' (usable, with care) or 'note'.
      check: the check's name, such as 'duplicate_positions'; stable, for programs. A guard's finding has the name of
        its policy, `config.guards.<check>`.
      seen: what was seen, in one sentence without a full stop; never anything that names a patient.
      cause: the likely cause; empty where `seen` says it.
      fix: what to do; may be empty for a note.
      example: where it was seen, such as a file's name. Files may be named after the patient: it is shown to the user
        and never kept.
    """

    level: str
    check: str
    seen: str
    _: KW_ONLY
    cause: str = ""
    fix: str = ""
    example: str = ""

    @property
    def shown(self) -> str:
        """What was seen, with the example: for the terminal."""
        return self.seen + (f", such as {self.example}" if self.example else "")

    def __str__(self) -> str:
        cause = f"\n       likely cause: {self.cause}" if self.cause else ""
        return f"{self.level:<6} {self.check}: {self.shown}{cause}" + (f"\n       {self.fix}" if self.fix else "")


def counted(number: int, noun: str) -> str:
    """Return '1 file', '2 files'."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def some(names: Sequence[str], most: int = 3) -> str:
    """Return 'a, b, c and 2 more'."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the gravest first; within a level as they came."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def refused(findings: Iterable[Finding]) -> bool:
    """Return whether any finding refuses the input."""
    return any(finding.level == REFUSE for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return 'fit for use', 'fit for use, with 2 warnings', or 'not fit for use'."""
    if refused(findings):
        return "not fit for use"
    warnings = sum(finding.level == WARN for finding in findings)
    return "fit for use" + (f", with {counted(warnings, 'warning')}" if warnings else "")


def raise_refused(where: str, findings: Iterable[Finding]) -> None:
    """Raise a UserError of one line with the first refusal; the others are counted."""
    grave = [finding for finding in findings if finding.level == REFUSE]
    if grave:
        more = f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""
        fix = f"; {grave[0].fix}" if grave[0].fix else ""
        raise UserError(f"{where}: {grave[0].shown}{fix}{more}", kept=f"{grave[0].seen}{fix}{more}")


def apply_policy(findings: Iterable[Finding], policy: Mapping[str, str]) -> list[str]:
    """Return the findings that only warn, as text; raise GuardStop for the first that stops.

    `policy[check]` (`config.guards`) is 'stop', 'warn' or 'off'.
    """
    warnings = []
    for finding in findings:
        text = f"{finding.check} guard: {finding.seen}\n  likely cause: {finding.cause}\n  what to try:  {finding.fix}"
        if policy[finding.check] == "stop":
            raise GuardStop(f"{text}\n  to go on all the same: --config.guards.{finding.check}=warn")
        if policy[finding.check] == "warn":
            warnings.append(text)
    return warnings


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the findings, gravest first, for JSON: their attributes as keys."""
    return [asdict(finding) for finding in in_order(findings)]
