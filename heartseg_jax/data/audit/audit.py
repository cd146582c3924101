"""Whether a dataset can be trusted: patients, labels, leaks between splits, and what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax import findings
from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.data.audit.label_shapes import islands, on_air, orientation_warnings
from heartseg_jax.data.audit.near_duplicates import MOST, Prints, brightness, near_duplicates, prints_of
from heartseg_jax.data.dataset.describe import caveats_of
from heartseg_jax.data.dataset.records import Dataset, Patient, check_leaks, count_classes, digest
from heartseg_jax.data.dataset.splits import GAP, SPLITS
from heartseg_jax.findings import REFUSE, WARN, Finding, counted, some
from heartseg_jax.imaging.block_checks import of_values
from heartseg_jax.imaging.hu_checks import of_pixels


class PatientAudit(NamedTuple):
    """A patient's row: `pixels` of every class and of 255, and what the values look like, in the dataset's unit.

    Half a percent of the values lie below `low`, as many above `high`; `blood` is the median under the labels, or None.
    """

    id: str
    splits: tuple[str, ...]
    slices: int
    slices_without_labels: int
    pixels: tuple[int, ...]
    low: float
    blood: float | None
    high: float


class Pair(NamedTuple):
    """Two slices of different splits that are nearly the same picture."""

    one: str
    one_split: str
    other: str
    other_split: str
    correlation: float


class Slip(NamedTuple):
    """An island of a label on a named slice."""

    slice: str
    structure: str
    row: int
    column: int
    voxels: int


class Audit(NamedTuple):
    """All findings, the most severe first, with the rows they rest on."""

    findings: list[Finding]
    patients: list[PatientAudit]
    pairs: list[Pair]
    slips: list[Slip]


def audit(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Audit:
    """Look at every slice of a dataset. `progress` is called with (patients done, patients in all)."""
    rows: list[PatientAudit] = []
    slips: list[Slip] = []
    prints: list[Prints] = []
    of_patient: dict[str, list[tuple[str, Finding]]] = {}
    for done, patient in enumerate(dataset.patients, 1):
        images, labels = dataset.images(patient), np.asarray(dataset.labels(patient))
        rows.append(_row(patient, images, labels))
        for finding in _of_patient(dataset, patient, images, labels):
            of_patient.setdefault(finding.check, []).append((patient.id, finding))
        slips += [
            Slip(_slice_name(patient, island.slice), dataset.label_set.names[island.label], *island[2:])
            for island in islands(labels, dataset.label_set, patient.contiguous)
        ]
        # A handful of slices in memory at a time.
        parts = (images[start : start + 16] for start in range(0, len(images), 16))
        prints += [prints_of(brightness(part, dataset.intensity)) for part in parts]
        if progress:
            progress(done, len(dataset.patients))
    found = [_together(who) for who in of_patient.values()]
    pairs = _pairs(dataset, prints)
    if pairs:
        one, one_split, other, other_split, value = pairs[0]
        number = f"{len(pairs)} or more" if len(pairs) == MOST else len(pairs)
        text = (
            f"{number} pairs of slices in different splits are nearly the same, such as {one} ({one_split}) and "
            f"{other} ({other_split}), correlation {value:.3f}"
        )
        fix = "if they are one patient under two names, give both one name, or use --patients=table.csv"
        found.append(Finding(WARN, "near_duplicates", text, fix=fix))
    if slips:
        name, structure, row, column, voxels = slips[0]
        place = f"{voxels} of {structure} at row {row}, column {column} of {name}"
        text = f"{counted(len(slips), 'island')} of a few voxels, such as {place}"
        found.append(Finding(WARN, "islands", text, fix="look at them: they may be slips"))
    return Audit(findings.in_order([*_of_splits(dataset), *found]), rows, pairs, slips)


def _row(patient: Patient, images: np.ndarray, labels: np.ndarray) -> PatientAudit:
    pixels = np.array(patient.class_counts, np.int64)
    thin = np.asarray(images[:: max(len(images) // 32, 1), ::2, ::2])
    low, high = (float(value) for value in np.percentile(thin, (0.5, 99.5)))
    labelled = [image[(plane > 0) & (plane != IGNORED)] for image, plane in zip(images, labels, strict=True)]
    values = np.concatenate(labelled)
    splits = tuple(split for split in (*SPLITS, GAP) if split in patient.splits)
    without = int((pixels[:, 1:-1].sum(axis=1) == 0).sum())
    blood = float(np.median(values)) if len(values) else None
    return PatientAudit(
        patient.id, splits, patient.num_slices, without, tuple(int(n) for n in pixels.sum(axis=0)), low, blood, high
    )


def _of_patient(dataset: Dataset, patient: Patient, images: np.ndarray, labels: np.ndarray) -> list[Finding]:
    found = []
    for kind, array in (("images", images), ("labels", labels)):
        if digest(array) != patient.sha256[kind]:
            text = f"the {kind} were changed after the dataset was made"
            found.append(Finding(REFUSE, "changed", text, fix="prepare it again"))
    if not found and count_classes(labels, dataset.label_set.num_classes, patient.id) != patient.class_counts:
        found.append(Finding(REFUSE, "changed", "the index counts other pixels than there are", fix="prepare it again"))
    if not patient.labelled:
        fix = "label the patient, or leave it out"
        found.append(Finding(WARN, "no_labels", "not one pixel of a structure", fix=fix))
    if dataset.intensity == "HU":
        # Padding was set to air when the dataset was made. Contrast is looked for in hearts, which needs the spacing.
        found += of_values(images, patient.spacing_mm if dataset.label_set == HEART else None)
        if dark := on_air(images, labels, dataset.label_set):
            text = f"{', '.join(dark)} lie where the image is as dark as air or lung"
            fix = "are the masks of other slices, mirrored or shifted?"
            found.append(Finding(WARN, "labels_on_air", text, fix=fix))
    else:
        found += of_pixels(images, dataset.intensity)
    return found + (orientation_warnings(labels, patient.contiguous) if dataset.label_set == HEART else [])


def _slice_name(patient: Patient, z: int) -> str:
    return f"{patient.id}, slice {patient.slice_name(z)}"


def _pairs(dataset: Dataset, prints: Sequence[Prints]) -> list[Pair]:
    """Return the nearly equal slices in different splits; none of a single patient, whose neighbours always are."""
    if dataset.split_kind != "patient":
        return []
    names = [(_slice_name(p, z), p.splits[z]) for p in dataset.patients for z in range(p.num_slices)]
    everything = Prints(*(np.concatenate(parts) for parts in zip(*prints, strict=True)))
    order = [*SPLITS, GAP]
    found = near_duplicates(everything, [order.index(split) for _, split in names])
    return [Pair(*names[pair.one], *names[pair.other], round(pair.correlation, 4)) for pair in found]


def _of_splits(dataset: Dataset) -> list[Finding]:
    found = []
    leaks = check_leaks(dataset) if dataset.split_kind == "patient" else []
    if leaks:
        more = f", and {len(leaks) - 1} more" if len(leaks) > 1 else ""
        fix = "a score on such a split is worthless: remove the copies, or correct the patients (--patients)"
        found.append(Finding(REFUSE, "leak", f"{leaks[0]}{more}", fix=fix))
    if not dataset.examples("train"):
        found.append(Finding(REFUSE, "nobody_trains", "no patient is in the training split", fix="give other --splits"))
    return found + [Finding(WARN, "dataset", text) for text in caveats_of(dataset)]


def _together(who: Sequence[tuple[str, Finding]]) -> Finding:
    """Return one finding for all patients that have it."""
    identity, first = who[0]
    if len(who) == 1:
        return replace(first, seen=f"{identity}: {first.seen}")
    names = some([one for one, _ in who], 5)
    return replace(first, seen=f"{len(who)} patients ({names}), such as {identity}: {first.seen}")


def as_record(found: Audit) -> dict[str, Any]:
    """Return an audit for JSON."""
    return {
        "findings": findings.as_json(found.findings),
        "patients": [row._asdict() for row in found.patients],
        "near_duplicates": [pair._asdict() for pair in found.pairs],
        "islands": [slip._asdict() for slip in found.slips],
    }
