"""NRRD files into Volumes, with the geometry exact. The only module that knows pynrrd."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import nrrd
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted
from heartseg_jax.imaging.axes import check_axes
from heartseg_jax.imaging.volume import Volume

MOST_BYTES = 2**30
TO_LPS = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""By the header's `space`, in lower case: the signs that turn its x, y, z to Left, Posterior, Superior."""
MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")
"""Most writers leave `space units` unset and mean mm."""
DETACHED = ("data file", "datafile")
LIST = "list"
"""The kind of an axis along which 3D Slicer keeps the layers of segments that overlap."""


class Layers(NamedTuple):
    """A file's content: `voxels [L, Z, Y, X]` (L layers, mostly one), its geometry, and its header's own fields.

    `grid` has zeros for voxels. In `fields`, the header's names are as they are written there, such as
    `Segment0_Name`.
    """

    voxels: np.ndarray
    grid: Volume
    fields: dict[str, Any]

    def volume(self, layer: int) -> Volume:
        """Return one layer with its geometry."""
        return Volume(self.voxels[layer], self.grid.spacing_mm, self.grid.origin_mm, self.grid.direction)


def read_nrrd(path: str | Path) -> Volume:
    """Return the scalar volume in a `.nrrd` file, of whatever type it is stored as.

    Axes of length one besides the three in space are dropped.

    Raises:
      UserError: the file is damaged, its data lie in another file, nothing states which side is left, its axes are
        sheared, or it holds no single grey volume.
    """
    found = read_layers(path)
    if len(found.voxels) != 1:
        raise UserError(f"{path} holds {counted(len(found.voxels), 'volume')}; export a single one")
    return found.volume(0)


def read_layers(path: str | Path) -> Layers:
    """Return the layers of a `.nrrd` or `.seg.nrrd` file: of most the only one.

    Raises:
      UserError: as `read_nrrd`, but for several layers (an axis of the kind 'list').
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            fields = dict(nrrd.read_header(file))
            axes = _check(fields, path)
            values = nrrd.read_data(fields, file)
    except UserError:
        raise
    except Exception as error:  # damaged files raise whatever the library stumbles over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is no NRRD file, or a damaged one ({reason}); export it again") from error
    grid = _grid(fields, axes, path)
    layers = [axis for axis in range(values.ndim) if axis not in axes]
    voxels = values.transpose(*layers, *axes[::-1]).reshape(-1, *grid.voxels.shape)
    voxels = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("="))
    if not np.isfinite(voxels).all():
        raise UserError(f"{path} has values that are not finite; set them to air (-1000) or background (0)")
    return Layers(voxels, grid, fields)


def geometry_fields(volume: Volume) -> dict[str, Any]:
    """Return the header's fields of a volume whose voxels are written as `[X, Y, Z]`: reading them gives it back."""
    assert volume.direction is not None
    return {
        "space": "left-posterior-superior",
        "space directions": (volume.direction * np.array(volume.spacing_mm))[:, ::-1].T,
        "space origin": np.array(volume.origin_mm),
        "kinds": ["domain", "domain", "domain"],
    }


def _check(fields: dict[str, Any], path: Path) -> list[int]:
    """Return which of the file's axes lie in space, fastest first; refuse what is no volume before it is read."""
    if any(name in fields for name in DETACHED):
        raise UserError(f"{path} is a header only, its data lie in another file; export one .nrrd file")
    sizes, directions = [int(size) for size in fields["sizes"]], fields.get("space directions")
    shown = " x ".join(map(str, sizes))
    if fields["type"] == "block" or min(sizes) < 1:
        raise UserError(f"{path} holds {shown} values of type {fields['type']}; a grey volume is needed")
    if directions is None or fields.get("space", "").lower() not in TO_LPS:
        raise UserError(
            f"{path} has {'the space ' + repr(fields['space']) if 'space' in fields else 'no space'}"
            f"{'' if directions is not None else ' and no space directions'}: nothing states which side is left; "
            "export it in the patient's space (left-posterior-superior)"
        )
    if any(unit.lower() not in MILLIMETRES for unit in fields.get("space units", ())):
        raise UserError(f"{path} has space units of {', '.join(fields['space units'])}; export it again in mm")
    if len(directions) != len(sizes):
        raise UserError(f"{path} has {len(sizes)} axes and {len(directions)} space directions; export it again")
    axes = [axis for axis, vector in enumerate(directions) if vector is not None and not np.isnan(vector).all()]
    kinds = fields.get("kinds", [""] * len(sizes))
    strange = [
        axis for axis in range(len(sizes)) if axis not in axes and sizes[axis] > 1 and kinds[axis].lower() != LIST
    ]
    if len(axes) != 3 or strange:
        raise UserError(f"{path} has the shape {shown}, which is no volume of three axes; export it as a grey volume")
    if math.prod(sizes) > MOST_BYTES:
        raise UserError(f"{path} claims {shown} voxels, more than memory is kept for; crop it")
    return axes


def _grid(fields: dict[str, Any], axes: list[int], path: Path) -> Volume:
    signs = np.array(TO_LPS[fields["space"].lower()])
    origin = fields.get("space origin")
    if origin is None or len(origin) != 3:
        raise UserError(f"{path} has no space origin: nothing states where it lies in the patient; export it again")
    origin = signs * np.asarray(origin, np.float64)
    # Of the file's axes (x fastest) the last is a Volume's first.
    columns = signs[:, None] * np.stack([np.asarray(fields["space directions"][axis]) for axis in axes[::-1]], axis=1)
    check_axes(columns, origin, path)
    spacing = np.linalg.norm(columns, axis=0)
    return Volume(
        np.broadcast_to(np.int8(0), [int(fields["sizes"][axis]) for axis in axes[::-1]]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        columns / spacing,
    )
