"""Repairs predicted labels, structure by structure: far islands are removed, holes are filled, changes are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.errors import UserError, suggestion
from heartseg_jax.inference.study import Prediction


class Settings(NamedTuple):
    """What is repaired; the fields of the config's `postprocess` group.

    Attributes:
      island_share: a part of a structure is small below this share of the voxels of its largest part.
      island_mm: a small part that is farther than this from the largest one is removed.
      fill_holes: background voxels that one structure encloses in three dimensions become part of it.
      leave: labels of structures that are left as they are.
    """

    island_share: float = 0.05
    island_mm: float = 10.0
    fill_holes: bool = True
    leave: tuple[int, ...] = ()


def settings_of(config: Any, label_set: LabelSet) -> Settings | None:
    """Return what a run's config asks for; None where it is off.

    Raises:
      UserError: `postprocess.leave` names a structure that the label set does not have.
    """
    group = config.postprocess
    if not group.on:
        return None
    known = {structure.name: structure.label for structure in label_set.foreground}
    for name in group.leave:
        if name not in known:
            raise UserError(f"postprocess.leave names '{name}', which is no structure{suggestion(name, list(known))}")
    return Settings(group.island_share, group.island_mm, group.fill_holes, tuple(known[name] for name in group.leave))


def postprocess(prediction: Prediction, settings: Settings) -> Prediction:
    """Return the prediction with repaired labels, and in `changed_voxels` what was removed and added by structure.

    Slices whose spacing is unknown are left as they are: how far apart islands lie, and whether the slices are
    neighbours, is unknown too. Probabilities stay as they were.
    """
    if not prediction.intake.spacing_known:
        return prediction
    structures = [s for s in prediction.contract.label_set.foreground if s.label not in settings.leave]
    labels, changed = repaired(
        prediction.labels, prediction.volume.spacing_mm, [structure.label for structure in structures], settings
    )
    return replace(prediction, labels=labels, changed_voxels={s.name: changed[s.label] for s in structures})


def repaired(
    labels: np.ndarray, spacing_mm: tuple[float, float, float], which: Sequence[int], settings: Settings
) -> tuple[np.ndarray, dict[int, tuple[int, int]]]:
    """Return repaired labels `[Z, Y, X]` and, for each label in `which`, the numbers of voxels removed and added."""
    labels = labels.copy()
    boxes = ndimage.find_objects(labels, max_label=max(which, default=0))
    changed = {}
    for label in which:
        box = boxes[label - 1]
        removed = added = 0
        if box is not None:
            here = labels[box]
            far = far_islands(here == label, spacing_mm, settings)
            removed = len(far[0])
            here[far] = 0
            if settings.fill_holes:
                if removed:  # the box of what is left may be far smaller
                    here = here[ndimage.find_objects(here == label, max_label=1)[0]]
                holes = enclosed(here == label) & (here == 0)
                added = int(holes.sum())
                here[holes] = label
        changed[label] = (removed, added)
    return labels, changed


def far_islands(mask: np.ndarray, spacing_mm: tuple[float, float, float], settings: Settings) -> tuple[np.ndarray, ...]:
    """Return the places of the voxels in parts of `mask [Z, Y, X]` that are small and far from its largest part.

    Parts are connected by faces. Of parts of equal size the first is the largest. The places are indices `(z, y, x)`.
    """
    parts, count = ndimage.label(mask)
    places = np.nonzero(mask)  # in a noisy prediction a small share of the volume: everything below looks only there
    part_of = parts[places]
    sizes = np.bincount(part_of, minlength=count + 1)
    largest = int(sizes.argmax())
    small = sizes < settings.island_share * sizes[largest]
    small[[0, largest]] = False
    islands = tuple(axis[small[part_of]] for axis in places)
    if not len(islands[0]):
        return islands
    inside = part_of == largest
    box = tuple(slice(axis[inside].min(), axis[inside].max() + 1) for axis in places)
    main = np.pad(parts[box] == largest, 1)
    surface = np.argwhere(main & ~ndimage.binary_erosion(main)) + [axis.start - 1 for axis in box]
    reach_mm = settings.island_mm * (1 + 1e-9)
    distance, _ = cKDTree(surface * spacing_mm).query(
        np.stack(islands, axis=1) * spacing_mm, distance_upper_bound=reach_mm
    )
    is_near = np.zeros(count + 1, bool)
    is_near[parts[islands][np.isfinite(distance)]] = True
    far = ~is_near[parts[islands]]
    return tuple(axis[far] for axis in islands)


def enclosed(mask: np.ndarray) -> np.ndarray:
    """Return what lies outside `mask [Z, Y, X]` and is cut off by it from every face of the array."""
    parts, count = ndimage.label(~mask)
    open_parts = np.zeros(count + 1, bool)
    open_parts[0] = True
    for axis in range(3):
        for side in (0, -1):
            open_parts[np.unique(parts.take(side, axis))] = True
    return ~open_parts[parts]
