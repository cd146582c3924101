"""3D Slicer's segmentations (`.seg.nrrd`), of all versions, and NRRD label maps -> labels on the grid of an image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted
from heartseg_jax.imaging.masks.label_maps import paint
from heartseg_jax.imaging.masks.segments import Segments, known_of, structure_of
from heartseg_jax.imaging.nrrd import Layers, read_layers
from heartseg_jax.imaging.placement import place
from heartseg_jax.imaging.volume import Volume

FIELD = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer|Tags)")
CODE = re.compile(r"Segmentation category and type[^~|]*~[^~|]*~SCT\^(\d+)\^")
"""The SNOMED CT code of a segment's type, in its tags."""
UNNAMED = re.compile(r"segment[ _-]?\d*", re.IGNORECASE)
"""What 3D Slicer calls a segment that nobody has named."""


class Segment(NamedTuple):
    """One segment: where it is, and what the file calls it."""

    layer: int
    value: int
    name: str
    code: str


def read_slicer_segments(
    path: Path, image: Volume, meanings: Mapping[str, int] | None = None
) -> tuple[Segments, list[Finding]] | None:
    """Return a `.seg.nrrd` on the grid of `image`, or None where the file describes no segments: a plain label map.

    A segment's structure is given by `meanings` (label value or name -> structure), else by its SNOMED CT code or its
    name; other segments are background. The file may cover a part of the image, as 3D Slicer crops what it saves.

    Raises:
      UserError: it is damaged, contradicts itself, lies on another grid, or no segment is a structure's.
    """
    layers = read_layers(path)
    segments = segments_of(layers, path)
    if not segments:
        return None
    values = [one.value for one in segments.values()]
    names = {
        # In several layers a value may occur again: then only the name says which is meant.
        number: structure_of(
            one.value if values.count(one.value) == 1 else one.name, one.name, one.code, meanings or {}, path.name
        )
        for number, one in segments.items()
    }
    known = known_of(names, path.name)
    placement = place(layers.grid, image, path)
    labels = np.zeros(image.voxels.shape, np.uint8)
    claimed_twice = np.zeros(labels.shape, bool)
    outside, empty = 0, set(known)
    for number, one in segments.items():
        if label := names[number]:
            inside = np.zeros(labels.shape, bool)
            outside += placement.onto(layers.voxels[one.layer] == one.value, inside)
            claimed_twice |= paint(labels, inside, label)
            empty -= {label} if inside.any() else set()
    if outside:
        raise UserError(
            f"{path} labels {counted(outside, 'voxel')} outside of its image: is it of another one? Draw it on this one"
        )
    labels[claimed_twice] = IGNORED
    found = []
    if unnamed := sum(names[k] is None and bool(UNNAMED.fullmatch(one.name)) for k, one in segments.items()):
        text = f"{counted(unnamed, 'segment')} without a name of its own: background"
        found.append(Finding(WARN, "unnamed_segments", text, fix="name each segment after its structure, or remove it"))
    if empty:
        text = f"{counted(len(empty), 'structure')} with a segment and no voxel: absent in this patient, not unknown"
        found.append(Finding(WARN, "empty_segments", text, fix="remove segments of structures that were not drawn"))
    strange = sum(label is None for label in names.values())
    return Segments(labels, known, strange, int(claimed_twice.sum())), found


def segments_of(layers: Layers, path: Path) -> dict[int, Segment]:
    """Return the segments that a header describes, by their numbers in it; none where it is a plain label map.

    Files of before 2020 state neither layers nor values: each segment is a layer of its own.

    Raises:
      UserError: the header contradicts itself or the voxels.
    """
    stated: dict[int, dict[str, str]] = {}
    for field, text in layers.fields.items():
        if match := FIELD.fullmatch(field):
            stated.setdefault(int(match[1]), {})[match[2]] = str(text)
    segments: dict[int, Segment] = {}
    for place_in_file, (number, own) in enumerate(sorted(stated.items())):
        by_layer = "Layer" not in own and "LabelValue" not in own
        if by_layer and len(stated) != len(layers.voxels):
            raise UserError(
                f"{path} describes {counted(len(stated), 'segment')} and holds {counted(len(layers.voxels), 'layer')}, "
                "and does not state which is which; save it again with a current 3D Slicer"
            )
        layer, value = place_in_file if by_layer else own.get("Layer", "0"), own.get("LabelValue", "1")
        try:
            one = Segment(int(layer), int(value), own.get("Name", ""), _code(own.get("Tags", "")))
        except ValueError:
            raise UserError(f"{path} has a segment whose layer or label value is no number; save it again") from None
        if not 0 <= one.layer < len(layers.voxels) or one.value == 0:
            raise UserError(
                f"{path} has a segment of the value {one.value} in layer {one.layer}, and {len(layers.voxels)} layers; "
                "save it again"
            )
        segments[number] = one
    if segments:
        _check_described(layers, segments, path)
    return segments


def _check_described(layers: Layers, segments: Mapping[int, Segment], path: Path) -> None:
    """Refuse two segments of one value, and values that no segment describes."""
    described = [(one.layer, one.value) for one in segments.values()]
    if len(set(described)) < len(described):
        raise UserError(f"{path} has two segments of one layer and label value; save it again")
    for layer, voxels in enumerate(layers.voxels):
        strange = [value for value in np.unique(voxels) if value != 0 and (layer, value) not in described]
        if strange:
            shown = ", ".join(f"{value:g}" for value in strange[:8])
            raise UserError(f"{path} has values that none of its segments describes: {shown}; save it again")


def _code(tags: str) -> str:
    match = CODE.search(tags)
    return match[1] if match else ""
