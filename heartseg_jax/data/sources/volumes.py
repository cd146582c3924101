"""What all sources of volumes share: pairs of NIfTI or NRRD files, and label maps on the grid of their image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.sources.case import Case, Labelled, Options
from heartseg_jax.data.sources.grouping import alike_names, volume_doubts
from heartseg_jax.data.sources.listing import NRRDS, FilePair
from heartseg_jax.data.sources.patient_table import patients_of
from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, WARN, Finding, counted
from heartseg_jax.imaging.block_checks import in_hu
from heartseg_jax.imaging.masks.label_maps import OWN, by_number, merge_for, translated
from heartseg_jax.imaging.nifti import check_geometry, read_grid, read_labels, read_nifti, whole_numbers
from heartseg_jax.imaging.nrrd import read_grid as read_nrrd_grid
from heartseg_jax.imaging.nrrd import read_nrrd
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.placement import place, shown
from heartseg_jax.imaging.slicer_segments import read_slicer_segments
from heartseg_jax.imaging.volume import Volume

SAME_PLACE_MM = 0.1
"""Corners of two grids that are meant to be one lie at most this far apart: rounding of headers."""


def volume_case(identity: str, person: str, pair: FilePair, read: Callable[[], Labelled]) -> Case:
    """Return a pair of files as a case, which `read` reads."""
    return Case(identity, person, str(pair.image), partial(axial_size, pair.image), read)


def volume_cases(
    pairs: Mapping[str, FilePair], options: Options, read: Callable[[FilePair], Labelled]
) -> tuple[list[Case], list[str]]:
    """Return the cases of pairs by the patients' names, and doubts about these; a table may name several one person's.

    Raises:
      UserError: the table does not name all of them.
    """
    naming = options.naming
    called = naming.called(list(pairs))
    if options.patients is None:
        persons, doubts = called, alike_names(called) + volume_doubts(called)
    else:
        table = patients_of(list(pairs), options.patients)
        keys = naming.called(list(dict.fromkeys(table.values())))
        persons, doubts = {name: keys[person] for name, person in table.items()}, alike_names(keys)
    cases = [volume_case(called[name], persons[name], pair, partial(read, pair)) for name, pair in pairs.items()]
    return cases, doubts


def axial_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of a volume's axial slices, from its header only."""
    grid = read_nrrd_grid(path) if is_nrrd(path) else read_grid(path)
    _, rows, columns = patient_axial(grid)[0].voxels.shape
    return rows, columns


def is_nrrd(path: Path) -> bool:
    """Return whether a file is NRRD by its name."""
    return path.name.lower().endswith(NRRDS)


class LabelFile(NamedTuple):
    """Labels, patient-axial (`label_maps.AORTA` among them), their `merge`, and what was seen."""

    labels: np.ndarray
    merge: tuple[int, ...]
    found: tuple[Finding, ...]


def read_label_file(path: Path, image: Volume, label_map: Mapping[str, int] | None) -> LabelFile:
    """Return a NIfTI or NRRD label map, or a segmentation of 3D Slicer, on the grid of `image`, patient-axial.

    Values are the project's own without a `label_map` (`read_label_map`), except in segmentations with named segments.
    Structures that neither map nor segments name are unknown. NRRD files may cover a part of the image.

    Raises:
      UserError: it cannot be read, is on another grid, or has values without a meaning.
    """
    found: tuple[Finding, ...] = ()
    if is_nrrd(path):
        if segments := read_slicer_segments(path, image, label_map):
            read, seen = segments
            more = [*overlapping(read.overlapping), *other_anatomy(read.strange), *seen]
            return LabelFile(read.labels, merge_for(read.known), tuple(more))
        part = whole_numbers(read_nrrd(path), path)
        values = np.zeros(image.voxels.shape, part.voxels.dtype)
        if outside := place(part, image, path).onto(part.voxels, values):
            raise UserError(f"{path} labels {counted(outside, 'voxel')} outside of its image: is it of another one?")
    else:
        labels, _ = patient_axial(read_labels(path))
        check_same_grid(labels, image, path)
        values, found = labels.voxels, tuple(check_geometry(path))
    meanings = OWN if label_map is None else by_number(label_map, "--labels")
    merge = HEART.all_known if label_map is None else merge_for(set(meanings.values()))
    return LabelFile(translated(values, meanings, str(path)), merge, found)


def read_labelled(pair: FilePair, label_map: Mapping[str, int] | None, merge: tuple[int, ...] | None) -> Labelled:
    """Return a pair's volume, NIfTI or NRRD, with its labels as `read_label_file` reads them; `merge` replaces theirs.

    Raises:
      UserError: a file cannot be read, the grids differ, or a label value has no meaning.
    """
    volume, turn = patient_axial(read_nrrd(pair.image) if is_nrrd(pair.image) else read_nifti(pair.image))
    labels = read_label_file(pair.labels, volume, label_map)
    image, found = in_hu(volume)
    geometry = [] if is_nrrd(pair.image) else check_geometry(pair.image)
    found = [*found, *geometry, *oblique(turn.oblique_degrees), *labels.found]
    return Labelled(image.voxels, labels.labels, merge or labels.merge, image.spacing_mm, found=tuple(found))


def read_by_value(pair: FilePair, meanings: Mapping[int, int], merge: tuple[int, ...]) -> Labelled:
    """Return a pair as `read_labelled`, its labels' values having these meanings."""
    return read_labelled(pair, {str(value): label for value, label in meanings.items()}, merge)


def overlapping(voxels: int) -> list[Finding]:
    """Return the finding of voxels that two structures claim, if there are any."""
    if not voxels:
        return []
    text = f"{counted(voxels, 'voxel')} in two structures: ignored (255)"
    return [Finding(WARN, "overlapping_structures", text, fix="look at where the structures meet")]


def other_anatomy(segments: int) -> list[Finding]:
    """Return the finding of segments that are no structure's, if there are any."""
    if not segments:
        return []
    text = f"{counted(segments, 'segment')} of other anatomy: background"
    return [Finding(NOTE, "other_segments", text)]


def check_same_grid(labels: Volume, image: Volume, where: str | Path) -> None:
    """Raise UserError unless two patient-axial volumes have one grid; `where` names the labels' file."""
    if image.voxels.shape != labels.voxels.shape or _distance_mm(image, labels) > SAME_PLACE_MM:
        raise UserError(
            f"{where} is not on the grid of its image: {shown(labels)}, the image {shown(image)}; resample the "
            "labels to the image's grid (nearest neighbour)"
        )


def _distance_mm(a: Volume, b: Volume) -> float:
    """Return the largest distance between corresponding corners of two grids of one shape."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(a.voxels.shape) - 1)
    places = [np.array(v.origin_mm) + (v.direction @ (corners * v.spacing_mm).T).T for v in (a, b)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())
