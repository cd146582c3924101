"""Description of a dataset: patients per split, how often each structure occurs, and warnings."""

from __future__ import annotations

import numpy as np

from heartseg_jax.data.dataset.records import Dataset, check_leaks
from heartseg_jax.data.dataset.splits import GAP, SPLITS
from heartseg_jax.findings import counted, some


def describe(dataset: Dataset) -> str:
    """Return the description as text: patients per split, pixels and slices per structure, merges, warnings."""
    lines = [
        f"dataset    {dataset.path}",
        f"source     {dataset.source.get('kind', 'unknown')}, label set {dataset.label_set.name}, intensity"
        f" {dataset.intensity}, slices of {dataset.height} x {dataset.width}, split by {dataset.split_kind}",
    ]
    for split in SPLITS:
        names = [patient.id for patient in dataset.patients_in(split)]
        size = f"{counted(len(names), 'patient')}, {counted(len(dataset.examples(split)), 'slice')}"
        lines.append(f"{split:<10} {size}: {some(names, 6) or '-'}")
    lines += ["", *count_table(dataset)]
    labels = dataset.label_set
    for merge in sorted({patient.merge for patient in dataset.patients} - {labels.all_known}):
        who = [patient.id for patient in dataset.patients if patient.merge == merge]
        parts = [
            f"{s.name} counts as {labels.names[merge[s.label]]}" for s in labels.foreground if merge[s.label] != s.label
        ]
        lines.append(f"merge      {'; '.join(parts)}: {some(who, 6)}")
    leaks = check_leaks(dataset)[:5] if dataset.split_kind == "patient" else []
    lines += [f"warning    {warning}" for warning in (*caveats_of(dataset), *leaks)]
    return "\n".join(lines)


def count_table(dataset: Dataset) -> list[str]:
    """Return the lines of a table: pixels of each structure, and slices that show it, by split."""
    lines = [f"{'pixels (slices)':<18}" + "".join(f"{split:>20}" for split in SPLITS)]
    counts = {split: counts_of(dataset, split) for split in SPLITS}
    labels = dataset.label_set
    for row, name in (*enumerate(labels.names), (labels.num_classes, "ignored (255)")):
        cells = (f"{counts[s][:, row].sum()} ({(counts[s][:, row] > 0).sum()})" for s in SPLITS)
        lines.append(f"{name:<18}" + "".join(f"{cell:>20}" for cell in cells))
    return lines


def counts_of(dataset: Dataset, split: str) -> np.ndarray:
    """Return `[slices, classes + 1]` pixels of every class and of 255, of every slice in a split."""
    rows = [dataset.patients[p].class_counts[s] for p, s in dataset.examples(split)]
    return np.array(rows, np.int64).reshape(-1, dataset.label_set.num_classes + 1)


def caveats_of(dataset: Dataset) -> list[str]:
    """Return the reasons not to trust a score on `dataset` that its index shows; no array is read."""
    found = list(dataset.source.get("warnings", ()))
    persons = len({patient.who for patient in dataset.patients})
    if dataset.split_kind == "block":
        gaps = sum(split == GAP for patient in dataset.patients for split in patient.splits)
        found.append(
            f"only one patient, split by block, {counted(gaps, 'slice')} left out between blocks: a score on it shows"
            " memorisation, not generalisation"
        )
    elif persons < 5:
        found.append(f"{counted(persons, 'patient')}: report each, a mean over fewer than five says little")
    found += [f"no patient is in the {split} split" for split in SPLITS if not dataset.examples(split)]
    known = {m for patient in dataset.patients for c, m in enumerate(patient.merge) if c == m}
    trained = counts_of(dataset, "train").sum(axis=0)
    missing = [s.name for s in dataset.label_set.foreground if s.label in known and trained[s.label] == 0]
    if missing:
        found.append(f"not one training pixel of {', '.join(missing)}: it cannot be learnt from this dataset")
    return found
