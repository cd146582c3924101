"""TotalSegmentator of any version: `SUBJECT/ct.nii.gz` and a file per structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.listing import VOLUMES, Listing, is_system, list_files, natural_key, not_read, stem
from heartseg_jax.data.sources.volumes import axial_size, check_same_grid, overlapping
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted
from heartseg_jax.imaging.block_checks import in_hu
from heartseg_jax.imaging.masks import label_maps
from heartseg_jax.imaging.nifti import check_geometry, read_grid, read_labels, read_nifti
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.volume import Volume

FILES: dict[str, int] = {
    "pulmonary_vein": IGNORED,  # no artery; where it ends and the atrium begins is a matter of convention
    "heart_atrium_left": label_maps.LEFT_ATRIUM,
    "atrial_appendage_left": label_maps.APPENDAGE,
    "heart_ventricle_left": label_maps.LEFT_VENTRICLE,
    "heart_atrium_right": label_maps.RIGHT_ATRIUM,
    "heart_ventricle_right": label_maps.RIGHT_VENTRICLE,
    "pulmonary_artery": label_maps.PULMONARY,
    "aorta": label_maps.AORTA,
    "superior_vena_cava": label_maps.SUPERIOR_CAVA,
    "inferior_vena_cava": label_maps.INFERIOR_CAVA,
}
"""What TotalSegmentator calls its files, in versions 1 and 2 and in the task heartchambers_highres."""


class Subject(NamedTuple):
    """A subject of TotalSegmentator: its CT, and the files of its structures by name."""

    name: str
    image: Path
    files: dict[str, Path]

    @property
    def parts(self) -> set[int]:
        """What its files label."""
        return {FILES[name] for name in self.files}


def totalsegmentator(options: Options) -> Source:
    """Return the patients of TotalSegmentator: `SUBJECT/ct.nii.gz`, and a file per structure anywhere below it.

    `join` names more folders of the same subjects (another task's results, such as heartchambers_highres). Of two files
    of one structure the one in the input counts, else the one in the first folder of `join`. What no file is about is
    unknown, not background; the vena cava is known only where both are there (version 1 has no superior one). The aorta
    is divided by its shape. Subjects without any voxel of the heart, and those whose CT is refused, are left out.

    Raises:
      UserError: for whatever is missing or contradictory, naming the folder and the fix.
    """
    subjects, warnings = find_subjects(options.input, options.join)
    called = options.naming.called([subject.name for subject in subjects])
    names = [called[subject.name] for subject in subjects]
    cases = [
        Case(name, name, str(subject.image), partial(_size_of, subject), partial(_read, subject))
        for name, subject in zip(names, subjects, strict=True)
    ]
    return Source(cases, {"kind": "totalsegmentator", "warnings": warnings}, leave_out_refused=True)


def find_subjects(folder: Path, join: Sequence[Path]) -> tuple[list[Subject], list[str]]:
    """Return the subjects in natural order, and warnings of what was passed over.

    Raises:
      UserError: there is no subject, a joined folder shares none, or no subject has a file of the heart.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    folders = [path for path in entries if path.is_dir() and not is_system(path.name)]
    volumes = [path for place in folders for path in list_files(place, VOLUMES).files]
    images = {path.parent.name: path for path in volumes if stem(path).lower() == "ct"}
    if not images:
        raise UserError(f"{folder} holds no SUBJECT/ct.nii.gz: give the folder of TotalSegmentator's subjects")
    subjects, others, twice = [], Counter[str](), 0
    for name, image in images.items():
        files: dict[str, Path] = {}
        for root in (image.parent, *(other / name for other in join)):
            listed = list_files(root, VOLUMES, deep=True, beside=(".json", ".csv", ".txt"))
            others += listed.others
            for path in listed.files:
                structure = stem(path).lower()
                if structure in FILES:
                    twice += structure in files
                    files.setdefault(structure, path)
        subjects.append(Subject(name, image, files))
    for other in join:
        if not any((other / name).is_dir() for name in images):
            raise UserError(f"{other} has no folder of any of the {len(images)} subjects of {folder}; correct --join")
    if not any(label_maps.whole_structures(subject.parts) for subject in subjects):
        raise UserError(
            f"no file in {folder} is a structure of the heart, such as heart_ventricle_left.nii.gz or aorta.nii.gz; "
            "for results in one file (--ml) use --source=totalsegmentator_ml"
        )
    warnings = [f"{counted(twice, 'file')} in two folders: the first counts"] if twice else []
    others["folders without a ct.nii.gz"] += len(folders) - len(images)
    return subjects, warnings + not_read(Listing([], others))


def _size_of(subject: Subject) -> tuple[int, int] | None:
    """Return the size of a subject's axial slices, or None where no voxel of the heart is labelled."""
    known = label_maps.whole_structures(subject.parts)
    wanted = [
        path for name, path in subject.files.items() if {FILES[name], label_maps.PART_OF.get(FILES[name])} & known
    ]
    if not any(read_labels(path).voxels.any() for path in wanted):
        return None
    return axial_size(subject.image)


def _read(subject: Subject) -> Labelled:
    volume, turn = patient_axial(read_nifti(subject.image))
    image, found = in_hu(volume)
    labels = np.zeros(image.voxels.shape, np.uint8)
    claimed_twice = np.zeros(labels.shape, bool)
    for name, label in FILES.items():
        if name in subject.files:
            claimed_twice |= label_maps.paint(labels, _inside(subject.files[name], image), label)
    labels[claimed_twice] = IGNORED
    found += [*check_geometry(subject.image), *oblique(turn.oblique_degrees), *overlapping(int(claimed_twice.sum()))]
    if len({label_maps.SUPERIOR_CAVA, label_maps.INFERIOR_CAVA} & subject.parts) == 1:
        text = "only one vena cava has a file: the structure counts as unknown"
        found.append(Finding(WARN, "half_a_cava", text, fix="join a task that has both"))
    return Labelled(image.voxels, labels, label_maps.merge_for(subject.parts), image.spacing_mm, found=tuple(found))


def _inside(path: Path, image: Volume) -> np.ndarray:
    """Return where a structure's file is 1. Raises UserError for another grid, or a file that is no mask."""
    check_same_grid(patient_axial(read_grid(path))[0], image, path)
    values = patient_axial(read_labels(path))[0].voxels
    if values.min() < 0 or values.max() > 1:
        raise UserError(f"{path} holds values from {values.min()} to {values.max()}: a structure's file is 0 or 1")
    return values == 1
