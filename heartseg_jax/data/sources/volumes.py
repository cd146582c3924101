"""What all sources of volumes share: reading NIfTI pairs, and checks of a label map against its image's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from heartseg_jax.data.sources.case import Case, Labelled
from heartseg_jax.data.sources.listing import FilePair
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted
from heartseg_jax.imaging.block_checks import in_hu
from heartseg_jax.imaging.masks.label_maps import translated
from heartseg_jax.imaging.nifti import check_geometry, read_grid, read_labels, read_nifti
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.volume import Volume

SAME_PLACE_MM = 0.1
"""Corners of two grids that are meant to be one lie at most this far apart: rounding of headers."""


def volume_case(identity: str, person: str, pair: FilePair, read: Callable[[], Labelled]) -> Case:
    """Return a pair of files as a case, which `read` reads."""
    return Case(identity, person, str(pair.image), partial(axial_size, pair.image), read)


def axial_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of a volume's axial slices, from its header only."""
    _, rows, columns = patient_axial(read_grid(path))[0].voxels.shape
    return rows, columns


def read_pair(pair: FilePair, meanings: Mapping[int, int], merge: tuple[int, ...]) -> Labelled:
    """Return a pair's volume with its labels, patient-axial.

    Raises:
      UserError: the grids differ, or a label value has no meaning.
    """
    volume, turn = patient_axial(read_nifti(pair.image))
    labels, _ = patient_axial(read_labels(pair.labels))
    check_same_grid(labels, volume, pair.labels)
    own = translated(labels.voxels, meanings, str(pair.labels))
    image, found = in_hu(volume)
    found = [*found, *check_geometry(pair.image), *oblique(turn.oblique_degrees)]
    return Labelled(image.voxels, own, merge, image.spacing_mm, found=tuple(found))


def overlapping(voxels: int) -> list[Finding]:
    """Return the finding of voxels that two structures claim, if there are any."""
    if not voxels:
        return []
    text = f"{counted(voxels, 'voxel')} in two structures: ignored (255)"
    return [Finding(WARN, "overlapping_structures", text, fix="look at where the structures meet")]


def check_same_grid(labels: Volume, image: Volume, where: str | Path) -> None:
    """Raise UserError unless two patient-axial volumes have one grid; `where` names the labels' file."""
    if image.voxels.shape != labels.voxels.shape or _distance_mm(image, labels) > SAME_PLACE_MM:
        raise UserError(
            f"{where} is not on the grid of its image: {_grid(labels)}, the image {_grid(image)}; resample the "
            "labels to the image's grid (nearest neighbour)"
        )


def _distance_mm(a: Volume, b: Volume) -> float:
    """Return the largest distance between corresponding corners of two grids of one shape."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(a.voxels.shape) - 1)
    places = [np.array(v.origin_mm) + (v.direction @ (corners * v.spacing_mm).T).T for v in (a, b)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())


def _grid(volume: Volume) -> str:
    size = " x ".join(map(str, volume.voxels.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in volume.spacing_mm)
    return f"{size} at {spacing} mm from ({', '.join(f'{mm:.1f}' for mm in volume.origin_mm)})"
