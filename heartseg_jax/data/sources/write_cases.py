"""The one writer: the cases of a source, whatever they were read from, become a dataset folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax import findings, progress
from heartseg_jax.data.dataset.records import check_leaks
from heartseg_jax.data.dataset.splits import assign_splits, block_splits
from heartseg_jax.data.dataset.write import Dataset, DatasetWriter, check_output, read_dataset, verify
from heartseg_jax.data.sources.case import Case, Labelled, Source
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, counted, some
from heartseg_jax.imaging.masks.label_maps import resolve_parts
from heartseg_jax.imaging.volume import AIR_HU, put_in_middle
from heartseg_jax.threads import map_in_order

AIR = {np.dtype(np.int16): AIR_HU, np.dtype(np.uint8): 0}
"""What slices are padded with."""
Seen = dict[str, list[tuple[str, str]]]
"""By check: (identity, what was seen) of each case it was seen in."""


def write_cases(
    output: str | Path,
    source: Source,
    *,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    overwrite: bool = False,
) -> Dataset:
    """Make a dataset of a source's cases, padded in plane with air to the largest.

    `fractions` are shares of persons (train, validation, test), or numbers of them, drawn by `seed`; both are not used
    where the source splits. At most `source.workers` cases, and as many again, are in memory at the same time.

    Raises:
      UserError: a case is refused (named, with the finding and its fix), no structure is labelled anywhere, or one
        image is in two splits. Nothing is written then.
    """
    check_output(output, overwrite)
    about = dict(source.about)
    warnings: list[str] = list(about.pop("warnings", ()))
    sizes = _sizes(source.cases, warnings)
    height, width = (max(side) for side in zip(*(size for _, size in sizes), strict=True))
    splits = source.splits
    if splits is None:
        splits = assign_splits([case.person for case, _ in sizes], fractions, seed)
        about |= {"seed": seed, "fractions": list(fractions)}
    seen: Seen = {}
    kept: list[tuple[Case, int]] = []
    show = progress.bar(source.unit)
    with DatasetWriter(
        output,
        intensity=source.intensity,
        height=height,
        width=width,
        source=about,
        label_set=source.labels,
        overwrite=overwrite,
    ) as writer:
        cases = [case for case, _ in sizes]
        read = map_in_order(lambda case: case.read(), cases, source.workers)
        for done, (case, one) in enumerate(zip(cases, read, strict=True), 1):
            if source.leave_out_refused and findings.refused(one.found):
                text = f"left out: {findings.in_order(one.found)[0].seen}"
                seen.setdefault("refused", []).append((case.identity, text))
            else:
                findings.raise_refused(case.where, one.found)
                count = _add(writer, case, one, (height, width), splits[case.person], about, seen)
                kept.append((case, count))
            show(done, len(cases))
        if not kept:
            raise UserError(f"all {len(cases)} volumes are refused, such as {_summary('', seen['refused'][:1])}")
        persons = [case.person for case, _ in kept]
        if source.splits is None and len(set(persons)) == 1:
            writer.split_again({case.identity: block_splits(count, fractions) for case, count in kept}, "block")
        elif source.splits is None and len(kept) < len(cases):
            # Drawn again over those who are left, so that no split stays empty for want of one who was refused.
            splits = assign_splits(persons, fractions, seed)
            writer.split_again({case.identity: splits[case.person] for case, _ in kept}, "patient")
        _check(writer.written())
        warnings += [_summary(check, who) for check, who in seen.items()] + _several_volumes(persons)
        if warnings:
            about["warnings"] = warnings
    dataset = read_dataset(output)
    verify(dataset)
    return dataset


def _sizes(cases: Sequence[Case], warnings: list[str]) -> list[tuple[Case, tuple[int, int]]]:
    """Return the cases in which something is labelled, with the sizes of their slices."""
    sizes = [(case, size) for case in cases if (size := case.size()) is not None]
    if len(sizes) < len(cases):
        warnings.append(f"{len(cases) - len(sizes)} of {len(cases)} were left out: none of the structures is in them")
    if not sizes:
        raise UserError("no structure of the heart is labelled in any of the patients")
    distinct = {size for _, size in sizes}
    if len(distinct) > 1:
        height, width = (max(side) for side in zip(*distinct, strict=True))
        warnings.append(f"slices of {len(distinct)} sizes were padded to {height} x {width}")
    return sizes


def _add(
    writer: DatasetWriter,
    case: Case,
    one: Labelled,
    size: tuple[int, int],
    split: str,
    about: dict[str, Any],
    seen: Seen,
) -> int:
    """Write one case, note what was seen of it, and return how many slices it has."""
    labels, merge, aorta, _ = resolve_parts(one.labels, one.spacing_mm, one.merge)
    kept = np.arange(len(labels)) if one.annotated is None else np.flatnonzero(one.annotated)
    images = np.full((len(kept), *size), AIR[one.images.dtype], one.images.dtype)
    truth = np.zeros(images.shape, np.uint8)
    for place, z in enumerate(kept):
        put_in_middle(images[place], one.images[z])
        put_in_middle(truth[place], labels[z])
    patient = writer.add(
        case.identity,
        images,
        truth,
        names=[one.names[z] if one.names else f"{case.identity}_{z:04d}" for z in kept.tolist()],
        split=split,
        spacing_mm=one.spacing_mm,
        contiguous=one.spacing_mm is not None and bool((np.diff(kept) == 1).all()),
        merge=merge,
        person=case.person if case.person != case.identity else "",
    )
    facts = {**one.facts.get("cases", {}), **({"aorta": aorta} if aorta else {})}
    if len(kept) < len(labels):
        facts["slices_without_labels"] = len(labels) - len(kept)
    for section, value in {**one.facts, **({"cases": facts} if facts else {})}.items():
        about.setdefault(section, {})[case.identity] = value
    for finding in one.found:
        if finding.level == WARN:
            seen.setdefault(finding.check, []).append((case.identity, finding.seen))
    if not patient.labelled:
        text = "not one pixel of a structure: it teaches that everything is background; label it, or leave it out"
        seen.setdefault("no_labels", []).append((case.identity, text))
    return len(kept)


def _check(dataset: Dataset) -> None:
    """Refuse a dataset without any label, and one that has the same image in two splits."""
    if not any(patient.labelled for patient in dataset.patients):
        number = sum(patient.num_slices for patient in dataset.patients)
        raise UserError(f"all masks ({number}) are empty: no pixel is labelled as a structure; export them again")
    leaks = check_leaks(dataset) if dataset.split_kind == "patient" else []
    if leaks:
        more = f" (and {len(leaks) - 1} more)" if len(leaks) > 1 else ""
        raise UserError(
            f"{leaks[0]}{more}: a score on such a split is worthless; remove the copies, or if both are one patient, "
            "give them one name, or patient identities with --patients=table.csv"
        )


def _several_volumes(persons: Sequence[str]) -> list[str]:
    twice = sorted({person for person in persons if persons.count(person) > 1})
    if not twice:
        return []
    together = ", and all of a person's are in one split" if len(set(persons)) > 1 else ""
    who = f"{counted(len(twice), 'person')} with several volumes ({some(twice)})"
    return [f"{who}: each counts as a patient{together}"]


def _summary(check: str, who: Sequence[tuple[str, str]]) -> str:
    identity, text = who[0]
    if len(who) == 1:
        return f"{identity}: {text}"
    return f"{check.replace('_', ' ')} in {len(who)} patients ({some([one for one, _ in who])}), such as: {text}"
