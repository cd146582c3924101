"""The axes of a volume as vectors in mm, as file headers state them: whether a scan of a patient can have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg_jax.errors import UserError

ORTHOGONAL = 1e-3
MM = (1e-3, 1e3)
"""Least and largest spacing of a patient's scan."""


@np.errstate(all="ignore")  # what is not finite is refused
def check_axes(columns_mm: np.ndarray, origin_mm: np.ndarray, path: Path) -> None:
    """Check the steps along three voxel axes, the columns of `[3, 3]`, and the origin `[3]`; `path` names the file.

    Raises:
      UserError: they are not finite, without extent, of no patient's scale, or not at right angles.
    """
    lengths = np.linalg.norm(columns_mm, axis=0)
    if not (np.isfinite(columns_mm).all() and np.isfinite(origin_mm).all()) or lengths.min() <= 0:
        raise UserError(f"{path} has a geometry that is not finite, or a voxel without extent; export it again")
    if lengths.min() < MM[0] or lengths.max() > MM[1]:
        found = " x ".join(f"{mm:.3g}" for mm in lengths)
        raise UserError(f"{path} has voxels of {found} mm, which no scan of a patient has; export it again in mm")
    directions = columns_mm / lengths
    if np.abs(directions.T @ directions - np.eye(3)).max() > ORTHOGONAL:
        raise UserError(f"{path} has axes that are not at right angles; resample it first")
