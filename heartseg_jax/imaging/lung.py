"""Whether CT shows lung: around every heart there is some, and hardly any in the abdomen, the head or a limb."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging.blood import thinned

LUNG_HU = (-950.0, -500.0)
DARK_HU, AIR_HU = -300.0, -950.0
"""Below the first is lung, air, or what a couch is filled with; below the second only air."""
THIN_MM = 5.0
"""Thinner bright layers are the shells of a couch and vessels of the lung; a chest wall is thicker."""
ROUND_AIR = 0.02
"""Share of the inscribed circle up to which constant pixels are the padding around a round field of view."""
LEAST = 0.1
"""Lung per tissue, by area, from which on a slice shows the lung beside a heart: there it is 0.2 to 4, in the abdomen
(gas, the lowest tips) up to 0.06, in the head (sinuses) up to 0.03."""


def lung_share(hu: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
    """Return the area of lung over that of tissue: the mean of the eighth of the slices with most.

    Lung is what is as dark, and not in one piece with the air around the patient. A field of view may cut it. None
    where pixels are too large to say.

    Args:
      hu: `[Z, Y, X]`; planes of any orientation.
      spacing_mm: (z, y, x).
    """
    thin = thinned(hu, spacing_mm)
    if thin is None:
        return None
    planes, pixel = thin
    size = (1, *(int(THIN_MM / mm) // 2 * 2 + 1 for mm in pixel))
    opened = ndimage.grey_opening(planes, size)
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = [[False, True, False], [True, True, True], [False, True, False]]
    inside = _field_of_view(planes)
    regions, count = ndimage.label((opened < DARK_HU) & inside, in_plane)
    edge = inside & ~ndimage.binary_erosion(inside, iterations=1)
    edge = np.broadcast_to(edge, planes.shape)
    # A region that leaves the field of view mostly as air is around the patient.
    numbers = np.arange(count + 1)
    on_edge = np.bincount(regions[edge], minlength=count + 1)
    as_air = np.bincount(regions[edge & (planes < AIR_HU)], minlength=count + 1)
    is_around = (2 * as_air > on_edge) | (numbers == 0)
    is_lung = ~is_around[regions] & (planes > LUNG_HU[0]) & (planes < LUNG_HU[1])
    tissue = (opened >= DARK_HU).sum(axis=(1, 2))
    shares = np.sort(is_lung.sum(axis=(1, 2)) / np.maximum(tissue, 1))
    return float(shares[-max(1, len(shares) // 8) :].mean())


def _field_of_view(planes: np.ndarray) -> np.ndarray:
    """Return `[Y, X]` bool: all pixels, or those within a round field of view, without the mixed ones of its rim."""
    constant = (planes == planes[0, 0, 0]).all(axis=0)
    rows, columns = (np.linspace(-1, 1, n) for n in constant.shape)
    within = np.hypot(rows[:, None], columns[None]) < 0.96
    is_padding = constant.mean() > ROUND_AIR and constant[within].mean() < ROUND_AIR
    return ~ndimage.binary_dilation(constant) if is_padding else np.ones_like(constant)
