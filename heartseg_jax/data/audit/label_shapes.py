"""Oddities of one patient's labels: slips, mirrored or upside-down patients, labels on air. No files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.anatomy import HEART, LabelSet
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.masks.label_maps import (
    ASCENDING,
    DESCENDING,
    LEFT_ATRIUM,
    LEFT_VENTRICLE,
    PULMONARY,
    RIGHT_ATRIUM,
    RIGHT_VENTRICLE,
)

SLIP_PIXELS, SLIP_SHARE = 12, 0.01
"""An island is a slip if it has at most this many voxels, and this share of the structure's largest part."""
CLEARLY = 0.02
"""Least distance, as a share of the picture's side, at which a structure lies clearly beside another."""

WRONG_WAYS = {
    "turned": (
        "left and right, front and back lie the other way round: the slices seem to be rotated by 180 degrees",
        "give --orientation=rot180, or the files' own geometry",
    ),
    "mirrored": (
        "the left ventricle and atrium lie to the right of the right atrium: mirrored, or a heart on the other side",
        "compare with the report; --orientation=flip-columns corrects it",
    ),
    "upside_down": (
        "the front lies at the bottom: the slices seem to be upside down",
        "give --orientation=flip-rows, or the files' own geometry",
    ),
    "reversed_slices": (
        "the pulmonary artery lies below the ventricles: the slices seem to be in the opposite order",
        "sort the slices from the feet to the head",
    ),
}
"""By check: what was seen, and the fix."""


class Island(NamedTuple):
    """A few voxels of a structure, apart from the rest of it: on which slice, and where (row, column)."""

    label: int
    slice: int
    row: int
    column: int
    voxels: int


def islands(labels: np.ndarray, label_set: LabelSet, contiguous: bool) -> list[Island]:
    """Return islands that look like slips in `labels [N, H, W]`, the smallest first.

    Slices of a whole volume are examined together, scattered ones one by one. What touches the outermost slices of a
    volume may be the tip of something larger, and is not an island.
    """
    whole = contiguous and len(labels) > 1
    found: list[Island] = []
    for first, part in [(0, labels)] if whole else [(z, labels[z : z + 1]) for z in range(len(labels))]:
        # Structure by structure within its own box: a whole volume of component numbers is eight times the labels.
        for label, box in enumerate(ndimage.find_objects(part, len(label_set.foreground)), 1):
            if box is None:
                continue
            marked, count = ndimage.label(part[box] == label, np.ones((3, 3, 3)))
            if count < 2:
                continue
            sizes = np.bincount(marked.ravel())[1:]
            most = min(SLIP_PIXELS, SLIP_SHARE * sizes.max())
            for size, place in zip(sizes, ndimage.find_objects(marked), strict=True):
                z, y, x = (own.start + around.start for own, around in zip(place, box, strict=True))
                at_the_end = whole and (z == 0 or place[0].stop + box[0].start == len(labels))
                if size <= most and not at_the_end:
                    found.append(Island(label, first + z, y, x, int(size)))
    return sorted(found, key=lambda island: island.voxels)


def orientation_warnings(labels: np.ndarray, contiguous: bool) -> list[Finding]:
    """Return warnings where the structures of `labels [N, H, W]` lie the wrong way round.

    In the standard orientation the left ventricle is right of the right atrium in the picture, the spine is at the
    bottom, and slices run upwards. Some hearts do lie mirrored (dextrocardia): these are warnings only.
    """
    middles = _middles(labels)
    across = _lead(middles, 2, [(LEFT_VENTRICLE, RIGHT_ATRIUM), (LEFT_ATRIUM, RIGHT_ATRIUM)], labels.shape[2])
    down = _lead(middles, 1, [(DESCENDING, ASCENDING), (LEFT_ATRIUM, RIGHT_VENTRICLE)], labels.shape[1])
    up = (
        _lead(middles, 0, [(PULMONARY, LEFT_VENTRICLE), (PULMONARY, RIGHT_VENTRICLE)], len(labels)) if contiguous else 0
    )
    if across < 0 and down < 0:
        checks = ["turned"]
    else:
        ways = {"mirrored": across, "upside_down": down, "reversed_slices": up}
        checks = [check for check, way in ways.items() if way < 0]
    return [Finding(WARN, check, WRONG_WAYS[check][0], fix=WRONG_WAYS[check][1]) for check in checks]


def _middles(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Return the mean position (slice, row, column) of each structure that is present."""
    found = {}
    for label, *_ in HEART.foreground:
        inside = labels == label
        if inside.any():
            sums = [inside.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
            found[label] = np.array([np.average(np.arange(len(n)), weights=n) for n in sums])
    return found


def _lead(middles: dict[int, np.ndarray], axis: int, pairs: list[tuple[int, int]], side: int) -> int:
    """Return 1 where each pair's first lies clearly beyond its second, -1 where before, 0 where nothing is clear."""
    both = [(a, b) for a, b in pairs if a in middles and b in middles]
    leads = [middles[first][axis] - middles[second][axis] for first, second in both]
    ways = {int(np.sign(lead)) if abs(lead) > CLEARLY * side else 0 for lead in leads}
    return ways.pop() if len(ways) == 1 else 0


def on_air(images: np.ndarray, labels: np.ndarray, label_set: LabelSet, highest_hu: float = -300.0) -> list[str]:
    """Return the structures most of whose voxels are as dark as lung or air: labels that do not fit their image."""
    dark = []
    for structure in label_set.foreground:
        inside = np.concatenate([image[plane == structure.label] for image, plane in zip(images, labels, strict=True)])
        if len(inside) and np.median(inside) < highest_hu:
            dark.append(structure.name)
    return dark
