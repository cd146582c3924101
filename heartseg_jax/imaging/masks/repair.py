"""Labels of colour masks that JPEG or antialiasing damaged. Exact decoding and the audit are in `palette`.

The nearest colour invents anatomy: halfway between the red of the left atrium and the blue of the left
ventricle lies exactly the purple of the descending aorta; a grey rim of white becomes purple, a dark rim
of yellow orange. So regions whose colour is beyond doubt are found first (cores), and every other pixel
takes the label of one of the cores within `REACH` pixels, by the mixture of two of *their* colours that
explains it best.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import ndimage

from heartseg_jax.anatomy import IGNORED

REACH = 3
"""Farthest distance in pixels (along rows, columns or diagonals) of a label from a core of it."""

JPEG_TOLERANCE = 48.0
"""Distance in RGB below which a pixel inside a uniform region still shows its colour."""

JPEG_SPREAD = 64
"""Largest difference in a channel between neighbours of a pixel that is inside a uniform region."""

# A blend of red and blue may be exactly purple, so an exact colour counts only where it fills a 2x2 block:
# a rim is one such pixel wide. JPEG blurs colour over 2x2 blocks, so there it must fill 3x3.
_EXACT_BLOCK = np.ones((2, 2), bool)
_JPEG_BLOCK = np.ones((3, 3), bool)

# JPEG keeps brightness at full and colour at half the resolution: brightness says where a border runs.
_LUMA = np.array([0.299, 0.587, 0.114])
_LUMA_WEIGHT = 2.0
_DISTANCE_COST = 4.0


def colour_codes(rgb: np.ndarray) -> np.ndarray:
    """Return one int32 per colour of `rgb [..., 3]`."""
    wide = rgb.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def repair(rgb: np.ndarray, colours: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return uint8 labels `[H, W]` of a damaged mask `rgb [H, W, 3]`; `colours [K, 3]` mean `labels [K]`.

    A pixel with no core within `REACH` is `IGNORED`: its label cannot be known.
    """
    cores = find_cores(rgb, colours)
    present = np.flatnonzero(cores.any(axis=(1, 2)))
    result = np.full(rgb.shape[:2], IGNORED, np.uint8)
    for k in present:
        result[cores[k]] = labels[k]
    rows, columns = np.nonzero(~cores.any(axis=0))
    if present.size == 0 or rows.size == 0:
        return result
    distances = np.stack(
        [ndimage.distance_transform_cdt(~cores[k], "chessboard")[rows, columns] for k in present]
    ).astype(np.float32)
    chosen = _best_mixture(rgb[rows, columns], colours[present], distances)
    found = chosen >= 0
    result[rows[found], columns[found]] = np.asarray(labels)[present[chosen[found]]]
    return result


def find_cores(rgb: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return bool `[K, H, W]`: where each of `colours [K, 3]` is beyond doubt in `rgb [H, W, 3]`."""
    coded = colour_codes(rgb)
    wide = rgb.astype(np.float32)
    distance = np.stack([np.linalg.norm(wide - colour.astype(np.float32), axis=-1) for colour in colours])
    nearest = distance.argmin(axis=0)
    # On a wide ramp between two colours a third may be near for some pixels, but a ramp is not flat.
    spread = np.ptp(np.stack([ndimage.maximum_filter(rgb, (3, 3, 1)), ndimage.minimum_filter(rgb, (3, 3, 1))]), 0)
    flat = spread.max(axis=-1) <= JPEG_SPREAD
    close = distance.min(axis=0) <= JPEG_TOLERANCE
    cores = []
    for k, code in enumerate(colour_codes(colours)):
        # Padded, because a region that leaves the picture is not thin there.
        exact = np.pad(coded == code, 2, mode="edge")
        near = np.pad(close & (nearest == k), 2, mode="edge")
        middles = ndimage.binary_erosion(near, _JPEG_BLOCK) & np.pad(flat, 2, mode="edge")
        core = ndimage.binary_opening(exact, _EXACT_BLOCK) | ndimage.binary_dilation(middles, _JPEG_BLOCK)
        cores.append(core[2:-2, 2:-2])
    return np.stack(cores)


def _perceived(rgb: np.ndarray) -> np.ndarray:
    """Return `[P, 3]`: brightness, weighted, and the two colour differences of `rgb [P, 3]`."""
    wide = rgb.astype(np.float32)
    luma = wide @ _LUMA.astype(np.float32)
    return np.stack([_LUMA_WEIGHT * luma, (wide[:, 2] - luma) * 0.564, (wide[:, 0] - luma) * 0.713], axis=1)


def _best_mixture(pixels: np.ndarray, colours: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return `[P]`: for each of `pixels [P, 3]` the index of its colour, or -1 where none is in reach.

    `distances [K, P]` are those to the cores of `colours [K, 3]`. For every two colours in reach the
    nearest point on the line between them is taken; the pixel belongs to the nearer end. Ends far away
    cost more.
    """
    observed, ends = _perceived(pixels), _perceived(colours)
    reachable = distances <= REACH
    best = np.full(len(pixels), np.inf, np.float32)
    chosen = np.full(len(pixels), -1)

    def offer(k: int, cost: np.ndarray, where: np.ndarray) -> None:
        cost = cost + _DISTANCE_COST * distances[k]
        better = where & (cost < best)
        best[better] = cost[better]
        chosen[better] = k

    for k in range(len(colours)):
        offer(k, np.linalg.norm(observed - ends[k], axis=1), reachable[k])
    for i, j in combinations(range(len(colours)), 2):
        both = reachable[i] & reachable[j]
        if not both.any():
            continue
        line = ends[j] - ends[i]
        share = np.clip((observed - ends[i]) @ line / (line @ line), 0.0, 1.0)
        residual = np.linalg.norm(observed - ends[i] - share[:, None] * line, axis=1)
        offer(i, residual, both & (share <= 0.5))
        offer(j, residual, both & (share > 0.5))
    return chosen
