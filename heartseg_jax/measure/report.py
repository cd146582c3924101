"""Measurements as plain text for the terminal."""

from __future__ import annotations

import textwrap

from heartseg_jax.measure.results import REFUSED, Measurements, StructureMeasurement, ValveMeasurement

WIDTH = 100
ACROSS, UNNAMED = ("intercommissural_mm", "septolateral_mm"), ("major_mm", "minor_mm")
"""A valve has the former, or the latter where no septal direction is known."""


def table(measurements: Measurements) -> str:
    """Return a line per structure (volume, HU, status, reason), a line per valve, and the warnings below.

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
    for valve in (measurements.mitral, measurements.tricuspid):
        if valve is not None:
            lines += _wrapped(f"{valve.valve} valve: ", _valve(valve))
    if measurements.septal_offset_mm is not None:
        lines += _wrapped("septal offset: ", f"{measurements.septal_offset_mm.value:.1f} mm")
    for warning in measurements.warnings:
        lines += _wrapped("warning: ", warning)
    return "\n".join(lines)


def _cells(row: StructureMeasurement) -> tuple[str, str, str, str, str]:
    volume = "" if row.volume_ml is None else f"{row.volume_ml:.1f}"
    return row.name, volume, "" if row.mean_hu is None else f"{row.mean_hu:.0f}", row.status, row.reason


def _valve(valve: ValveMeasurement) -> str:
    """Return a valve's area, diameters and status in a line; a refused one's reason."""
    if valve.status == REFUSED:
        return f"refused: {valve.reason}"
    of = {name: quantity.value for name, quantity in valve.quantities.items()}
    across = [f"{of[name]:.1f}" for name in (*ACROSS, *UNNAMED) if name in of]
    text = f"{of['area_cm2']:.1f} cm2, {' x '.join(across)} mm, {of['height_mm']:.1f} mm high, {valve.status}"
    return f"{text}: {valve.reason}" if valve.reason else text


def _wrapped(start: str, text: str) -> list[str]:
    """Return `start` and the text beside it, on as many lines as it needs."""
    lines = textwrap.wrap(text, max(WIDTH - len(start), 30)) or [""]
    return [(start + lines[0]).rstrip(), *(" " * len(start) + line for line in lines[1:])]
