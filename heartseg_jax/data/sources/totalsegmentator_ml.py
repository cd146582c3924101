"""TotalSegmentator's results in one file (`--ml`): `SUBJECT/ct.nii.gz` and label maps that say what values mean."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.listing import VOLUMES, is_system, list_files, natural_key, not_read, stem
from heartseg_jax.data.sources.totalsegmentator import FILES
from heartseg_jax.data.sources.volumes import axial_size, check_same_grid, overlapping
from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted
from heartseg_jax.imaging.block_checks import in_hu
from heartseg_jax.imaging.masks import label_maps
from heartseg_jax.imaging.nifti import check_geometry, label_table, read_labels, read_nifti
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.volume import Volume

BESIDE = (".json", ".csv", ".txt")


class LabelMap(NamedTuple):
    """A file of labels.

    Attributes:
      path: of the file.
      meanings: which of its values are which label; only of structures that no earlier file names.
      named: all values that something names, other anatomy and background among them.
      overruled: how many of the header's names the user's map replaces by another structure.
    """

    path: Path
    meanings: dict[int, int]
    named: frozenset[int]
    overruled: int

    def read(self) -> Volume:
        """Return its values on its own grid; raise UserError where nothing names one of them."""
        values = read_labels(self.path)
        if strange := sorted({int(value) for value in np.unique(values.voxels)} - self.named):
            more = ", ..." if len(strange) > 8 else ""
            raise UserError(
                f"{self.path} has values without a meaning: {', '.join(map(str, strange[:8]))}{more}; give their "
                "meaning with --labels=map.json, or remove the file where it is no label map"
            )
        return values


class Subject(NamedTuple):
    """A subject: its CT and its label maps."""

    name: str
    image: Path
    maps: tuple[LabelMap, ...]

    @property
    def parts(self) -> set[int]:
        """What its files label."""
        return {label for one in self.maps for label in one.meanings.values()}


def totalsegmentator_ml(options: Options) -> Source:
    """Return the subjects of `SUBJECT/ct.nii.gz` with results in one file beside it, of any name and several tasks.

    `join` names more folders, with `SUBJECT/ANY.nii.gz` or `SUBJECT.nii.gz`. The structures' numbers differ from
    version to version, so values are read by `labels`, and where that has none by the names in the file's header. Of
    two files that name a structure the first counts. What no file names is unknown, not background; a value that
    nothing names is refused.

    Raises:
      UserError: for whatever is missing or contradictory, naming the folder and the fix.
    """
    folder = options.input
    own = None
    if options.labels is not None:
        own = label_maps.by_number(label_maps.read_label_map(options.labels), options.labels)
    places = sorted(folder.iterdir(), key=lambda path: natural_key(path.name)) if folder.is_dir() else []
    images: dict[str, Path] = {}
    for place in places:
        found = list_files(place, VOLUMES).files if place.is_dir() and not is_system(place.name) else []
        scans = [path for path in found if stem(path).lower() == "ct"]
        if len(scans) > 1:
            raise UserError(
                f"{place} holds {' and '.join(path.name for path in scans)}: keep the one that was labelled"
            )
        if scans:
            images[place.name] = scans[0]
    if not images:
        raise UserError(f"{folder} holds no SUBJECT/ct.nii.gz: give the folder of TotalSegmentator's subjects")
    subjects = [Subject(name, image, _maps(name, image, options.join, own)) for name, image in images.items()]
    if not any(label_maps.whole_structures(subject.parts) for subject in subjects):
        raise UserError(
            f"no file in {folder} names a structure of the heart, such as heart_ventricle_left or aorta; for a file "
            "per structure use --source=totalsegmentator"
        )
    called = options.naming.called([subject.name for subject in subjects])
    cases = [
        Case(called[one.name], called[one.name], str(one.image), partial(_size_of, one), partial(_read, one))
        for one in subjects
    ]
    listed = [list_files(image.parent, VOLUMES, beside=BESIDE) for image in images.values()]
    listed[0].others["folders without a ct.nii.gz"] += sum(place.is_dir() for place in places) - len(images)
    warnings = [*not_read(*(one._replace(others=+one.others) for one in listed))]
    if overruled := sum(bool(one.overruled) for subject in subjects for one in subject.maps):
        warnings.append(f"--labels gives values another meaning than the header of {counted(overruled, 'file')}")
    return Source(cases, {"kind": "totalsegmentator_ml", "warnings": warnings}, leave_out_refused=True)


def _maps(name: str, image: Path, join: tuple[Path, ...], own: Mapping[int, int] | None) -> tuple[LabelMap, ...]:
    """Return a subject's label maps with their values' labels: the structures that no earlier one has named."""
    files = [path for path in list_files(image.parent, VOLUMES).files if path != image]
    for other in join:
        files += list_files(other / name, VOLUMES).files
        files += [path for path in list_files(other, VOLUMES).files if stem(path) == name]
    found, taken = [], {0}
    for path in files:
        table = label_table(path)
        if not table and own is None:
            raise UserError(
                f"{path} has no names of its values in its header, and the numbers differ between versions; say what "
                'they mean by --labels=map.json, such as {"51": "left_atrium"}'
            )
        by_name = {value: label for value, word in table.items() if (label := _label(word)) is not None}
        meanings = by_name | dict(own or {})
        overruled = sum(meanings[value] != label for value, label in by_name.items())
        new = {value: label for value, label in meanings.items() if label not in taken}
        found.append(LabelMap(path, new, frozenset({0, *table, *meanings}), overruled))
        taken |= set(new.values())
    return tuple(found)


def _label(word: str) -> int | None:
    name = word.strip().lower()
    return FILES.get(name, label_maps.meaning_of(name))


def _size_of(subject: Subject) -> tuple[int, int] | None:
    """Return the size of a subject's axial slices, or None where no voxel of the heart is labelled."""
    known = label_maps.whole_structures(subject.parts)
    for one in subject.maps:
        wanted = [v for v, label in one.meanings.items() if {label, label_maps.PART_OF.get(label)} & known]
        if wanted and np.isin(one.read().voxels, wanted).any():
            return axial_size(subject.image)
    return None


def _read(subject: Subject) -> Labelled:
    volume, turn = patient_axial(read_nifti(subject.image))
    image, found = in_hu(volume)
    labels = np.zeros(image.voxels.shape, np.uint8)
    claimed_twice = np.zeros(labels.shape, bool)
    for one in subject.maps:
        values, _ = patient_axial(one.read())
        check_same_grid(values, image, one.path)
        for value, label in one.meanings.items():
            claimed_twice |= label_maps.paint(labels, values.voxels == value, label)
    labels[claimed_twice] = IGNORED
    found += [*check_geometry(subject.image), *oblique(turn.oblique_degrees), *overlapping(int(claimed_twice.sum()))]
    return Labelled(image.voxels, labels, label_maps.merge_for(subject.parts), image.spacing_mm, found=tuple(found))
