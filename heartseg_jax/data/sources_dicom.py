"""A folder of DICOM studies and their masks -> a dataset folder. Patients are called by keys, and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from heartseg_jax.data.identities import Naming
from heartseg_jax.data.owners import natural_key, read_table
from heartseg_jax.data.study_masks import Masks, Reading, from_nifti, from_pictures, from_segmentation
from heartseg_jax.data.volumes import Case, Labelled, Progress, Source, oblique
from heartseg_jax.errors import UserError
from heartseg_jax.imaging import findings
from heartseg_jax.imaging.dicom import Header
from heartseg_jax.imaging.dicom_checks import is_segmentation
from heartseg_jax.imaging.dicom_seg import referenced_series
from heartseg_jax.imaging.dicom_series import Candidate, Look, choose, look, read_block
from heartseg_jax.imaging.dicom_values import Unreadable
from heartseg_jax.imaging.dicom_words import read_person, read_words
from heartseg_jax.imaging.findings import WARN, Finding
from heartseg_jax.imaging.orient import Turn, patient_axial
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.privacy import read_salt

BEST = "best"
"""What to give for --series to take the fittest one wherever several are fit."""
VOLUMES = (".nii", ".nii.gz")
BESIDE = (".csv", ".json", ".txt", ".md", ".pdf")
"""Files that may lie beside studies and masks, and are neither."""


@dataclass(frozen=True)
class Place:
    """Where a case lies: its name in the source, the study, and its masks (None: inside the study)."""

    name: str
    study: Path
    masks: Path | None


@dataclass(frozen=True)
class Chosen:
    """A case whose headers were read: the series that is to be used, and the patient's key."""

    place: Place
    series: Candidate
    segmentations: tuple[Header, ...]
    key: str
    found: tuple[Finding, ...]


def dicom_studies(
    folder: Path,
    *,
    masks: str | Path | None = None,
    series: str = "",
    how: Reading | None = None,
    patients_table: str | Path | None = None,
    merge: tuple[int, ...] | None = None,
    naming: Naming | None = None,
    progress: Progress | None = None,
) -> Source:
    """Return the cases of `folder/images/NAME` (a study's folder, zip or file) and `folder/masks/NAME...`.

    Args:
      folder: where they lie, or one study alone.
      masks: of one study alone, or the folder of pictures that `export_png` made of all of them, painted on.
      series: which, where several are fit: see `dicom_series.choose`, or 'best'.
      how: how masks are understood.
      patients_table: CSV file,patient: who is who, where the files do not tell (file is NAME).
      merge: see `anatomy.check_merge`; by default what the masks' own names leave out is unknown.
      naming: gathers who is who.
      progress: called with (files done, files in all) for each study's headers.

    Masks are a folder of colour PNGs, `NAME.nii.gz`, or a segmentation (`NAME.dcm`, a folder with one, or inside of
    the study).

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming the study and the mend.
    """
    naming = naming or Naming()
    chosen = choose_all(find_places(folder, masks), series, naming, patients_table, progress)
    counts: dict[str, int] = {}
    cases = []
    for one in chosen:
        counts[one.key] = counts.get(one.key, 0) + 1
        # The second study of a person needs an id of its own, and is never parted from the first.
        identity = one.key if counts[one.key] == 1 else f"{one.key}.{counts[one.key]}"
        read = partial(_read, one, how or Reading(), merge)
        cases.append(Case(identity, one.key, partial(axial_size, one.series), read))
    return Source(cases, {"kind": "dicom", "warnings": list(naming.notes)})


def axial_size(series: Candidate) -> tuple[int, int]:
    """Return rows and columns of a series' axial slices, by its headers alone."""
    block, first = series.block, series.members[0].header
    assert block is not None
    voxels = np.broadcast_to(np.int8(0), (len(block.members), first.rows, first.columns))
    axial, _ = patient_axial(Volume(voxels, block.spacing_mm, block.origin_mm, block.direction))
    return axial.voxels.shape[1], axial.voxels.shape[2]


def find_places(folder: Path, masks: str | Path | None = None) -> list[Place]:
    """Return the cases of a source in natural order of their names; a folder without `images` is one study.

    Raises:
      UserError: there is nothing, or masks have no study.
    """
    images = folder / "images"
    if masks is not None and not Path(masks).exists():
        raise UserError(f"there are no masks at {masks}")
    shared = None if masks is None else Path(masks)
    if not images.is_dir():
        return [Place(folder.name, folder, shared)]
    studies = _entries(images)
    if not studies:
        raise UserError(f"{images} holds no study")
    if shared is not None:
        return [Place(name, studies[name], shared) for name in sorted(studies, key=natural_key)]
    found = _entries(folder / "masks") if (folder / "masks").is_dir() else {}
    alone = sorted(set(found) - set(studies), key=natural_key)
    if alone:
        raise UserError(f"no study beside the masks {', '.join(alone[:3])} in {images}: add it, or remove the masks")
    return [Place(name, studies[name], found.get(name)) for name in sorted(studies, key=natural_key)]


def _entries(folder: Path) -> dict[str, Path]:
    """Return {name: path} of what lies in a folder, but for tables and notes."""
    paths = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and p.suffix.lower() not in BESIDE]
    named = {_stem(path): path for path in paths}
    if len(named) < len(paths):
        twice = sorted({_stem(path) for path in paths if sum(_stem(other) == _stem(path) for other in paths) > 1})
        raise UserError(f"{folder} holds {twice[0]} twice: remove one")
    return named


def _stem(path: Path) -> str:
    for suffix in (*reversed(VOLUMES), ".zip", ".dcm"):
        if path.is_file() and path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def choose_all(
    places: Sequence[Place],
    series: str,
    naming: Naming,
    patients_table: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Chosen]:
    """Read the headers of all cases: which series each gives, and whose it is.

    Raises:
      UserError: a study has no series that is fit, or several and none is named.
    """
    owners = read_table(Path(patients_table)) if patients_table is not None else None
    if owners is not None:
        lacking = [place.name for place in places if place.name not in owners]
        if lacking:
            raise UserError(
                f"the table {patients_table} misses {len(lacking)} of the studies: {', '.join(lacking[:5])}"
            )
    salt = read_salt()
    chosen: list[Chosen] = []
    by_study: dict[str, set[str]] = {}
    for place in places:
        seen = look(place.study, progress)
        segmentations = _segmentations(place, seen)
        one = _series(place, seen, series, segmentations)
        findings.raise_refused(str(place.study), one.findings)
        try:
            person = read_person(one.members[0].header.source)
        except Unreadable as error:
            raise UserError(f"{place.study}: {error}; say who is who by --patients=table.csv") from None
        found = [*one.findings]
        if owners is not None:
            key = naming.keyed(f"name\n{owners[place.name]}", owners[place.name], place.name, salt)
        else:
            key = naming.keyed(person.secret, person.secret.split("\n")[1], place.name, salt)
            if not person.told:
                text = "neither PatientID nor PatientName is told: the study counts as a patient"
                found.append(Finding(WARN, "unknown_patient", text, "say who is who by --patients=table.csv"))
        by_study.setdefault(key, set()).add(person.study)
        own = tuple(h for h in segmentations if referenced(h) in ("", one.members[0].header.series_uid))
        chosen.append(Chosen(place, one, own, key, tuple(found)))
    most = max(by_study.values(), key=len)
    if owners is None and len(by_study) == 1 and len(most) > 1:
        naming.notes.append(
            f"all {len(most)} studies have one PatientID and count as one patient: where an archive has blanked the "
            "ids, say who is who by --patients=table.csv"
        )
    return chosen


def _segmentations(place: Place, seen: Look) -> tuple[Header, ...]:
    """Return the segmentations of a case: those beside its study, where masks lie there, else those inside."""
    if place.masks is None:
        return tuple(seen.segmentations)
    if place.masks.name.lower().endswith(VOLUMES):
        return ()
    if place.masks.is_dir() and not any(path.suffix.lower() == ".dcm" for path in place.masks.rglob("*")):
        return ()
    found = [header for header in look(place.masks).segmentations if is_segmentation(header)]
    if not found:
        raise UserError(f"{place.masks} holds neither pictures nor a segmentation")
    return tuple(found)


def referenced(header: Header) -> str:
    """Return the series that a segmentation was drawn on, '' where it does not say so or is broken."""
    try:
        return referenced_series(header)
    except Unreadable:
        return ""


def _series(place: Place, seen: Look, series: str, segmentations: Sequence[Header]) -> Candidate:
    """Return the series to use: the one named, the one that the segmentation was drawn on, or the only fit one."""
    if series and series != BEST:
        return choose(seen.candidates, series, str(place.study))
    drawn_on = {referenced(header) for header in segmentations} - {""}
    own = [one for one in seen.candidates if one.members[0].header.series_uid in drawn_on]
    if len(own) == 1 or (own and series == BEST):
        return own[0]
    if series == BEST and seen.candidates:
        return seen.candidates[0]
    return choose(own or seen.candidates, "", str(place.study))


def _read(one: Chosen, how: Reading, merge: tuple[int, ...] | None) -> Labelled:
    volume, values = read_block(one.series)
    axial, turn = patient_axial(volume)
    masks = _masks(one, axial, turn, how)
    found = (*one.found, *values, *oblique(turn.oblique_degrees), *masks.found)
    phase = read_words(one.series.members[0].header.source).cardiac_phase
    return Labelled(
        axial,
        masks.labels,
        masks.merge if merge is None else merge,
        masks.annotated,
        found,
        {"cardiac_phase": phase} if phase else {},
    )


def _masks(one: Chosen, axial: Volume, turn: Turn, how: Reading) -> Masks:
    place, block = one.place, one.series.block
    assert block is not None
    if place.masks is not None and place.masks.name.lower().endswith(VOLUMES):
        return from_nifti(place.masks, axial, how)
    if one.segmentations:
        if len(one.segmentations) > 1:
            raise UserError(
                f"{place.masks or place.study} holds {len(one.segmentations)} segmentations of one series: put the one "
                "to use beside the study, as masks/NAME.dcm"
            )
        return from_segmentation(one.segmentations[0], block, turn, how)
    if place.masks is not None and place.masks.is_dir():
        return from_pictures(place.masks, block, turn, how)
    if place.masks is not None:
        raise UserError(f"{place.masks} is neither a folder of PNGs, a NIfTI nor a segmentation of this series")
    raise UserError(
        f"{place.study} has no masks: put colour PNGs, a label NIfTI or a segmentation beside it as "
        f"masks/{place.name}..., or give --masks for one study alone"
    )
