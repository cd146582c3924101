"""Which studies `predict --input` names, what their outputs are called, and which of them a shard takes."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from heartseg_jax.data.sources.listing import STUDIES, is_system, natural_key
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source, walk
from heartseg_jax.imaging.dicom.patient import read_person
from heartseg_jax.imaging.intake_reading import OTHER_FORMATS, VOLUMES, files_in, first_dicom, pictures_in

PACKED = (*VOLUMES, ".zip")
"""Endings of files that hold a study."""
DICOMDIR = "DICOMDIR"
"""The index of a disc, which may hold several studies."""
DEEPEST = 8
"""Folders within folders in which studies are looked for."""
TOO_DEEP = "folder too deep"
BLOCK, MOST_BLOCKS = 2**16, 32
"""Bytes of a block of a large file's content, and how many are read between its ends."""
GOLDEN = 0.6180339887498949
"""The golden ratio's fraction: its multiples, whole parts left out, are spread and never repeat."""


LONGEST = 200
"""Bytes of a study's name: file names have 255, and what is still being written has a longer one."""


class Place(NamedTuple):
    """One study: the name of its outputs, which names no patient unless that was asked for, and its path."""

    name: str
    path: Path


class Places(NamedTuple):
    """The studies of an input, in natural order of their paths.

    Attributes:
      studies: one where the input is a study.
      is_batch: False where the input is one study.
      passed_over: a sentence that counts what could be studies and is not read, or empty.
    """

    studies: list[Place]
    is_batch: bool
    passed_over: str = ""


class _Found(NamedTuple):
    """A study: where it lies, its path below the input, of DICOM the study's UID, and whether it is of pictures."""

    path: Path
    parts: tuple[str, ...]
    uid: str = ""
    of_pictures: bool = False


def places_of(path: Path, naming: Naming) -> Places:
    """Return the studies in `path`: itself, or those that lie in it.

    A file is one study. So is a folder that directly holds DICOM files or pictures, and one all of whose DICOM files
    lie in subfolders and are of one study (a folder per series); a DICOMDIR beside them changes neither. In any other
    folder each zip, NIfTI and NRRD file is a study, and each subfolder is looked into in the same way. So it is where
    DICOM or such files lie beside or below pictures, and where a folder has a single picture and studies below it:
    these pictures are passed over.

    Raises:
      UserError: there is nothing at `path` or no study in it, or two studies would be called the same.
    """
    if not path.exists():
        raise UserError(f"there is nothing at {path}")
    passed: Counter[str] = Counter()
    found = [_Found(path, ())] if path.is_file() else _studies_in(path, (), set(), passed)
    passed_over = _said(passed)
    if not found:
        raise UserError(
            f"{path} holds no study{' (' + passed_over + ')' if passed_over else ''}: give a folder, zip or file of "
            "DICOM, a NIfTI or NRRD volume, a folder of pictures, or a folder of these"
        )
    if len(found) == 1 and found[0].parts == ():
        return Places([Place("", path)], False, passed_over)
    found.sort(key=lambda one: [natural_key(part) for part in one.parts])
    called: dict[str, _Found] = {}
    studies = []
    for one in found:
        own = "_".join([*one.parts[:-1], _stem(one.path)])
        name = naming.called([own])[own]
        if len(name.encode(errors="surrogateescape")) > LONGEST or not _is_text(name):
            raise UserError(f"the outputs of {one.path} cannot be called after it: rename it, or give --names=key")
        if (other := called.setdefault(name.casefold(), one)) is not one:
            raise UserError(f"{other.path} and {one.path} have the same name: rename one")
        studies.append(Place(name, one.path))
    return Places(studies, True, passed_over)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, which the table could not hold
        return False
    return True


def shard_of(places: Sequence[Place], shard: tuple[int, int]) -> list[Place]:
    """Return every N-th study, from the K-th on, for `shard` (K, N)."""
    return list(places[shard[0] - 1 :: shard[1]])


def parsed_shard(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (K, N) of 'K/N', or for 'auto' what the scheduler's variables say.

    Raises:
      UserError: they are not whole numbers with 1 <= K <= N, or no scheduler says them.
    """
    if text == "auto":
        return _scheduled_shard(environment)
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    shard = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= shard[0] <= shard[1]:
        raise UserError(f"--shard needs auto or K/N with K from 1 to N, such as 3/8, not '{text}'")
    return shard


def _scheduled_shard(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return (K, N) of this process among those of a SLURM array, of its steps' tasks, or of Open MPI."""

    def numbers(*names: str) -> list[int] | None:
        found = [environment.get(name, "") for name in names]
        return [int(text) for text in found] if all(text.isascii() and text.isdigit() for text in found) else None

    place, count = 0, 1
    if array := numbers(*(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))):
        own, least, most, step, count = array
        place = (own - least) // max(step, 1)
        if (most - least) // max(step, 1) + 1 != count:
            raise UserError("--shard=auto needs a SLURM array without gaps, such as -a 1-8; or give --shard=K/N")
    # Of a step that srun has started: in the script around it, SLURM_PROCID is 0 and means nothing.
    for names in (("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")):
        if task := numbers(*names):
            return place * task[1] + task[0] + 1, count * task[1]
    if array:
        return place + 1, count
    raise UserError(
        "--shard=auto finds no SLURM array, no step of srun and no Open MPI: give --shard=K/N, in an indexed job of "
        'Kubernetes --shard="$((JOB_COMPLETION_INDEX + 1))/N"'
    )


def fingerprint(path: Path) -> str:
    """Return a digest of a study's files: their number, sizes and content, of large files a quarter, at most 2 MB each.

    It changes when slices arrive or are replaced by others. Names are left out, since they could be found by trying.
    """
    digests = sorted(_sampled(file) for file in (walk(path) if path.is_dir() else [path]))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _sampled(file: Path) -> bytes:
    """Return a digest of a file's size and content; of a large one its ends and blocks spread over what is between."""
    size = file.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    try:
        with file.open("rb") as stream:
            if size <= 4 * BLOCK:
                digest.update(stream.read())
            else:
                last, blocks = size - BLOCK, min(size // (4 * BLOCK), MOST_BLOCKS)
                # Even distances could fall on the same rows of every slice, which may all be air.
                between = [int(last * (number * GOLDEN % 1)) for number in range(1, blocks + 1)]
                for offset in (0, *between, last):
                    stream.seek(offset)
                    digest.update(stream.read(BLOCK))
    except OSError as error:  # whether it belongs to the study is for its reader to say
        digest.update(f"unreadable: {error.errno}".encode())
    return digest.digest()


def _studies_in(folder: Path, parts: tuple[str, ...], seen: set[Path], passed: Counter[str]) -> list[_Found]:
    """Return the studies in a folder, itself where it is one; links are followed, but never in circles.

    What could be a study and is none of them is counted in `passed`.
    """
    if folder.resolve() in seen:
        return []
    if len(parts) > DEEPEST:
        passed[TOO_DEEP] += 1
        return []
    seen.add(folder.resolve())
    file = first_dicom(folder, besides=DICOMDIR)
    if file is not None:
        return [_Found(folder, parts, _study_uid(file))]
    files = files_in(folder)
    packed = [path for path in files if path.name.lower().endswith(PACKED)]
    below = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not is_system(entry.name)]
    deeper: Counter[str] = Counter()
    inside = [one for entry in below for one in _studies_in(entry, (*parts, entry.name), seen, deeper)]
    if any(path.name.upper() == DICOMDIR for path in files):  # what else lies on a disc is its viewer's
        packed, inside = [], [one for one in inside if one.uid]
        passed.update({TOO_DEEP: deeper[TOO_DEEP]})
        if not inside:
            return [_Found(folder, parts)]
    else:
        passed.update(deeper)
        if pictures := pictures_in(folder):
            is_shot = len(pictures) == 1 and inside  # a single picture is no study
            if not packed and not is_shot and all(one.of_pictures for one in inside):
                passed["folder of pictures below others"] += len(inside)
                return [_Found(folder, parts, of_pictures=True)]
            passed["picture"] += len(pictures)
        others = [path for path in files if path not in packed]
        passed.update(f"{ending} file" for path in others if (ending := _other_format(path)))
    if not packed and inside and inside[0].uid and len({one.uid for one in inside}) == 1:
        return [_Found(folder, parts, inside[0].uid)]
    return [*(_Found(path, (*parts, path.name)) for path in packed), *inside]


def _other_format(path: Path) -> str:
    """Return the ending of a file in a format that is known and not read; else nothing."""
    return next((ending for ending in OTHER_FORMATS if path.name.lower().endswith(ending)), "")


def _said(passed: Counter[str]) -> str:
    """Return what was passed over in one sentence; nothing where that was nothing."""
    words = [
        counted(count, noun) if not noun.startswith("folder") else counted(count, "folder") + noun[len("folder") :]
        for noun, count in sorted((+passed).items())
    ]
    limit = f" (studies are looked for {DEEPEST} levels deep)" if passed[TOO_DEEP] else ""
    return f"passed over: {', '.join(words)}{limit}" if words else ""


def _study_uid(file: Path) -> str:
    try:
        return read_person(Source(file.name, lambda: file.open("rb"))).study
    except (Unreadable, OSError):
        return ""


def _stem(path: Path) -> str:
    endings = sorted((*PACKED, *STUDIES), key=len, reverse=True) if path.is_file() else []
    ending = next((ending for ending in endings if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)]
