"""Labelled volumes in HU, whatever they were read from -> a dataset folder, each a patient's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax import findings
from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.dataset.splits import assign_splits, block_splits
from heartseg_jax.data.dataset.write import DatasetWriter, check_output, read_dataset, verify
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.masks.label_maps import settle
from heartseg_jax.imaging.volume import AIR_HU, Volume, put_in_middle

OBLIQUE_DEGREES = 5.0
SAME_PLACE_MM = 0.1
"""So far apart may the corners of two grids lie that are meant to be one: rounding of headers."""
MOST_SHOWN = 3
Progress = Callable[[int, int], None]


class Labelled(NamedTuple):
    """A patient's volume, patient-axial, HU in int16, and what is known of it.

    Attributes:
      volume: the image.
      labels: uint8 on its grid: 0 to 8, 255, or `meanings.AORTA`, which is divided on the way.
      merge: see `LabelSet.check_merge`.
      annotated: bool `[Z]`: slices whose labels are known; None for all.
      found: what was seen while it was read.
      facts: what the dataset is to keep of it beside that; nothing that names a patient.
    """

    volume: Volume
    labels: np.ndarray
    merge: tuple[int, ...]
    annotated: np.ndarray | None = None
    found: tuple[Finding, ...] = ()
    facts: dict[str, Any] = {}  # noqa: RUF012 -- never changed


class Case(NamedTuple):
    """A patient to be read: `size` tells rows and columns of the axial slices, or None where nothing is of use.

    `person` is the same for all cases of one human being: they are never parted by a split. `where` names the input for
    who has to mend it, and enters nothing that is kept.
    """

    identity: str
    person: str
    where: str
    size: Callable[[], tuple[int, int] | None]
    read: Callable[[], Labelled]


class Source(NamedTuple):
    """What is to be made into a dataset: its cases, what the dataset is to say of where they come from, and whether a
    volume that is refused is left out and counted (collections of hundreds) or ends the work.
    """

    cases: Sequence[Case]
    about: dict[str, Any]
    leave_out_refused: bool = False


def write_volumes(
    output: str | Path,
    source: Source,
    *,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Make a dataset of a source's cases, padded in plane with air to the largest; one volume is in memory at a time.

    Args:
      output: the dataset folder.
      source: who is in it.
      fractions: shares of persons (train, validation, test), or numbers of them.
      seed: of the split.
      overwrite: replace an existing dataset.
      progress: called with (volumes done, volumes in all).

    Raises:
      UserError: a volume is refused, naming the patient, the finding and the mend; nothing is written then.
    """
    check_output(output, overwrite)
    cases, about = source.cases, dict(source.about)
    sizes = [(case, size) for case in cases if (size := case.size()) is not None]
    warnings = about["warnings"] = list(about.get("warnings", ()))
    if len(sizes) < len(cases):
        warnings.append(f"{len(cases) - len(sizes)} of {len(cases)} were left out: none of the structures is in them")
    if not sizes:
        raise UserError("nobody is left: no structure of the heart is labelled in any of them")
    height, width = max(h for _, (h, _) in sizes), max(w for _, (_, w) in sizes)
    if len({size for _, size in sizes}) > 1:
        warnings.append(f"slices of {len({size for _, size in sizes})} sizes were padded to {height} x {width}")
    splits = assign_splits([case.person for case, _ in sizes], fractions, seed)
    about |= {"seed": seed, "fractions": list(fractions), "cases": {}}
    seen: dict[str, list[tuple[str, str]]] = {}
    with DatasetWriter(
        output,
        intensity="HU",
        height=height,
        width=width,
        label_set=HEART,
        source=about,
        overwrite=overwrite,
    ) as writer:
        kept: list[tuple[Case, int]] = []
        for done, (case, _) in enumerate(sizes, 1):
            one = case.read()
            if progress:
                progress(done, len(sizes))
            if source.leave_out_refused and findings.refused(one.found):
                text = f"left out: {findings.in_order(one.found)[0].seen}"
                seen.setdefault("refused", []).append((case.identity, text))
                continue
            findings.raise_refused(case.where, one.found)
            count, facts = _add(writer, case, one, (height, width), splits[case.person])
            kept.append((case, count))
            about["cases"][case.identity] = {**one.facts, **facts}
            for finding in one.found:
                if finding.level == WARN:
                    seen.setdefault(finding.check, []).append((case.identity, finding.seen))
        if not kept:
            raise UserError(f"all {len(sizes)} volumes are refused, such as {_summary('', seen['refused'][:1])}")
        # Drawn once more over those who are left, so that no split stays empty for want of one who was refused.
        persons = [case.person for case, _ in kept]
        if len(set(persons)) == 1:
            writer.split_again({case.identity: block_splits(count, fractions) for case, count in kept}, "block")
        else:
            splits = splits if len(kept) == len(sizes) else assign_splits(persons, fractions, seed)
            writer.split_again({case.identity: splits[case.person] for case, _ in kept}, "patient")
        warnings += [_summary(check, who) for check, who in seen.items()]
        twice = sorted({person for person in persons if persons.count(person) > 1})
        if twice:
            together = ", and all of a person's are in one split" if len(set(persons)) > 1 else ""
            text = f"{len(twice)} persons have several volumes ({_some(twice)}): each counts as a patient{together}"
            warnings.append(text)
    dataset = read_dataset(output)
    verify(dataset)
    return dataset


def _add(
    writer: DatasetWriter,
    case: Case,
    one: Labelled,
    size: tuple[int, int],
    split: str,
) -> tuple[int, dict[str, Any]]:
    """Write one patient; return how many slices it has, and what is to be told of aorta and slices left out."""
    labels, merge, aorta, _ = settle(one.labels, one.volume.spacing_mm, one.merge)
    kept = np.arange(len(labels)) if one.annotated is None else np.flatnonzero(one.annotated)
    planes = np.full((len(kept), *size), AIR_HU, np.int16)
    truth = np.zeros((len(kept), *size), np.uint8)
    for place, z in enumerate(kept):
        put_in_middle(planes[place], one.volume.voxels[z])
        put_in_middle(truth[place], labels[z])
    writer.add(
        case.identity,
        planes,
        truth,
        names=[f"{case.identity}_{z:04d}" for z in kept],
        split=split,
        spacing_mm=one.volume.spacing_mm,
        contiguous=len(kept) == 1 or bool((np.diff(kept) == 1).all()),
        merge=merge,
        person=case.person if case.person != case.identity else "",
    )
    facts: dict[str, Any] = {"aorta": aorta} if aorta else {}
    if len(kept) < len(labels):
        facts["slices_without_labels"] = len(labels) - len(kept)
    return len(kept), facts


def _summary(check: str, who: Sequence[tuple[str, str]]) -> str:
    identity, seen = who[0]
    if len(who) == 1:
        return f"{identity}: {seen}"
    return f"{check.replace('_', ' ')} in {len(who)} patients ({_some([one for one, _ in who])}), such as: {seen}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (" ..." if len(names) > MOST_SHOWN else "")


def oblique(degrees: float) -> list[Finding]:
    """Return the finding of a volume that lies so much askew."""
    if degrees <= OBLIQUE_DEGREES:
        return []
    text = f"the volume is oblique by {degrees:.0f} degrees: its slices are not quite axial"
    return [Finding(WARN, "oblique", text, fix="resample it to axial slices")]


def overlapping(voxels: int) -> list[Finding]:
    """Return the finding of voxels that two structures claim, if there are any."""
    if not voxels:
        return []
    text = f"{voxels} voxels belong to two structures: they are ignored (255)"
    return [Finding(WARN, "overlapping_structures", text, fix="look at where the structures meet")]


def check_same_grid(labels: Volume, image: Volume, where: str | Path) -> None:
    """Raise UserError unless two patient-axial volumes have one grid; `where` names the labels' file."""
    if image.voxels.shape != labels.voxels.shape or _apart_mm(image, labels) > SAME_PLACE_MM:
        raise UserError(
            f"{where} is not on the grid of its image: {_grid(labels)}, the image {_grid(image)}; resample the "
            "labels to the image's grid (nearest neighbour)"
        )


def _apart_mm(a: Volume, b: Volume) -> float:
    """Return how far corresponding corners of two grids of one shape lie apart at the most."""
    far = []
    for corner in np.ndindex(2, 2, 2):
        index = np.array(corner) * (np.array(a.voxels.shape) - 1)
        places = [np.array(v.origin_mm) + v.direction @ (index * v.spacing_mm) for v in (a, b)]
        far.append(float(np.linalg.norm(places[0] - places[1])))
    return max(far)


def _grid(volume: Volume) -> str:
    size = " x ".join(map(str, volume.voxels.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
    return f"{size} at {spacing} mm from ({', '.join(f'{mm:.1f}' for mm in volume.origin_mm)})"
