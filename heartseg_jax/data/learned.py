"""What a run learns from a dataset, for the contract of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heartseg_jax.data.dataset.records import Dataset, Patient
from heartseg_jax.findings import some
from heartseg_jax.preprocess.learned import REAL, SYNTHESISED, UNRECORDED, Learned, trained_on

SYNTHETIC_SOURCES = ("phantom", "anatomy")
"""Kinds of sources whose images are made by a program, never by a scanner."""


def learned_from(dataset: Dataset) -> tuple[Learned, ...]:
    """Return a record for each part of a dataset that has training patients."""
    return tuple(_of_part(part) for part in dataset.parts if part.patients_in("train"))


def _of_part(dataset: Dataset) -> Learned:
    patients = dataset.patients_in("train")
    names = {structure.label: structure.name for structure in dataset.label_set.foreground}
    structures = dict.fromkeys(names.values(), 0)
    slices = 0
    for patient in patients:
        rows = [row for row, split in zip(patient.class_counts, patient.splits, strict=True) if split == "train"]
        counts = np.sum(rows, axis=0)
        slices += len(rows)
        for label, name in names.items():
            if counts[label] and patient.merge[label] == label:
                joined = [names[other] for other in names if other != label and patient.merge[other] == label]
                key = "+".join([name, *joined])
                structures[key] = structures.get(key, 0) + 1
    synthetic = dataset.intensity == "tissue" or dataset.source.get("kind") in SYNTHETIC_SOURCES
    return Learned(
        name=dataset.name or dataset.path.resolve().name,
        images=SYNTHESISED if synthetic else REAL,
        patients=len(patients),
        slices=slices,
        structures=structures,
        images_sha256=tuple(sorted(patient.sha256["images"] for patient in patients)),
    )


def seen_before(patients: Sequence[Patient], records: Sequence[Learned]) -> list[str]:
    """Return the ids of the patients whose images, bit for bit, are among those that were trained on."""
    digests = trained_on(records)
    return [patient.id for patient in patients if patient.sha256["images"] in digests]


def memorised(scored: Sequence[Patient], records: Sequence[Learned]) -> tuple[str, ...]:
    """Return what a report must say of patients that were trained on, and of weights that do not state their data."""
    known = seen_before(scored, records)
    texts = []
    if known:
        names = some(known, 6)
        texts.append(
            f"memorisation, not generalisation: {len(known)} of {len(scored)} patients were trained on ({names})"
        )
    if UNRECORDED in records:
        texts.append(
            "whether the weights that it began from had seen these patients is unknown: they do not state their data"
        )
    return tuple(texts)
