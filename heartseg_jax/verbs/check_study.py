"""The verb `check --input=STUDY`: what a DICOM study holds, and what it is fit for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartseg_jax import findings, progress
from heartseg_jax.errors import UserError
from heartseg_jax.findings import Finding
from heartseg_jax.imaging import block_checks
from heartseg_jax.imaging.dicom.series import SeriesCandidate, read_block
from heartseg_jax.imaging.dicom.study import choose, read_contents


def check_study(path: Path, series: str = "", *, as_json: bool = False) -> None:
    """Print the verdict on the study in `path`, its series and all findings.

    The keys are `fit`, `fit_for` (keys of `block_checks.USES`), `verdict`, `chosen` (a series' name, or null),
    `candidates` [{name, description, phase, slices, rows, columns, spacing_mm, findings}] and `findings` [{level,
    check, seen, cause, fix}], the chosen series' among them.

    Raises:
      UserError: after the printing, where the study is not fit; or there is no study.
    """
    contents = read_contents(path, progress.bar("files"))
    candidates, found = contents.candidates, contents.findings
    chosen, problem = None, None
    try:
        chosen = choose(contents, series, str(path))
        found = [*chosen.findings, *found]
        if chosen.stack is not None:
            found += read_block(chosen, progress.bar("files"))[1]
        findings.raise_refused(str(path), found)
    except UserError as error:
        problem = error
    verdict = "not fit for use" if problem else block_checks.verdict(found)
    record = {
        "fit": problem is None,
        "fit_for": [] if problem else list(block_checks.fit_for(found)),
        "verdict": verdict,
        "chosen": chosen.name if chosen else None,
        "candidates": [_record(candidate) for candidate in candidates],
        "findings": findings.as_json(found),
    }
    print(json.dumps(record) if as_json else _page(str(path), verdict, chosen, candidates, found))
    if problem:
        raise problem


def _record(candidate: SeriesCandidate) -> dict[str, Any]:
    header = candidate.frames[0].header
    return {
        "name": candidate.name,
        "description": candidate.description,
        "phase": candidate.phase,
        "slices": len(candidate.frames),
        "rows": header.rows,
        "columns": header.columns,
        "spacing_mm": list(candidate.stack.spacing_mm) if candidate.stack else None,
        "findings": findings.as_json(candidate.findings),
    }


def _page(
    where: str,
    verdict: str,
    chosen: SeriesCandidate | None,
    candidates: Sequence[SeriesCandidate],
    found: Sequence[Finding],
) -> str:
    lines = [f"{where}: {verdict}", ""]
    for number, candidate in enumerate(candidates, 1):
        spacing = candidate.stack.spacing_mm if candidate.stack else None
        apart = " x ".join(f"{mm:.4g}" for mm in spacing) + " mm" if spacing else "no regular block"
        words = [candidate.description or "no description", *([f"phase {candidate.phase}"] if candidate.phase else [])]
        mark = "*" if candidate is chosen else " "
        lines.append(f"{mark} {number}: {', '.join(words)}: {candidate.size}, {apart}")
        if candidate is not chosen:
            lines += [f"      {finding.level} {finding.check}" for finding in candidate.findings]
    lines += ["", *map(str, findings.in_order(found))]
    return "\n".join(lines).rstrip()
