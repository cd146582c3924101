"""NRRD files into Volumes, with the geometry exact. The only module that knows pynrrd."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import nrrd
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import writing
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
LAYERED = ("list", "vector")
"""Kinds of an axis along which 3D Slicer, by its version, keeps the layers of segments that overlap."""
PACKED: dict[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}
SKIPS = ("byteskip", "byte skip", "lineskip", "line skip")
MOST_HEADER_BYTES = 2**20
"""Of a header: hundreds of segments need a tenth of it."""


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
    with _reading(path) as file:
        fields = _fields(file)
        axes = _check(fields, path)
        values = _values(fields, file)
    grid = _grid(fields, axes, path)
    layers = [axis for axis in range(values.ndim) if axis not in axes]
    voxels = values.transpose(*layers, *axes[::-1]).reshape(-1, *grid.voxels.shape)
    voxels = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("="))
    if not np.isfinite(voxels).all():
        raise UserError(f"{path} has values that are not finite; set them to air (-1000) or background (0)")
    return Layers(voxels, grid, fields)


def read_grid(path: str | Path) -> Volume:
    """Return the volume of a file with its geometry and zeros for voxels: only the header is read.

    Raises:
      UserError: as `read_layers`, for what the header says.
    """
    path = Path(path)
    with _reading(path) as file:
        fields = _fields(file)
        return _grid(fields, _check(fields, path), path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file; turn whatever the library stumbles over in a damaged one into a UserError."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are refused here
            yield file
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is no NRRD file, or a damaged one ({reason}); export it again") from error


def _fields(file: BinaryIO) -> dict[str, Any]:
    """Return the header's fields, names of segments in UTF-8; `file` is then where its data begin."""
    lines: list[str] = []
    while file.tell() < MOST_HEADER_BYTES:
        line = file.readline(MOST_HEADER_BYTES)
        if not line.startswith(b"NRRD") and not lines:
            raise ValueError("it does not begin with NRRD")
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            # As text: from bytes the library would drop what is not ASCII.
            return dict(nrrd.read_header(lines))
        lines.append(text)
    raise ValueError("its header has no end")


def _values(fields: dict[str, Any], file: BinaryIO) -> np.ndarray:
    """Return the data as the library orders them; no more is unpacked than the header says there is."""
    opener = PACKED.get(fields["encoding"])
    if opener is None or any(fields.get(name) for name in SKIPS):
        found: np.ndarray = nrrd.read_data(fields, file)
        return found
    stated = math.prod(map(int, fields["sizes"])) * _item_bytes(fields["type"])
    with opener(file, "rb") as packed:
        data = packed.read(stated + 1)
    if len(data) != stated:
        raise ValueError(f"{'more' if len(data) > stated else 'less'} than the {stated} bytes that it states")
    return nrrd.read_data({**fields, "encoding": "raw"}, io.BytesIO(data))


def _item_bytes(kind: str) -> int:
    """Return the bytes of a value by the header's `type`, such as 'unsigned short' or 'uint16'."""
    widths = {8: ("64", "long long", "double"), 2: ("16", "short"), 1: ("8", "char")}
    return next((width for width, words in widths.items() if any(word in kind for word in words)), 4)


def write_nrrd(volume: Volume, path: str | Path, fields: Mapping[str, str] | None = None) -> None:
    """Write a volume of any type, packed; reading it gives the same voxels and geometry. It appears whole.

    `fields` are more of the header's, such as a segmentation's; no value has a line break.
    """
    header = {"encoding": "gzip", **geometry_fields(volume), **(fields or {})}
    with writing(path) as partial:
        nrrd.write(str(partial), volume.voxels.transpose(2, 1, 0), header, index_order="F", compression_level=6)


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
        axis
        for axis in range(len(sizes))
        if axis not in axes and sizes[axis] > 1 and kinds[axis].lower() not in LAYERED
    ]
    if len(axes) != 3 or strange:
        raise UserError(f"{path} has the shape {shown}, which is no volume of three axes; export it as a grey volume")
    if math.prod(sizes) * _item_bytes(fields["type"]) > MOST_BYTES:
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
