"""One series of a DICOM study: its frames in order with what is wrong with them, and its volume in HU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from heartseg_jax import findings
from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding, counted
from heartseg_jax.imaging import block_checks
from heartseg_jax.imaging.dicom import checks
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.geometry import FrameRef, SliceStack, along_normal, arrange, normal_of
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.dicom.patient import SeriesText, read_series_text
from heartseg_jax.imaging.dicom.pixels import read_hu
from heartseg_jax.imaging.volume import AIR_HU, Frame, Volume

MOST_BYTES = 2**30
"""Of a volume: 2,000 slices of 512 x 512."""
STEP_HU = 100
"""Neighbouring slices differ by less in two thirds of their pixels, also in noise."""
THREADS = min(os.cpu_count() or 1, 8)
Progress = Callable[[int, int], None]


class SeriesCandidate(NamedTuple):
    """A series, or one heart phase of it: `stack` is None where the findings refuse it. `name` is what to ask for.

    `phase` distinguishes it from the series' other phases; `cardiac_phase` is what the file states, as text.
    """

    name: str
    description: str
    phase: str
    cardiac_phase: str
    frames: tuple[FrameRef, ...]
    stack: SliceStack | None
    findings: tuple[Finding, ...]

    @property
    def size(self) -> str:
        """Slices, rows and columns, as text."""
        header = self.frames[0].header
        return f"{len(self.frames)} x {header.rows} x {header.columns}"


def candidates_in(uid: str, headers: Sequence[Header], absent: Sequence[Finding]) -> list[SeriesCandidate]:
    """Return a series as one candidate, or as one for each heart phase where several lie in the same places.

    `absent` are the findings on what of the series did not come.
    """
    headers, others = _of_one_kind(headers)
    headers, copies = _without_copies(headers)
    found = (*absent, *others, *copies)
    frames = [FrameRef(header, number) for header in headers for number in range(len(header.frames))]
    by_phase: dict[str, list[FrameRef]] = {}
    for frame in frames:
        by_phase.setdefault(frame.geometry.phase, []).append(frame)
    if len(by_phase) == 1 or not _overlap(frames) or any(_overlap(own) for own in by_phase.values()):
        return [_candidate(uid, "", frames, found)]
    note = Finding(NOTE, "multi_phase", f"a series of {len(by_phase)} phases; each is a candidate of its own")
    return [_candidate(f"{uid}#{phase}", phase, own, (*found, note)) for phase, own in sorted(by_phase.items())]


def _overlap(frames: Sequence[FrameRef]) -> bool:
    """Return whether two frames lie at one position."""
    geometries = [frame.geometry for frame in frames]
    if any(one.position_mm is None or normal_of(one) is None for one in geometries):
        return False
    return len(np.unique(np.round(along_normal(frames), 2))) < len(frames)


def _of_one_kind(headers: Sequence[Header]) -> tuple[Sequence[Header], list[Finding]]:
    """Return the CT images of a series without what else is filed in it (screenshots, dose pages), and what that is."""
    images = [header for header in headers if header.sop_class in ("", *checks.CT)]
    others = [header for header in headers if header.sop_class not in ("", *checks.CT)]
    if not images or not others:
        return headers, []
    is_slice = any(geometry.position_mm for header in others for geometry in header.frames)
    text = f"{len(others)} objects of another kind in the series were left out"
    fix = "if they are slices of it, export the series again" if is_slice else ""
    return images, [Finding(WARN if is_slice else NOTE, "other_objects", text, fix=fix, example=others[0].source.name)]


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Finding]]:
    """Return the headers without those of an instance that was there before, in the same place and of the same pixels.

    Where the pixels are not the same, nothing says which are the patient's: that refuses the series.
    """
    kept: dict[object, Header] = {}
    copies, differing = 0, []
    for header in headers:
        key = (header.instance_uid, header.frames) if header.instance_uid else header.source.name
        first = kept.setdefault(key, header)
        if first is header:
            continue
        if _same_pixels(first, header):
            copies += 1
        else:
            differing.append(f"{first.source.name} and {header.source.name}")
    found = []
    if copies:
        text = f"left out: {counted(copies, 'file')} of an instance and pixels that are there already"
        found.append(Finding(WARN, "copies", text))
    if differing:
        text = f"{len(differing)} times two files have one SOPInstanceUID and other pixels"
        fix = "remove those that are not the original slices"
        found.append(Finding(REFUSE, "differing_copies", text, fix=fix, example=differing[0]))
    return list(kept.values()), found


def _same_pixels(one: Header, other: Header) -> bool:
    with one.source.open() as a, other.source.open() as b:
        if a.read() == b.read():
            return True
    try:
        return np.array_equal(read_hu(one)[0], read_hu(other)[0])
    except Unreadable:
        return False


def _candidate(name: str, phase: str, frames: Sequence[FrameRef], more: tuple[Finding, ...]) -> SeriesCandidate:
    first = frames[0].header
    stack, geometry = arrange(frames)
    try:
        words = read_series_text(first.source)
    except (Unreadable, OSError):
        words = SeriesText("", "")
    found = [*more, *checks.of_headers(frames, words), *geometry]
    uids = [(frame.header.instance_uid, frame.number) for frame in frames]
    if len(set(uids)) < len(uids) or "" in {uid for uid, _ in uids}:
        text = "instances have no UID, or share one: nothing written later can refer to them"
        found.append(Finding(WARN, "same_instance", text, fix="send the study again"))
    if stack is not None:
        found += block_checks.of_extent(len(frames), (first.rows, first.columns), stack.spacing_mm)
        if 2 * len(frames) * first.rows * first.columns > MOST_BYTES:
            text = f"{len(frames)} slices of {first.rows} x {first.columns} need more than {MOST_BYTES // 2**30} GiB"
            found.append(Finding(REFUSE, "too_large", text, fix="give the heart's part of the series"))
    return SeriesCandidate(
        name, words.description, phase, words.cardiac_phase, tuple(frames), stack, tuple(findings.in_order(found))
    )


def read_block(candidate: SeriesCandidate, progress: Progress | None = None) -> tuple[Volume, list[Finding]]:
    """Return a candidate's volume, and findings on its values; the candidate must have a stack.

    Raises:
      UserError: a slice cannot be decoded; it names the file and the cause.
    """
    stack = candidate.stack
    assert stack is not None
    first = stack.frames[0].header
    hu = np.full((len(stack.frames), first.rows, first.columns), AIR_HU, np.int16)
    files: dict[Source, list[tuple[int, int]]] = {}
    headers: dict[Source, Header] = {}
    for z, frame in enumerate(stack.frames):
        files.setdefault(frame.header.source, []).append((z, frame.number))
        headers[frame.header.source] = frame.header

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
    values = block_checks.of_values(hu, stack.spacing_mm, padded, first.contrast_agent)
    if not findings.refused(values):
        values += _of_each_kind(stack, hu)
    frames = tuple(Frame(frame.header.instance_uid, frame.number + 1) for frame in stack.frames)
    return Volume(hu, stack.spacing_mm, stack.origin_mm, stack.direction, frames), values


def _of_each_kind(stack: SliceStack, hu: np.ndarray) -> list[Finding]:
    """Find neighbours that are stored in different ways, of which one comes out brighter: not both are HU."""

    def kind(frame: FrameRef) -> object:
        h, own = frame.header, frame.geometry
        return own.slope, own.intercept, h.photometric, h.bits_stored, h.plain and h.plain[1:]

    for z, (one, other) in enumerate(zip(stack.frames, stack.frames[1:], strict=False)):
        if kind(one) == kind(other):
            continue
        # A third of the pixels: more than any organ that begins here, and less than padding leaves.
        step = np.abs(np.percentile(np.subtract(*hu[z : z + 2, ::4, ::4], dtype=np.int32), (33, 67))).max()
        if step > STEP_HU:
            text = f"neighbouring slices are stored in different ways and differ by {step:.0f} HU"
            names, fix = f"{checks.name_of(one)} and {checks.name_of(other)}", "export the original series again"
            return [Finding(REFUSE, "not_hu", text, fix=fix, example=names)]
    return []
