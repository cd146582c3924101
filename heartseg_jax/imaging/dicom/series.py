"""A DICOM study: its series, the fittest first, and the chosen one as a Volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax import findings
from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding
from heartseg_jax.imaging import hu_checks
from heartseg_jax.imaging.dicom import checks
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source, sources_of
from heartseg_jax.imaging.dicom.geometry import Block, Member, along_normal, arrange, normal_of
from heartseg_jax.imaging.dicom.header import Header, read_header
from heartseg_jax.imaging.dicom.patient import Words, read_words
from heartseg_jax.imaging.dicom.pixels import read_hu
from heartseg_jax.imaging.volume import AIR_HU, Frame, Volume

MOST_BYTES = 2**30
"""Of a volume: 2,000 slices of 512 x 512."""
THREADS = min(os.cpu_count() or 1, 8)
Progress = Callable[[int, int], None]


class Candidate(NamedTuple):
    """A series, or one heart phase of it: `block` is None where the findings refuse it. `name` is what to ask for.

    `phase` tells it from the series' other phases; `cardiac_phase` is what the file says of the heart, in words.
    """

    name: str
    description: str
    phase: str
    cardiac_phase: str
    members: tuple[Member, ...]
    block: Block | None
    findings: tuple[Finding, ...]

    @property
    def size(self) -> str:
        """Slices, rows and columns, as text."""
        header = self.members[0].header
        return f"{len(self.members)} x {header.rows} x {header.columns}"


class Look(NamedTuple):
    """What a study holds: its series, the fittest first, findings of no single one of them, and segmentations."""

    candidates: list[Candidate]
    findings: list[Finding]
    segmentations: list[Header]


class Study(NamedTuple):
    """What was read: the volume in HU, int16, and all that was found on the way."""

    volume: Volume
    findings: tuple[Finding, ...]
    chosen: Candidate


def candidates_of(path: Path, progress: Progress | None = None) -> tuple[list[Candidate], list[Finding]]:
    """Return a study's series, the fittest first, and the findings that concern no single one of them: see `look`."""
    return look(path, progress)[:2]


def look(path: Path, progress: Progress | None = None) -> Look:
    """Read all headers of a study, and sort them into series.

    Raises:
      UserError: there is no such path, or nothing in it.
    """
    sources = sources_of(path)
    headers, found, others = _headers(sources, progress)
    localizers = [header for header in headers if checks.is_localizer(header)]
    if localizers:
        found.append(Finding(NOTE, "localizers", f"{len(localizers)} localizers were left out"))
    masks = [header for header in headers if checks.is_segmentation(header)]
    if masks:
        found.append(Finding(NOTE, "segmentations", f"{len(masks)} segmentation objects: labels, no images"))
    images = [h for h in headers if (h.has_pixels or h.rows) and not checks.is_apart(h)]
    objects = sum(not checks.is_apart(header) for header in headers) - len(images)
    images, copies = _without_copies(images)
    if copies:
        found.append(Finding(WARN, "copies", f"{copies} files are copies of others and were left out"))
    if objects:
        found.append(Finding(NOTE, "no_pixels", f"{objects} DICOM files without an image were left out"))
    if others:
        found.append(Finding(NOTE, "not_dicom", f"{others} files that are not DICOM were left out"))
    series: dict[str, list[Header]] = {}
    for header in images:
        series.setdefault(header.series_uid, []).append(header)
    candidates = [one for uid, members in series.items() for one in _phases(uid, members)]
    return Look(sorted(candidates, key=_fitness), found, masks)


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], int]:
    """Return the headers without those of an instance that was there before, in the same place; and their number."""
    kept: dict[object, Header] = {}
    for header in headers:
        key = (header.instance_uid, header.places) if header.instance_uid else header.source.name
        kept.setdefault(key, header)
    return list(kept.values()), len(headers) - len(kept)


def _headers(sources: Sequence[Source], progress: Progress | None) -> tuple[list[Header], list[Finding], int]:
    """Return the headers of the DICOM files, findings on broken ones, and how many files were something else."""
    headers, broken, others = [], [], 0
    for done, source in enumerate(sources, 1):
        try:
            header = read_header(source)
        except Unreadable as error:
            broken.append(f"{source.name}: {error}")
        except OSError as error:
            broken.append(f"{source.name}: it cannot be read ({error.strerror})")
        else:
            headers += [] if header is None else [header]
            others += header is None
        if progress:
            progress(done, len(sources))
    found = []
    if broken:
        text = f"{len(broken)} DICOM files are damaged, the first is {broken[0]}"
        found.append(Finding(WARN, "damaged_files", text, fix="send the study again"))
    return headers, found, others


def _phases(uid: str, headers: Sequence[Header]) -> list[Candidate]:
    """Return a series as one candidate, or as one for each heart phase where several lie in the same places."""
    members = [Member(header, number) for header in headers for number in range(len(header.places))]
    by_phase: dict[str, list[Member]] = {}
    for member in members:
        by_phase.setdefault(member.place.phase, []).append(member)
    if len(by_phase) == 1 or not _overlap(members) or any(_overlap(own) for own in by_phase.values()):
        return [_candidate(uid, "", members)]
    note = Finding(NOTE, "multi_phase", f"a series of {len(by_phase)} phases; each is a candidate of its own")
    return [_candidate(f"{uid}#{phase}", phase, own, (note,)) for phase, own in sorted(by_phase.items())]


def _overlap(members: Sequence[Member]) -> bool:
    """Tell whether two frames lie in one place."""
    places = [member.place for member in members]
    if any(place.position_mm is None or normal_of(place) is None for place in places):
        return False
    return len(np.unique(np.round(along_normal(members), 2))) < len(members)


def _candidate(name: str, phase: str, members: Sequence[Member], more: tuple[Finding, ...] = ()) -> Candidate:
    first = members[0].header
    block, geometry = arrange(members)
    try:
        words = read_words(first.source)
    except (Unreadable, OSError):
        words = Words("", "")
    found = [*more, *checks.of_header(first, words), *geometry]
    uids = [(member.header.instance_uid, member.number) for member in members]
    if len(set(uids)) < len(uids) or "" in {uid for uid, _ in uids}:
        text = "instances lack a UID of their own: nothing written later can refer to them"
        found.append(Finding(WARN, "same_instance", text, fix="send the study again"))
    if block is not None:
        found += hu_checks.of_extent(len(members), (first.rows, first.columns), block.spacing_mm)
        if 2 * len(members) * first.rows * first.columns > MOST_BYTES:
            text = f"{len(members)} slices of {first.rows} x {first.columns} are more than memory is kept for"
            found.append(Finding(REFUSE, "too_large", text, fix="give the heart's part of the series"))
    return Candidate(
        name, words.description, phase, words.cardiac_phase, tuple(members), block, tuple(findings.in_order(found))
    )


def _fitness(candidate: Candidate) -> tuple[int, int, int, str]:
    levels = [finding.level for finding in candidate.findings]
    return levels.count(REFUSE), levels.count(WARN), -len(candidate.members), candidate.name


def choose(
    candidates: Sequence[Candidate], series: str, where: str, among: Sequence[Candidate] | None = None
) -> Candidate:
    """Return the candidate that `series` names (its number in the list, its UID or the end of it), or the only fit one.

    Where none is named, only those in `among` come into question, if it is given.

    Raises:
      UserError: none is named so, or several are fit and none is named; they are listed.
    """
    if not candidates:
        raise UserError(f"{where} holds no DICOM image")
    if series:
        if series.isascii() and series.isdecimal() and len(series) < 7 and 1 <= int(series) <= len(candidates):
            return candidates[int(series) - 1]
        named = [c for c in candidates if c.name == series] or [c for c in candidates if c.name.endswith(series)]
        if len(named) == 1:
            return named[0]
        raise UserError(f"--series={series} names {len(named)} of the series in {where}: {listed(candidates)}")
    asked = candidates if among is None else among
    fit = [c for c in asked if not findings.refused(c.findings)]
    if len(fit) > 1:
        raise UserError(
            f"{where} holds {len(fit)} series that fit; choose by --series=N: {listed(candidates, among=fit)}"
        )
    return fit[0] if fit else asked[0]


def listed(candidates: Sequence[Candidate], among: Sequence[Candidate] | None = None) -> str:
    """Return the candidates, or those in `among`, as text: numbered as `choose` counts, with their names and sizes."""
    return "; ".join(
        f"{number}: {c.description or 'no description'}{f', phase {c.phase}' if c.phase else ''}, {c.size}"
        for number, c in enumerate(candidates, 1)
        if among is None or any(c is one for one in among)
    )


def read_study(path: str | Path, series: str = "", progress: Progress | None = None) -> Study:
    """Read the DICOM study in a folder, a zip or a file, as a Volume in HU.

    Args:
      path: what `dicom_files.sources_of` takes.
      series: which, see `choose`.
      progress: called with (files done, files in all), once for the headers and once for the pixels.

    Raises:
      UserError: there is no series that can be used, with the gravest finding of the fittest.
    """
    path = Path(path)
    candidates, found = candidates_of(path, progress)
    chosen = choose(candidates, series, str(path))
    findings.raise_refused(str(path), [*chosen.findings, *found])
    volume, values = read_block(chosen, progress)
    findings.raise_refused(str(path), values)
    return Study(volume, tuple(findings.in_order([*chosen.findings, *values, *found])), chosen)


def read_block(candidate: Candidate, progress: Progress | None = None) -> tuple[Volume, list[Finding]]:
    """Return a candidate's volume, and what its values tell; the candidate must have a block.

    Raises:
      UserError: a slice cannot be decoded; it names the file and the cause.
    """
    block = candidate.block
    assert block is not None
    first = block.members[0].header
    hu = np.full((len(block.members), first.rows, first.columns), AIR_HU, np.int16)
    files: dict[Source, list[tuple[int, int]]] = {}
    headers: dict[Source, Header] = {}
    for z, member in enumerate(block.members):
        files.setdefault(member.header.source, []).append((z, member.number))
        headers[member.header.source] = member.header

    def decode(source: Source) -> int:
        frames, padded = read_hu(headers[source])
        for z, number in files[source]:
            hu[z] = frames[number]
        return padded

    padded = 0
    # Decoders leave Python's lock, and so does the disk.
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = {source: pool.submit(decode, source) for source in files}
        for done, (source, future) in enumerate(waiting.items(), 1):
            try:
                padded += future.result()
            except Unreadable as error:
                for other in waiting.values():
                    other.cancel()
                raise UserError(f"{source.name}: {error}; send the study again") from None
            if progress:
                progress(done, len(files))
    values = hu_checks.of_values(hu, padded, first.contrast_agent)
    frames = tuple(Frame(member.header.instance_uid, member.number + 1) for member in block.members)
    return Volume(hu, block.spacing_mm, block.origin_mm, block.direction, frames), values
