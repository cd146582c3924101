"""A CT volume with its geometry, and the resampling between its grid and the network's. No files here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AIR_HU = -1000


@dataclass(frozen=True)
class Volume:
    """Voxels with their place in the patient, in the source's own frame order.

    Attributes:
      voxels: `[Z, Y, X]`, any numeric dtype; HU for CT.
      spacing_mm: `(z, y, x)` distance between voxel centres.
      origin_mm: `(x, y, z)` centre of voxel `[0, 0, 0]` in DICOM's LPS (to the Left, Posterior, Superior).
      direction: `[3, 3]`; column k is the xyz unit vector of voxel axis k of (z, y, x).
    """

    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise ValueError(f"a volume has three axes (Z, Y, X), not {self.voxels.ndim}")
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be three positive lengths, not {self.spacing_mm}")
        if self.direction is None:
            # Patient-axial: slices towards Superior, rows towards Posterior, columns towards Left.
            object.__setattr__(self, "direction", np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing_mm)) / 1000.0
