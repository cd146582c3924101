"""The verb `check --input=DATASET`: whether a dataset can be trusted, before anything is trained on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax import findings, progress
from heartseg_jax.data.audit.audit import Audit, PatientAudit, as_record, audit
from heartseg_jax.data.dataset.describe import count_table, counts_of
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.dataset.splits import SPLITS
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.figures.montage import montage

PICTURE = "audit.png"
MOST_ROWS, MOST_PAIRS = 40, 10


def check_dataset(path: Path, picture: Path | None = None, *, as_json: bool = False) -> None:
    """Print the verdict on a dataset, one row per patient, counts by split and all findings; draw a montage.

    The keys are `fit`, `verdict`, `findings`, `patients`, `counts` {split: {structure: {pixels, slices}}},
    `near_duplicates`, `islands` and `montage` (the picture's path; by default `audit.png` in the dataset).

    Raises:
      UserError: after printing, where the dataset is not fit for use; or there is no dataset.
    """
    place = picture or path / PICTURE
    if place.suffix.lower() != ".png":
        raise UserError(f"--output={place} is the audit's picture: its name must end in .png")
    dataset = read_dataset(path)
    found = audit(dataset, progress.bar("patients"))
    verdict = findings.verdict(found.findings)
    record = {
        "fit": not findings.refused(found.findings),
        "verdict": verdict,
        **as_record(found),
        "counts": _counts(dataset),
        "montage": str(place),
    }
    # The verdict first: a picture that cannot be drawn or written must not cost it.
    print(json.dumps(record) if as_json else _page(dataset, found, verdict, place))
    montage(dataset, place, f"{path.name}: {verdict}", "display")
    findings.raise_refused(str(path), found.findings)


def _counts(dataset: Dataset) -> dict[str, dict[str, dict[str, int]]]:
    counts = {split: counts_of(dataset, split) for split in SPLITS}
    return {
        split: {
            s.name: {"pixels": int(rows[:, s.label].sum()), "slices": int((rows[:, s.label] > 0).sum())}
            for s in dataset.label_set.foreground
        }
        for split, rows in counts.items()
    }


def _page(dataset: Dataset, found: Audit, verdict: str, picture: Path) -> str:
    lines = [f"{dataset.path}: {verdict}", "", *map(str, found.findings)]
    if found.findings:
        lines.append("")
    lines += _rows(dataset, found.patients)
    lines += ["", *count_table(dataset)]
    if found.pairs:
        lines += ["", "slices in different splits that are nearly the same (1 is the same picture)"]
        lines += [
            f"{pair.correlation:.3f}  {pair.one} ({pair.one_split})  {pair.other} ({pair.other_split})"
            for pair in found.pairs[:MOST_PAIRS]
        ]
        lines += [f"and {len(found.pairs) - MOST_PAIRS} more: --json"] if len(found.pairs) > MOST_PAIRS else []
    lines += ["", f"picture    {picture}"]
    return "\n".join(lines)


def _rows(dataset: Dataset, patients: Sequence[PatientAudit]) -> list[str]:
    """Return the table of patients: pixels by structure in thousands, and what their values look like."""
    own = dataset.label_set.foreground
    width = max(7, *(len(row.id) for row in patients[:MOST_ROWS]))
    unit = {"HU": "HU", "uint8": "of 255", "tissue": "tissue codes"}[dataset.intensity]
    head = f"{'patient':<{width}} {'split':<10} slices empty " + "".join(f"{s.short:>7}" for s in own)
    lines = [f"{head}     255   low blood  high  ({unit}; thousands of pixels)"]
    for row in patients[:MOST_ROWS]:
        cells = "".join(f"{row.pixels[s.label] / 1000:>7.1f}" for s in own)
        blood = "-" if row.blood is None else f"{row.blood:.0f}"
        lines.append(
            f"{row.id:<{width}} {row.splits[0] if len(row.splits) == 1 else 'all':<10} {row.slices:>6} "
            f"{row.slices_without_labels:>5} {cells}{row.pixels[-1] / 1000:>8.1f}{row.low:>6.0f}{blood:>6}"
            f"{row.high:>6.0f}"
        )
    return lines + ([f"and {len(patients) - MOST_ROWS} more: --json"] if len(patients) > MOST_ROWS else [])
