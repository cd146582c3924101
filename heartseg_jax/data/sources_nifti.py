"""A folder of NIfTI volumes and label maps -> a dataset folder, each pair a patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import ALL_KNOWN, IGNORED, NAMES, NUM_LABELS, check_merge
from heartseg_jax.data.sources_png import natural_key
from heartseg_jax.data.splits import assign_splits, block_splits
from heartseg_jax.data.store import Dataset, DatasetWriter, check_output, read_dataset, verify
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.nifti import read_labels, read_nifti
from heartseg_jax.imaging.orient import patient_axial
from heartseg_jax.imaging.volume import AIR_HU, Volume, put_in_middle

SAME_PLACE_MM = 0.1
"""So far apart may the corners of two grids lie that are meant to be one: rounding of headers."""
OBLIQUE_DEGREES = 5.0


class Pair(NamedTuple):
    """A patient's volume and label map, by file."""

    identity: str
    image: Path
    labels: Path


def prepare_nifti_pairs(
    input: str | Path,
    output: str | Path,
    *,
    label_map: str | Path | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    merge: Sequence[int] = ALL_KNOWN,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a dataset of `input/images/NAME.nii.gz` in HU and `input/labels/NAME.nii.gz`; NAME is the patient.

    Args:
      input: the folder; `.nii` counts too.
      output: the dataset folder.
      label_map: JSON {value: structure's name, "background" or "ignored"}; by default values are the project's own.
      fractions: shares of patients (train, validation, test), or numbers of them.
      seed: of the split.
      merge: for a source that does not know every structure, see `anatomy.check_merge`.
      overwrite: replace an existing dataset.
      progress: called with (patients done, patients in all).

    Volumes are stored patient-axial (`orient.patient_axial`), padded in plane to the largest with air.

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming files and the mend.
    """
    check_output(output, overwrite)
    try:
        merge = check_merge(tuple(merge))
    except ValueError as error:
        raise UserError(str(error)) from error
    meanings = read_label_map(label_map) if label_map else None
    pairs = find_pairs(Path(input))
    # Once for the sizes: a dataset's slices are all of one size, and volumes of all patients do not fit in memory.
    sizes = [patient_axial(read_nifti(pair.image))[0].voxels.shape[1:] for pair in pairs]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    warnings = [f"slices of {len(set(sizes))} sizes were padded to {height} x {width}"] if len(set(sizes)) > 1 else []
    alone = len(pairs) == 1
    splits = assign_splits([pair.identity for pair in pairs], fractions, seed)
    source = {
        "kind": "nifti_pairs",
        "label_map": {str(value): label for value, label in meanings.items()} if meanings else {},
        "seed": seed,
        "fractions": list(fractions),
        "warnings": warnings,
    }
    kind = "block" if alone else "patient"
    with DatasetWriter(
        output, intensity="HU", height=height, width=width, source=source, split_kind=kind, overwrite=overwrite
    ) as writer:
        for done, pair in enumerate(pairs, 1):
            volume, labels, oblique = read_pair(pair, meanings)
            if oblique > OBLIQUE_DEGREES:
                warnings.append(f"{pair.identity} is oblique by {oblique:.0f} degrees; its slices are not quite axial")
            count = len(volume.voxels)
            planes = np.full((count, height, width), AIR_HU, np.int16)
            truth = np.zeros((count, height, width), np.uint8)
            for z in range(count):
                put_in_middle(planes[z], volume.voxels[z])
                put_in_middle(truth[z], labels[z])
            writer.add(
                pair.identity,
                planes,
                truth,
                names=[f"{pair.identity}_{z:04d}" for z in range(count)],
                split=block_splits(count, fractions) if alone else splits[pair.identity],
                spacing_mm=volume.spacing_mm,
                contiguous=True,
                merge=merge,
            )
            if progress:
                progress(done, len(pairs))
    dataset = read_dataset(output)
    verify(dataset)
    return dataset


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
        files = [p for p in sorted(place.iterdir()) if p.name.endswith((".nii", ".nii.gz")) and p.name[0] != "."]
        named = {p.name.removesuffix(".gz").removesuffix(".nii"): p for p in files}
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


def read_pair(pair: Pair, meanings: Mapping[int, int] | None) -> tuple[Volume, np.ndarray, float]:
    """Return (patient-axial volume in HU, int16; labels uint8 on its grid; how oblique it is in degrees).

    Raises:
      UserError: the grids differ, or a label value has no meaning.
    """
    image, turn = patient_axial(read_nifti(pair.image))
    labels, _ = patient_axial(read_labels(pair.labels))
    if image.voxels.shape != labels.voxels.shape or _apart_mm(image, labels) > SAME_PLACE_MM:
        raise UserError(
            f"{pair.labels} is not on the grid of its image: {_grid(labels)}, the image {_grid(image)}; resample the "
            "labels to the image's grid (nearest neighbour)"
        )
    values = np.unique(labels.voxels)
    known = meanings or {value: value for value in (*range(NUM_LABELS), IGNORED)}
    strange = [int(value) for value in values if int(value) not in known]
    if strange:
        raise UserError(
            f"{pair.labels} has values without a meaning: {', '.join(map(str, strange[:8]))}; say what each stands "
            "for by --labels=map.json"
        )
    own = np.array([known[int(value)] for value in values], np.uint8)
    hu = np.rint(np.clip(image.voxels, -32768, 32767)).astype(np.int16)
    volume = Volume(hu, image.spacing_mm, image.origin_mm, image.direction)
    return volume, own[np.searchsorted(values, labels.voxels)], turn.oblique_degrees


def _apart_mm(a: Volume, b: Volume) -> float:
    """Return how far corresponding corners of two grids of one shape lie apart at the most."""
    far = []
    for corner in np.ndindex(2, 2, 2):
        index = np.array(corner) * (np.array(a.voxels.shape) - 1)
        places = [np.array(v.origin_mm) + v.direction @ (index * v.spacing_mm) for v in (a, b)]
        far.append(float(np.linalg.norm(places[0] - places[1])))
    return max(far)


def _grid(volume: Volume) -> str:
    size = " x ".join(map(str, volume.voxels.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
    return f"{size} at {spacing} mm from ({', '.join(f'{mm:.1f}' for mm in volume.origin_mm)})"


def read_label_map(path: str | Path) -> dict[int, int]:
    """Return {value in the files: label} of a JSON {value: structure's name}; 0 is background where it is not named.

    Raises:
      UserError: it cannot be read, or names something that is no structure.
    """
    try:
        entries = json.loads(Path(path).read_text())
        found = {int(value): str(name) for value, name in entries.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f'{path} is no JSON of the form {{"500": "left_ventricle", ...}}') from error
    names = {name: label for label, name in enumerate(NAMES)} | {"ignored": IGNORED}
    for name in found.values():
        if name not in names:
            raise UserError(f"{path} names '{name}', which is none of {', '.join(names)}")
    return {0: 0} | {value: names[name] for value, name in found.items()}
