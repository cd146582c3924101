"""The masks of a DICOM study -> labels on its grid: colour PNGs named by slice, a label file, or a segmentation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.sources.listing import PICTURES, list_files, natural_key, not_read
from heartseg_jax.data.sources.patient_table import read_rows
from heartseg_jax.data.sources.volumes import other_anatomy, overlapping, read_label_file
from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, WARN, Finding
from heartseg_jax.imaging.dicom.geometry import FrameRef, SliceStack
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.dicom.rtstruct import read_structure_set
from heartseg_jax.imaging.dicom.segmentation import read_segmentation
from heartseg_jax.imaging.dicom.series import SeriesCandidate
from heartseg_jax.imaging.masks import label_maps
from heartseg_jax.imaging.masks import palette as colour_masks
from heartseg_jax.imaging.orientation import AxisReorder
from heartseg_jax.imaging.pictures import picture_header, turned_otherwise
from heartseg_jax.imaging.volume import Volume

TABLE = "instances.csv"
COLUMNS = ("file", "series_uid", "instance_uid", "frame", "position_mm")
"""First row of an exported table, which leads from each picture back to its instance."""
BESIDE = (".csv", ".json", ".txt", ".md", ".pdf")
"""Tables and notes, which may lie beside studies and masks."""


class Reading(NamedTuple):
    """How masks are read: another palette, names of values, and what to do about damaged colours."""

    colours: dict[colour_masks.Colour, int] | None = None
    label_map: dict[str, int] | None = None
    repair: bool = False
    max_off_palette: float = 0.0


class Masks(NamedTuple):
    """Labels, patient-axial (`label_maps.AORTA` among them), their `merge`, and the annotated slices (None: all)."""

    labels: np.ndarray
    merge: tuple[int, ...]
    annotated: np.ndarray | None = None
    found: tuple[Finding, ...] = ()


def from_segmentation(header: Header, block: SliceStack, turn: AxisReorder, how: Reading) -> Masks:
    """Return the labels of a DICOM segmentation. Raises UserError as `read_segmentation`."""
    read = read_segmentation(header, block, how.label_map)
    found = (*overlapping(read.overlapping), *other_anatomy(read.strange))
    return Masks(turn.forth(read.labels), label_maps.merge_for(read.known), found=found)


def from_structure_set(header: Header, block: SliceStack, turn: AxisReorder, how: Reading) -> Masks:
    """Return the labels of an RT structure set. Raises UserError as `read_structure_set`."""
    read, seen = read_structure_set(header, block, how.label_map)
    found = (*seen, *overlapping(read.overlapping), *other_anatomy(read.strange))
    return Masks(turn.forth(read.labels), label_maps.merge_for(read.known), found=found)


def from_label_file(path: Path, volume: Volume, how: Reading) -> Masks:
    """Return the labels of a NIfTI, NRRD or `.seg.nrrd` on the grid of `volume`, which is patient-axial.

    Raises:
      UserError: as `read_label_file`.
    """
    labels, merge, found = read_label_file(path, volume, how.label_map)
    return Masks(labels, merge, found=found)


class Row(NamedTuple):
    """A picture's row in an exported table."""

    series_uid: str
    instance_uid: str
    frame: int
    position: str


class Pictures(NamedTuple):
    """A folder of colour PNGs: the pictures, their rows in an exported table by stem, and what was not read."""

    folder: Path
    paths: tuple[Path, ...]
    table: dict[str, Row]
    not_read: tuple[str, ...] = ()

    def of_series(self, uid: str) -> Pictures:
        """Return the pictures of one series, by the table: an export may hold many studies."""
        own = tuple(path for path in self.paths if path.stem in self.table and self.table[path.stem].series_uid == uid)
        return self._replace(paths=own)


def pictures_in(folder: Path) -> Pictures:
    """Return the pictures of a folder in natural order, with the table that lies in it or above it.

    Raises:
      UserError: it holds none, or the table is damaged.
    """
    listed = list_files(folder, PICTURES, beside=BESIDE)
    if not listed.files:
        raise UserError("; ".join([f"{folder} holds no mask", *not_read(listed)]))
    paths = sorted(listed.files, key=lambda path: natural_key(path.name))
    return Pictures(folder, tuple(paths), _table(folder), tuple(not_read(listed)))


def from_pictures(
    pictures: Pictures, series: SeriesCandidate, elsewhere: Collection[str], turn: AxisReorder, how: Reading
) -> Masks:
    """Return the labels of colour PNGs, each named by its slice of `series`.

    A picture is named like its slice's file, by the SOPInstanceUID, or as an exported table says; those that the table
    assigns to another series are not read. Slices without a picture are not annotated. Bare numbers are refused: it is
    not known from which end they count. So are names in `elsewhere`: files of the study's other series.

    Raises:
      UserError: a picture is of no slice or another size, two are of one slice, or colours have no meaning.
    """
    assert series.stack is not None
    members = series.stack.frames
    slices = _slices_of(pictures, members, elsewhere)
    size = (members[0].header.rows, members[0].header.columns)
    labels = np.zeros((len(members), *size), np.uint8)
    audits, off, turned = [], 0, 0
    for path, z in slices.items():
        turned += picture_header(path)[1] != 1
        mask = colour_masks.read_mask(path, how.colours)
        if (got := mask.labels.shape) != size:
            raise UserError(f"{path} is {got[0]} x {got[1]} pixels, its slice {size[0]} x {size[1]}")
        audits.append(colour_masks.audit(path.name, mask))
        labels[z] = colour_masks.repair_mask(path.name, mask, how.colours) if how.repair else mask.labels
        off += int(mask.off.sum())
    if not how.repair:
        colour_masks.check_audits(audits, how.max_off_palette, how.colours)
    found = [Finding(WARN, "not_read", text) for text in pictures.not_read]
    found += [Finding(WARN, "exif_orientation", text) for text in turned_otherwise(turned)]
    if off:
        done = "were repaired" if how.repair else "have no meaning and are ignored (255)"
        text = f"{off} mask pixels off the palette {done}"
        found.append(Finding(WARN, "off_palette", text, fix="export exact colours"))
    annotated = np.zeros(len(labels), bool)
    annotated[list(slices.values())] = True
    if not annotated.all():
        text = f"{int(annotated.sum())} of {len(annotated)} slices have a mask, and only these are in the dataset"
        found.append(Finding(NOTE, "slices_without_mask", text))
    merge = HEART.all_known if how.colours is None else label_maps.merge_for(set(how.colours.values()))
    if not annotated.all() and turn.axes[0] != 0:
        raise UserError(
            f"{pictures.folder} has masks of only some slices, and these are not axial: give one for every slice"
        )
    axial = None if annotated.all() else annotated[:: -1 if turn.flipped[0] else 1]
    return Masks(turn.forth(labels), merge, axial, tuple(found))


def _slices_of(pictures: Pictures, members: Sequence[FrameRef], elsewhere: Collection[str]) -> dict[Path, int]:
    """Return the number of the slice that each picture shows."""
    series_uid = members[0].header.series_uid
    by_instance: dict[tuple[str, int], int | None] = {}  # None where two slices have the key
    by_position = {position_of(member): number for number, member in enumerate(members)}
    by_name: dict[str, int | None] = {}
    for number, member in enumerate(members):
        key = (member.header.instance_uid, member.number + 1)
        by_instance[key] = None if key in by_instance else number
        if len(member.header.frames) == 1:
            for name in names_of(member):
                by_name[name] = None if name in by_name or name in elsewhere else number
    found: dict[Path, int] = {}
    for path in pictures.paths:
        row = pictures.table.get(path.stem)
        if row and row.series_uid != series_uid:
            continue
        z = by_instance.get((row.instance_uid, row.frame)) if row else by_name.get(path.stem)
        if z is None and row and (row.instance_uid, row.frame) in by_instance:
            z = by_position.get(row.position)  # instances without a UID of their own, as some anonymisers leave them
        if z is None:
            what = "may be of several slices" if path.stem in by_name or row else "is of no slice that is read"
            raise UserError(
                f"{path} {what}: name masks like the slices' files, by SOPInstanceUID, or as "
                f"--export_png named the pictures, with its {TABLE} beside them"
            )
        if z in found.values():
            raise UserError(f"{path} is the second mask of one slice: remove one")
        found[path] = z
    if not found:
        raise UserError(f"no mask in {pictures.folder} is of a slice of this study: annotate some, or remove the study")
    return found


def position_of(member: FrameRef) -> str:
    """Return where a frame lies, as an exported table states it: x, y, z in mm."""
    return " ".join(f"{mm:.4f}" for mm in member.geometry.position_mm or ())


def names_of(member: FrameRef) -> set[str]:
    """Return the names that a picture of a slice may have, without suffix."""
    file = Path(member.header.source.name).name
    return {file, Path(file).stem, member.header.instance_uid} - {""}


def _table(folder: Path) -> dict[str, Row]:
    """Return {stem of a picture: its row} of the exported table, in the folder or above it."""
    above = (folder, *list(folder.absolute().parents)[:2])
    place = next((at / TABLE for at in above if (at / TABLE).is_file()), None)
    if place is None:
        return {}
    head, *rows = read_rows(place) or [[]]
    table: dict[str, Row] = {}
    try:
        for row in rows:
            cells = dict(zip(head, row, strict=False))
            uids, position = (cells["series_uid"], cells["instance_uid"]), cells["position_mm"]
            name, own = Path(cells["file"]).stem, Row(*uids, int(cells["frame"]), position)
            if table.setdefault(name, own) != own:
                raise UserError(f"{place} has two rows for {name}; export the pictures again")
    except (ValueError, KeyError) as error:
        raise UserError(f"{place} is not an exported table, or is damaged; export the pictures again") from error
    return table
