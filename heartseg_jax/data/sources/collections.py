"""Two public collections of labelled CT in NIfTI -> a dataset folder: MM-WHS, and TotalSegmentator of any version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.data.sources.nifti_pairs import Pair, axial_size, case_of, read_pair
from heartseg_jax.data.sources.patient_table import natural_key
from heartseg_jax.data.sources.write_cases import Case, Labelled, Source, check_same_grid, oblique, overlapping
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.dicom.files import walk
from heartseg_jax.imaging.hu_checks import in_hu
from heartseg_jax.imaging.masks.label_maps import (
    AORTA,
    APPENDAGE,
    CAVA,
    DESCENDING,
    INFERIOR_CAVA,
    LEFT_ATRIUM,
    LEFT_VENTRICLE,
    PART_OF,
    PULMONARY,
    RIGHT_ATRIUM,
    RIGHT_VENTRICLE,
    SUPERIOR_CAVA,
    merge_for,
    paint,
    settle,
    whole_structures,
)
from heartseg_jax.imaging.nifti import read_grid, read_labels, read_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume

MMWHS = {0: 0, 205: 0, 420: 2, 421: 2, 500: 3, 550: 4, 600: 5, 820: AORTA, 850: 7}
"""What the values of MM-WHS stand for; 205 is myocardium, and 421 a slip for 420 in one of the patients."""
MMWHS_MERGE = (*merge_for({2, 3, 4, 5, 7, AORTA})[:8], 4)
"""The right atrium of MM-WHS holds the venae cavae."""
AT_THE_VALVE_MM = 4.0

FILES: dict[str, int] = {
    "pulmonary_vein": IGNORED,  # no artery; where it ends and the atrium begins is a matter of taste
    "heart_atrium_left": LEFT_ATRIUM,
    "atrial_appendage_left": APPENDAGE,
    "heart_ventricle_left": LEFT_VENTRICLE,
    "heart_atrium_right": RIGHT_ATRIUM,
    "heart_ventricle_right": RIGHT_VENTRICLE,
    "pulmonary_artery": PULMONARY,
    "aorta": AORTA,
    "superior_vena_cava": SUPERIOR_CAVA,
    "inferior_vena_cava": INFERIOR_CAVA,
}
"""What TotalSegmentator calls its files, in versions 1 and 2 and in the task heartchambers_highres."""


def mmwhs(folder: Path, naming: Naming | None = None) -> Source:
    """Return the patients of MM-WHS: `NAME_image.nii.gz` with `NAME_label.nii.gz`, at any depth of `folder`.

    Magnetic resonance (`mr_...`) and images without labels are left out, and counted. The right atrium holds the venae
    cavae (`merge` 8 -> 4). The aorta is divided where both limbs are labelled; one limb that rises from the left
    ventricle is the ascending one, and the descending aorta is then not labelled at all (6 -> 0).

    Raises:
      UserError: there is none.
    """
    files = {path: path.name.lower().rpartition(".nii")[0] for path in walk(folder)} if folder.is_dir() else {}
    images = sorted((p for p in files if files[p].endswith("_image")), key=lambda path: natural_key(path.name))
    if not images:
        raise UserError(f"{folder} holds no NAME_image.nii.gz: give the folder of MM-WHS")
    mr = [path for path in images if path.name.lower().startswith("mr_")]
    labels = {
        (path.parent, stem.removesuffix("_label")): path for path, stem in files.items() if stem.endswith("_label")
    }
    pairs = []
    for path in images:
        own = labels.get((path.parent, files[path].removesuffix("_image")))
        if path not in mr and own is not None:
            pairs.append(Pair(path.name[: len(files[path]) - len("_image")], path, own))
    if not pairs:
        raise UserError(f"none of the {len(images)} images of {folder} is CT with a NAME_label.nii.gz beside it")
    called = (naming or Naming()).called([pair.identity for pair in pairs])
    left_out = len(images) - len(mr) - len(pairs)
    warnings = [f"{len(mr)} images of magnetic resonance were left out"] if mr else []
    warnings += [f"{left_out} images without labels were left out"] if left_out else []
    names = [called[pair.identity] for pair in pairs]
    cases = [case_of(pair, name, name, partial(_read_mmwhs, pair)) for name, pair in zip(names, pairs, strict=True)]
    return Source(cases, {"kind": "mmwhs", "warnings": warnings})


def _read_mmwhs(pair: Pair) -> Labelled:
    one = read_pair(pair, MMWHS, MMWHS_MERGE)
    whole = settle(one.labels, one.volume.spacing_mm, one.merge)
    merge, aorta = whole.merge, whole.aorta
    if whole.limbs == 1 and _near(one.labels == AORTA, one.labels == LEFT_VENTRICLE, one.volume.spacing_mm):
        aorta = "one limb, from the left ventricle: the ascending aorta; the descending one is not labelled"
        merge = (*merge[:DESCENDING], 0, *merge[DESCENDING + 1 :])
    return one._replace(labels=whole.labels, merge=merge, facts={"aorta": aorta} if aorta else {})


def _near(one: np.ndarray, other: np.ndarray, spacing_mm: tuple[float, float, float]) -> bool:
    """Tell whether two structures come closer than a valve is thick."""
    if not one.any() or not other.any():
        return False
    box = ndimage.find_objects(one.astype(np.uint8))[0]
    around = tuple(
        slice(max(0, part.start - reach), part.stop + reach)
        for part, reach in zip(box, [int(np.ceil(AT_THE_VALVE_MM / mm)) for mm in spacing_mm], strict=True)
    )
    if not other[around].any():
        return False
    away_mm = ndimage.distance_transform_edt(~other[around], sampling=spacing_mm)
    return bool(away_mm[one[around]].min() <= AT_THE_VALVE_MM)


class Subject(NamedTuple):
    """A subject of TotalSegmentator: its CT, and the files of its structures by name."""

    identity: str
    image: Path
    files: dict[str, Path]


def totalsegmentator(folder: Path, join: Sequence[Path] = (), naming: Naming | None = None) -> Source:
    """Return the patients of TotalSegmentator: `folder/SUBJECT/ct.nii.gz`, and a file a structure anywhere below it.

    `join` names more folders of the same subjects (another task's results, such as heartchambers_highres). Of two files
    of one structure the one in `folder` counts, else the one in the first folder of `join`. What no file is about is
    unknown, not background; the vena cava is known only where both are there (version 1 has no superior one). The aorta
    is divided by its shape. Subjects without any voxel of the heart, and those whose CT is refused, are left out.

    Raises:
      UserError: for whatever is missing or contradictory, naming the folder and the mend.
    """
    subjects, warnings = find_subjects(folder, join)
    called = (naming or Naming()).called([subject.identity for subject in subjects])
    names = [called[subject.identity] for subject in subjects]
    cases = [
        Case(name, name, str(subject.image), partial(_size_of, subject), partial(_read_subject, subject))
        for name, subject in zip(names, subjects, strict=True)
    ]
    return Source(cases, {"kind": "totalsegmentator", "warnings": warnings}, leave_out_refused=True)


def find_subjects(folder: Path, join: Sequence[Path]) -> tuple[list[Subject], list[str]]:
    """Return the subjects in natural order, and what is to be told of files that stand in two folders.

    Raises:
      UserError: there is no subject, a joined folder shares none, or nobody has a file of the heart.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    places = {path.parent.name: path.parent for path in sorted(folder.glob("*/ct.nii.gz"))}
    if not places:
        raise UserError(f"{folder} holds no SUBJECT/ct.nii.gz: give the folder of TotalSegmentator's subjects")
    subjects, twice = [], 0
    for name in sorted(places, key=natural_key):
        files: dict[str, Path] = {}
        for root in (places[name], *(other / name for other in join)):
            for path in walk(root) if root.is_dir() else []:
                structure = path.name.lower().removesuffix(".gz").removesuffix(".nii")
                if structure in FILES:
                    twice += structure in files
                    files.setdefault(structure, path)
        subjects.append(Subject(name, places[name] / "ct.nii.gz", files))
    for other in join:
        if not any((other / name).is_dir() for name in places):
            raise UserError(f"{other} has no folder of any of the {len(places)} subjects of {folder}; correct --join")
    if not any(whole_structures(_parts(subject)) for subject in subjects):
        raise UserError(
            f"no file in {folder} is a structure of the heart, such as heart_ventricle_left.nii.gz or aorta.nii.gz; "
            "results in one file (--ml) are not read: run it without"
        )
    return subjects, [f"{twice} files stand in two folders: the first counts"] if twice else []


def _parts(subject: Subject) -> set[int]:
    """Return what a subject's files are about."""
    return {FILES[name] for name in subject.files}


def _size_of(subject: Subject) -> tuple[int, int] | None:
    """Return the size of a subject's axial slices, or None where no voxel of the heart is labelled."""
    known = whole_structures(_parts(subject))
    wanted = [path for name, path in subject.files.items() if {FILES[name], PART_OF.get(FILES[name])} & known]
    if not any(read_labels(path).voxels.any() for path in wanted):
        return None
    return axial_size(subject.image)


def _read_subject(subject: Subject) -> Labelled:
    volume, turn = patient_axial(read_nifti(subject.image))
    image, found = in_hu(volume)
    parts = _parts(subject)
    labels = np.zeros(image.voxels.shape, np.uint8)
    claimed_twice = np.zeros(labels.shape, bool)
    for name, label in FILES.items():
        if name in subject.files:
            claimed_twice |= paint(labels, _inside(subject.files[name], image), label)
    labels[claimed_twice] = IGNORED
    found += [*oblique(turn.oblique_degrees), *overlapping(int(claimed_twice.sum()))]
    if CAVA not in whole_structures(parts) and {SUPERIOR_CAVA, INFERIOR_CAVA} & parts:
        text = "one vena cava alone has a file: the structure counts as unknown"
        found.append(Finding(WARN, "half_a_cava", text, fix="join a task that has both"))
    return Labelled(image, labels, merge_for(parts), found=tuple(found))


def _inside(path: Path, image: Volume) -> np.ndarray:
    """Return where a structure's file is 1. Raises UserError for another grid, or a file that is no mask."""
    check_same_grid(patient_axial(read_grid(path))[0], image, path)
    values = patient_axial(read_labels(path))[0].voxels
    if values.min() < 0 or values.max() > 1:
        raise UserError(f"{path} holds values from {values.min()} to {values.max()}: a structure's file is 0 or 1")
    return values == 1
