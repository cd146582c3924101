"""A DICOM study: what it holds, the best series first, and the chosen one as a Volume."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from heartseg_jax import findings
from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding, counted
from heartseg_jax.imaging.dicom import announced, checks
from heartseg_jax.imaging.dicom.directory import Directory
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source, sources_of
from heartseg_jax.imaging.dicom.header import Header, read_header
from heartseg_jax.imaging.dicom.series import Progress, SeriesCandidate, candidates_in, read_block
from heartseg_jax.imaging.volume import Volume

LEVELS = 4
"""Folders above a study in which its DICOMDIR is looked for: DICOM/PATIENT/STUDY/SERIES."""
BEST = "best"
"""Names the first of the candidates."""
SUFFIXES = (".dcm", ".dicom", ".ima")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class StudyContents(NamedTuple):
    """What a study holds: its series, best first, findings that concern none in particular, and what was drawn on it.

    `segmentations` and `structure_sets` (contours, RTSTRUCT) are objects of their own.
    """

    candidates: list[SeriesCandidate]
    findings: list[Finding]
    segmentations: list[Header]
    structure_sets: list[Header]


class Study(NamedTuple):
    """What was read: the volume in HU, int16, and all that was found on the way."""

    volume: Volume
    findings: tuple[Finding, ...]
    chosen: SeriesCandidate


def read_contents(path: Path, progress: Progress | None = None) -> StudyContents:
    """Read all headers of a study and sort them into series.

    Raises:
      UserError: there is no such path, or nothing in it.
    """
    listing = sources_of(path)
    headers, directories, found = _headers(listing.sources, progress)
    found += announced.of_study(listing, directories, headers)
    kinds: dict[str, list[Header]] = {
        "localizer": [],
        "segmentation": [],
        "structure_set": [],
        "image": [],
        "object": [],
    }
    for header in headers:
        kinds[checks.kind_of(header)].append(header)
    if kinds["localizer"]:
        found.append(Finding(NOTE, "localizers", f"{counted(len(kinds['localizer']), 'localizer')} were left out"))
    masks, objects = kinds["segmentation"], kinds["object"]
    if masks:
        found.append(Finding(NOTE, "segmentations", f"{counted(len(masks), 'segmentation object')}: labels, no images"))
    if sets := kinds["structure_set"]:
        found.append(Finding(NOTE, "structure_sets", f"{counted(len(sets), 'structure set')}: contours, no images"))
    if objects:
        text = f"{counted(len(objects), 'DICOM file')} without an image left out"
        lost = any(header.sop_class in ("", *checks.CT) for header in objects)
        fix = "send the study again: of slices, only the start has come" if lost else ""
        found.append(Finding(WARN if lost else NOTE, "no_pixels", text, fix=fix, example=objects[0].source.name))
    series: dict[str, list[Header]] = {}
    for header in kinds["image"]:
        series.setdefault(header.series_uid, []).append(header)
    here = frozenset(header.instance_uid for header in headers)
    directories += _above(path)
    candidates = []
    for uid, own in series.items():
        candidates += candidates_in(uid, own, announced.of_series(uid, own, listing, directories, here))
    return StudyContents(sorted(candidates, key=_fitness), found, masks, sets)


def _above(path: Path) -> list[Directory]:
    """Return what the DICOMDIR lists that lies above a study's folder, if one does: a part of a disc was given."""
    above = path.absolute().parents[:LEVELS] if path.is_dir() else ()
    files = (folder / name for folder in above for name in ("DICOMDIR", "dicomdir"))
    file = next((file for file in files if file.is_file()), None)
    return [] if file is None else [_directory_in(file, file.stat().st_mtime_ns)]


@functools.lru_cache(maxsize=8)
def _directory_in(file: Path, _changed: int) -> Directory:
    """Read a DICOMDIR once: hundreds of studies may lie below it, and it takes seconds. It is {} where it is broken."""
    try:
        found = read_header(Source(file.name, lambda: file.open("rb")))
    except (Unreadable, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _headers(
    sources: Sequence[Source], progress: Progress | None
) -> tuple[list[Header], list[Directory], list[Finding]]:
    """Return the headers of the DICOM files, what DICOMDIRs list, and findings on files that are broken or none."""
    headers: list[Header] = []
    directories: list[Directory] = []
    broken, others = [], []
    for done, source in enumerate(sources, 1):
        try:
            header = read_header(source)
        except Unreadable as error:
            broken.append(f"{source.name}: {error}")
        except OSError as error:
            broken.append(f"{source.name}: it cannot be read ({error.strerror})")
        else:
            if isinstance(header, Header):
                headers.append(header)
            elif isinstance(header, dict):
                directories.append(header)
            elif source.name.lower().endswith(SUFFIXES):
                broken.append(f"{source.name}: it is not DICOM")
            else:
                others.append(source.name)
        if progress:
            progress(done, len(sources))
    found = []
    if broken:
        text = counted(len(broken), "damaged file")
        found.append(Finding(WARN, "damaged_files", text, fix="send the study again", example=broken[0]))
    packed = [name for name in others if name.lower().endswith(ARCHIVES) and not name.lower().endswith(".nii.gz")]
    if packed:
        text = f"{counted(len(packed), 'archive')} in the study not opened"
        fix = "unpack them, or give the archive itself"
        found.append(Finding(WARN, "archives", text, fix=fix, example=packed[0]))
    if len(others) > len(packed):
        text = f"{counted(len(others) - len(packed), 'file')} left out: not DICOM"
        found.append(Finding(NOTE, "not_dicom", text))
    return headers, directories, found


def _fitness(candidate: SeriesCandidate) -> tuple[int, int, int, str]:
    levels = [finding.level for finding in candidate.findings]
    return levels.count(REFUSE), levels.count(WARN), -len(candidate.frames), candidate.name


def choose(
    contents: StudyContents, series: str, where: str, among: Sequence[SeriesCandidate] | None = None
) -> SeriesCandidate:
    """Return the candidate that `series` names, or the only fit one.

    A name is its number in the list, its UID or the end of it, or 'best', the first of them.

    Where none is named, only those in `among` are considered, if it is given.

    Raises:
      UserError: none is named so, or several are fit and none is named; they are listed.
    """
    candidates = contents.candidates
    if not candidates:
        because = [one.shown + (f"; {one.fix}" if one.fix else "") for one in findings.in_order(contents.findings)]
        raise UserError(": ".join([f"{where} holds no DICOM image", *because[:1]]))
    if series == BEST:
        return candidates[0]
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


def listed(candidates: Sequence[SeriesCandidate], among: Sequence[SeriesCandidate] | None = None) -> str:
    """Return the candidates, or those in `among`, as text: numbered as `choose` counts, with their names and sizes."""
    return "; ".join(
        f"{number}: {c.description or 'no description'}{f', phase {c.phase}' if c.phase else ''}, {c.size}"
        for number, c in enumerate(candidates, 1)
        if among is None or any(c is one for one in among)
    )


def read_study(path: str | Path, series: str = "", progress: Progress | None = None) -> Study:
    """Read the DICOM study in a folder, a zip or a file, as a Volume in HU.

    Args:
      path: what `files.sources_of` takes.
      series: which, see `choose`.
      progress: called with (files done, files in all), once for the headers and once for the pixels.

    Raises:
      UserError: there is no series that can be used, with the gravest finding of the best one.
    """
    path = Path(path)
    contents = read_contents(path, progress)
    chosen = choose(contents, series, str(path))
    findings.raise_refused(str(path), chosen.findings)
    volume, values = read_block(chosen, progress)
    findings.raise_refused(str(path), values)
    return Study(volume, tuple(findings.in_order([*chosen.findings, *values, *contents.findings])), chosen)
