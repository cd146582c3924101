"""A folder of DICOM studies: which there are with which masks, which series of each to read, and whose it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heartseg_jax import findings, progress
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.grouping import TABLE_FIXES, alike_names
from heartseg_jax.data.sources.listing import GRIDS, PICTURES, is_system, list_files, natural_key, stem
from heartseg_jax.data.sources.patient_table import patients_of
from heartseg_jax.data.sources.study_masks import BESIDE, names_of
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.dicom.checks import kind_of
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.dicom.patient import Person, read_person
from heartseg_jax.imaging.dicom.rtstruct import structure_set_references
from heartseg_jax.imaging.dicom.segmentation import References, references
from heartseg_jax.imaging.dicom.series import SeriesCandidate
from heartseg_jax.imaging.dicom.study import StudyContents, choose, read_contents
from heartseg_jax.privacy import read_salt

BEST = "best"
"""Value of --series that takes the best series of each study."""


@dataclass(frozen=True)
class Place:
    """The paths of a case: its name in the source, the study, and its masks (None: inside the study).

    `shared`: all studies have one folder of masks.
    """

    name: str
    study: Path
    masks: Path | None
    shared: bool = False


@dataclass(frozen=True)
class Chosen:
    """A case whose headers were read.

    Attributes:
      place: its paths.
      series: the series to read.
      segmentations: those that were drawn on it, or structure sets.
      elsewhere: names of slices of the study's other series.
      key: the patient's.
      found: findings so far.
    """

    place: Place
    series: SeriesCandidate
    segmentations: tuple[Header, ...]
    elsewhere: frozenset[str]
    key: str = ""
    found: tuple[Finding, ...] = ()


def find_places(folder: Path, masks: str | Path | None = None) -> list[Place]:
    """Return the cases of a source in natural order of their names; a folder without `images` is one study.

    `masks` are those of a single study, or a folder of pictures of all studies.

    Raises:
      UserError: there is no study, or masks have no study.
    """
    images = folder / "images"
    shared = None if masks is None else Path(masks)
    if shared is not None and not shared.exists():
        raise UserError(f"there are no masks at {shared}")
    if not images.is_dir():
        return [Place(folder.name, folder, _label_file(shared))]
    studies = _entries(images)
    if not studies:
        raise UserError(f"{images} holds no study")
    names = sorted(studies, key=natural_key)
    if shared is not None:
        if len(names) > 1 and not shared.is_dir():
            raise UserError(f"{shared} is one mask for {len(names)} studies: put each study's into {folder / 'masks'}")
        if len(names) == 1:
            shared = _label_file(shared)
        return [Place(name, studies[name], shared, shared=len(names) > 1) for name in names]
    found = _entries(folder / "masks") if (folder / "masks").is_dir() else {}
    alone = sorted(set(found) - set(studies), key=natural_key)
    if alone:
        raise UserError(f"no study beside the masks {', '.join(alone[:3])} in {images}: add it, or remove the masks")
    return [Place(name, studies[name], _label_file(found.get(name))) for name in names]


def _label_file(masks: Path | None) -> Path | None:
    """Return the label file in a folder of masks, where that is what it holds; else `masks` itself.

    3D Slicer saves a segmentation and its volume in one folder: the `.seg.nrrd` is the label file.
    """
    if masks is None or not masks.is_dir():
        return masks
    files = list_files(masks, GRIDS).files
    others = list_files(masks, (*PICTURES, ".dcm")).files
    if files and others:
        raise UserError(f"{masks} holds {files[0].name} and {others[0].name}: keep the one kind of masks to use")
    own = [path for path in files if path.name.lower().endswith(".seg.nrrd")] or files
    if len(own) > 1:
        raise UserError(f"{masks} holds {own[0].name} and {own[1].name}: keep the one to use")
    return own[0] if own else masks


def _entries(folder: Path) -> dict[str, Path]:
    """Return {name: path} of a folder's entries other than tables and notes."""
    named: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_system(path.name) or (path.is_file() and path.suffix.lower() in BESIDE):
            continue
        name = unicodedata.normalize("NFC", stem(path) if path.is_file() else path.name)
        if named.setdefault(name, path) != path:
            raise UserError(f"{folder} holds {name} twice: remove one")
    return named


def choose_all(places: Sequence[Place], options: Options) -> tuple[list[Chosen], list[str]]:
    """Read the headers of all cases; return the series and patient of each, and doubts about which patient it is.

    Raises:
      UserError: a study has no series that is fit for use, or several and none is chosen.
    """
    names = [place.name for place in places]
    table = None if options.patients is None else patients_of(names, options.patients)
    salt = read_salt()
    chosen: list[Chosen] = []
    persons: list[Person] = []
    for place in places:
        one, person = _choose(place, options.series)
        persons.append(person)
        secret = person.secret if table is None else f"name\n{table[place.name]}"
        key = options.naming.keyed(secret, secret.split("\n")[1], place.name, salt)
        found = one.found
        if table is None and not person.stated:
            text = "the study has neither PatientID nor PatientName: it counts as a patient"
            found += (Finding(WARN, "unknown_patient", text, fix=TABLE_FIXES),)
        chosen.append(replace(one, key=key, found=found))
    _check_shared(chosen)
    doubts = alike_names({shown: key for key, shown, _ in options.naming.table})
    return chosen, doubts + (_doubts(chosen, persons) if table is None else [])


def _choose(place: Place, series: str) -> tuple[Chosen, Person]:
    """Return the series of one case with the segmentations drawn on it, not yet keyed, and the person it is of."""
    seen = read_contents(place.study, progress.bar("files"))
    drawn = [
        (header, structure_set_references(header) if kind_of(header) == "structure_set" else references(header))
        for header in _segmentations(place, seen)
    ]
    one = _series(place, seen, series, drawn)
    findings.raise_refused(str(place.study), one.findings)
    own = tuple(header for header, drawn_on in drawn if drawn_on.are(one))
    if drawn and not own:
        raise UserError(
            f"the segmentation of {place.name} was drawn on another series, or another phase, than the one that is "
            "read: choose that by --series, or leave --series out"
        )
    try:
        person = read_person(one.frames[0].header.source)
    except Unreadable as error:
        raise UserError(f"{place.study}: {error}; {TABLE_FIXES}") from None
    others = [member for other in seen.candidates if other is not one for member in other.frames]
    elsewhere = frozenset(name for member in others for name in names_of(member))
    found = (*one.findings, *(finding for finding in seen.findings if finding.level == WARN))
    return Chosen(place, one, own, elsewhere, found=found), person


def _segmentations(place: Place, seen: StudyContents) -> list[Header]:
    """Return the segmentations of a case, or structure sets: those beside its study if any, else those inside.

    Raises:
      UserError: there are masks of two kinds, or of none.
    """
    if place.masks is None:
        return seen.segmentations or seen.structure_sets
    if place.shared or place.masks.name.lower().endswith(GRIDS):
        return []
    pictures = place.masks.is_dir() and any(path.suffix.lower() in PICTURES for path in place.masks.iterdir())
    if pictures and not any(path.suffix.lower() == ".dcm" for path in place.masks.iterdir()):
        return []
    beside = read_contents(place.masks)
    found = [*beside.segmentations, *beside.structure_sets]
    if pictures and found:
        raise UserError(f"{place.masks} holds pictures and a segmentation: remove one of them")
    if not pictures and not found:
        raise UserError(
            f"{place.masks} is neither a folder of PNGs, a label file nor a DICOM segmentation or structure set"
        )
    return found


def _series(
    place: Place, seen: StudyContents, series: str, drawn: Sequence[tuple[Header, References]]
) -> SeriesCandidate:
    """Return the series to use: the one named, the one that the segmentation was drawn on, or the only fit one."""
    where = str(place.study)
    if series and series != BEST:
        return choose(seen, series, where)
    own = [one for one in seen.candidates if any(drawn_on.are(one) for _, drawn_on in drawn)]
    if series == BEST and seen.candidates:
        return (own or seen.candidates)[0]
    return choose(seen, "", where, own or None)


def _doubts(chosen: Sequence[Chosen], persons: Sequence[Person]) -> list[str]:
    """Return signs of one person under several keys, or of several persons under one."""
    by_key: dict[str, set[str]] = {}
    by_name: dict[str, set[str]] = {}
    for one, person in zip(chosen, persons, strict=True):
        by_key.setdefault(one.key, set()).add(person.study)
        if person.also:
            by_name.setdefault(person.also, set()).add(one.key)
    notes = [
        f"{' and '.join(sorted(keys))} have one name and date of birth: if they are one person, {TABLE_FIXES}"
        for keys in by_name.values()
        if len(keys) > 1
    ]
    studies = max(by_key.values(), key=len)
    if len(by_key) == 1 and len(studies) > 1:
        notes.append(
            f"all {len(studies)} studies have one PatientID and count as one patient: where an archive has blanked the "
            f"ids, {TABLE_FIXES}"
        )
    return notes


def _check_shared(chosen: Sequence[Chosen]) -> None:
    """Refuse a shared folder of pictures where its table does not distinguish two studies."""
    seen: dict[str, str] = {}
    for one in chosen:
        first = seen.setdefault(one.series.frames[0].header.series_uid, one.place.name)
        if one.place.shared and first != one.place.name:
            raise UserError(
                f"{first} and {one.place.name} have one SeriesInstanceUID, so that the table does not state "
                "which a picture is of: put each study's masks into a folder of its own"
            )
