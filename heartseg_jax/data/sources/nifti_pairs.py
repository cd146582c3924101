"""A folder of NIfTI volumes and label maps -> a dataset folder, each pair a patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.data.sources.patient_table import natural_key, read_owners
from heartseg_jax.data.sources.write_cases import Case, Labelled, Source, check_same_grid, oblique
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.hu_checks import in_hu
from heartseg_jax.imaging.masks import label_maps as words
from heartseg_jax.imaging.nifti import read_grid, read_labels, read_nifti
from heartseg_jax.imaging.orientation import patient_axial

VOLUMES = (".nii", ".nii.gz")


class Pair(NamedTuple):
    """A patient's volume and label map, by file."""

    identity: str
    image: Path
    labels: Path


def nifti_pairs(
    folder: Path,
    label_map: str | Path | None = None,
    merge: tuple[int, ...] | None = None,
    naming: Naming | None = None,
    patients_table: str | Path | None = None,
) -> Source:
    """Return the patients of `folder/images/NAME.nii.gz` in HU and `folder/labels/NAME.nii.gz`; NAME is the patient.

    Args:
      folder: where they lie; `.nii` counts too.
      label_map: JSON {value: structure's name, "background" or "ignored"}; by default values are the project's own.
      merge: see `LabelSet.check_merge`; by default the structures that the label map does not name are unknown.
      naming: what patients are called in the dataset.
      patients_table: CSV file,patient, where several volumes are one person's (file is NAME).

    Volumes become patient-axial (`orient.patient_axial`). An undivided aorta ("aorta" in the map) is divided where its
    shape tells how.

    Raises:
      UserError: for whatever is missing or contradictory, naming files and the mend.
    """
    meanings = words.by_number(words.read_label_map(label_map), label_map) if label_map else words.OWN
    if merge is None:
        merge = words.merge_for(set(meanings.values())) if label_map else HEART.all_known
    pairs = find_pairs(folder)
    naming = naming or Naming()
    called = naming.called([pair.identity for pair in pairs])
    owners = called
    if patients_table is not None:
        told = read_owners(Path(patients_table), [pair.identity for pair in pairs])
        persons = naming.called(list(dict.fromkeys(told.values())))
        owners = {name: persons[person] for name, person in told.items()}
    about = {
        "kind": "nifti_pairs",
        "label_map": {str(value): label for value, label in meanings.items()} if label_map else {},
    }
    cases = [
        case_of(pair, called[pair.identity], owners[pair.identity], partial(read_pair, pair, meanings, merge))
        for pair in pairs
    ]
    return Source(cases, about)


def case_of(pair: Pair, name: str, person: str, read: Callable[[], Labelled]) -> Case:
    """Return a pair as a case called `name`, of `person`."""
    return Case(name, person, str(pair.image), partial(axial_size, pair.image), read)


def find_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of a folder in natural order of their names.

    Raises:
      UserError: a folder is missing, an image without labels or labels without an image.
    """
    found: list[dict[str, Path]] = []
    for kind in ("images", "labels"):
        place = folder / kind
        if not place.is_dir():
            raise UserError(f"no folder {place}: the input of nifti_pairs holds `images` and `labels`")
        files = [p for p in sorted(place.iterdir()) if p.name.lower().endswith(VOLUMES) and p.name[0] != "."]
        named = {p.name[: p.name.lower().rindex(".nii")]: p for p in files}
        if len(named) < len(files):
            raise UserError(f"{place} holds a name both as .nii and as .nii.gz: remove one")
        found.append(named)
    images, labels = found
    for name in [*images, *labels]:
        if name not in images or name not in labels:
            lacking = "labels" if name in images else "images"
            raise UserError(f"no {folder / lacking / name}.nii.gz beside its mate: add it, or remove the other")
    if not images:
        raise UserError(f"{folder / 'images'} holds no .nii or .nii.gz file")
    return [Pair(name, images[name], labels[name]) for name in sorted(images, key=natural_key)]


def axial_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of a volume's axial slices, by its head alone."""
    _, rows, columns = patient_axial(read_grid(path))[0].voxels.shape
    return rows, columns


def read_pair(pair: Pair, meanings: Mapping[int, int], merge: tuple[int, ...]) -> Labelled:
    """Return a pair's volume with its labels.

    Raises:
      UserError: the grids differ, or a label value has no meaning.
    """
    volume, turn = patient_axial(read_nifti(pair.image))
    labels, _ = patient_axial(read_labels(pair.labels))
    check_same_grid(labels, volume, pair.labels)
    own = words.translated(labels.voxels, meanings, str(pair.labels))
    image, found = in_hu(volume)
    return Labelled(image, own, merge, found=(*found, *oblique(turn.oblique_degrees)))
