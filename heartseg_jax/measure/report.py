"""Measurements as plain text for the terminal."""

from __future__ import annotations

import textwrap

from heartseg_jax.measure.results import Measurements, StructureMeasurement

WIDTH = 100


def table(measurements: Measurements) -> str:
    """Return a line per structure (volume, HU, status, reason), and the warnings below.

    A reason that all structures share is given once, below them.
    """
    head = ("structure", "mL", "HU", "status", "reason")
    rows = [head, *map(_cells, measurements.structures)]
    reasons = {row[4] for row in rows[1:]}
    shared = reasons.pop() if len(reasons) == 1 and len(rows) > 2 else ""
    if shared:
        rows = [(*row[:4], "") for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = []
    for row in rows:
        start = f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}  "
        lines += _wrapped(start, row[4])
    if shared:
        lines += _wrapped("all: ", shared)
    for warning in measurements.warnings:
        lines += _wrapped("warning: ", warning)
    return "\n".join(lines)


def _cells(row: StructureMeasurement) -> tuple[str, str, str, str, str]:
    volume = "" if row.volume_ml is None else f"{row.volume_ml:.1f}"
    return row.name, volume, "" if row.mean_hu is None else f"{row.mean_hu:.0f}", row.status, row.reason


def _wrapped(start: str, text: str) -> list[str]:
    """Return `start` and the text beside it, on as many lines as it needs."""
    lines = textwrap.wrap(text, max(WIDTH - len(start), 30)) or [""]
    return [(start + lines[0]).rstrip(), *(" " * len(start) + line for line in lines[1:])]
