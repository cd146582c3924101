"""What a DICOM object refers to: the patient, the study, and the images that a prediction was made on."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

from heartseg_jax.errors import UserError
from heartseg_jax.export.segments import quietly
from heartseg_jax.imaging.dicom.elements import Unreadable, Vector, text, vector
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.header import guarded, parse
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.volume import Frame
from heartseg_jax.inference.study import Prediction
from heartseg_jax.progress import say

CHARACTER_SET = "ISO_IR 192"
"""UTF-8: it holds any name, and plain ASCII is the same in it."""
KEPT = ("PatientName", "PatientID", "StudyInstanceUID", "StudyID", "AccessionNumber", "ReferringPhysicianName")
"""Kept as they stand, in whatever form: they say whose the object is, and where it is filed."""
CHECKED = (
    *("IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "StudyDate", "StudyTime", "StudyDescription"),
)
"""Left out where they are not as the standard has them."""
REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Type 2: there, but empty, where they are not known."""
OF_SLICES = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "NumberOfFrames", "ImagePositionPatient"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


class SourceFrame(NamedTuple):
    """One slice: its image, its frame's number in it (None for an image of a single frame), and where it lies.

    `position_mm` is its own ImagePositionPatient; an even stack's may differ from it by rounding.
    """

    sop_class: str
    uid: str
    number: int | None
    position_mm: Vector

    @property
    def image_reference(self) -> Dataset:
        """The reference to its image, as a new item; not to its frame."""
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = self.sop_class, self.uid
        return item

    @property
    def reference(self) -> Dataset:
        """The reference to it, as a new item: to its image, and to its frame of several."""
        item = self.image_reference
        if self.number is not None:
            item.ReferencedFrameNumber = self.number
        return item


class SourceSeries(NamedTuple):
    """The images of a prediction, in its frame order.

    Attributes:
      identity: the attributes of patient and study, for every object of the study; text in `CHARACTER_SET`.
      study_uid, series_uid, frame_of_reference_uid: UIDs.
      orientation: the directions of a row and of a column.
      spacing_mm: between rows, and between columns.
      lossy: LossyImageCompression, and with it its ratio and method.
      frames: one per slice.
    """

    identity: Dataset
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    orientation: Vector
    spacing_mm: Vector
    lossy: Dataset
    frames: tuple[SourceFrame, ...]

    @property
    def instances(self) -> dict[str, str]:
        """SOP class by SOP instance UID, each image once, in order."""
        return {frame.uid: frame.sop_class for frame in self.frames}


def source_series(prediction: Prediction) -> SourceSeries:
    """Return the images that a prediction of a DICOM study was made on. Raises UserError as `series_of`."""
    return series_of(prediction.intake)


def series_of(intake: Intake) -> SourceSeries:
    """Return the images of a DICOM study's chosen series.

    Raises:
      UserError: a file has changed since it was read, or lacks what a reference to it needs.
    """
    with quietly():
        return _read(intake.files, intake.volume.frames)


@functools.lru_cache(maxsize=1)  # the objects of one study are written one after another
def _read(files: tuple[Source, ...], wanted: tuple[Frame, ...]) -> SourceSeries:
    if not files or len(files) != len(wanted):
        raise ValueError(f"{len(files)} files for {len(wanted)} slices")
    if len(set(wanted)) < len(wanted) or "" in {frame.uid for frame in wanted}:
        raise UserError(
            "the images have no SOPInstanceUID, or share one, so that no DICOM object can refer to them; send the "
            "study again, or choose other outputs by --export"
        )
    first = _parsed(files[0])
    identity = _identity(first)
    series_uid = _stated(first, "SeriesInstanceUID")
    for name, value in (("StudyInstanceUID", identity.get("StudyInstanceUID")), ("SeriesInstanceUID", series_uid)):
        if not value:
            raise UserError(
                f"the images have no {name}, so that no DICOM object can be filed with them; send the study again, or "
                "choose other outputs by --export"
            )
    reference = _stated(first, "FrameOfReferenceUID")
    if not reference:
        # The same for every object on this series, so that they lie upon each other.
        reference = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, series_uid).int}"
        say(
            "the images state no FrameOfReferenceUID: the DICOM objects share one of their own, and a viewer may not "
            "show them on the images"
        )
    lossy = Dataset()
    for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        _copy(first, lossy, name, checked=True)
    orientation, spacing = _shared_geometry(first, wanted[0].number)
    frames: list[SourceFrame | None] = [None] * len(files)
    slices: dict[Source, list[int]] = {}
    for z, file in enumerate(files):
        slices.setdefault(file, []).append(z)
    for file, places in slices.items():
        for z, frame in zip(places, _frames(file, [wanted[z] for z in places]), strict=True):
            frames[z] = frame
    return SourceSeries(
        identity,
        str(identity.StudyInstanceUID),
        series_uid,
        reference,
        orientation,
        spacing,
        lossy,
        tuple(frame for frame in frames if frame),
    )


def _parsed(file: Source, tags: Sequence[str] | None = None) -> Dataset:
    try:
        with file.open() as stream:
            return parse(stream, stop_before_pixels=True, specific_tags=tags and [*tags])
    except (Unreadable, OSError) as error:
        raise UserError(f"{file.name} cannot be read any more ({error}); send the study again") from None


def _frames(file: Source, wanted: Sequence[Frame]) -> list[SourceFrame]:
    dataset = _parsed(file, OF_SLICES)
    uid, sop_class = _stated(dataset, "SOPInstanceUID"), _stated(dataset, "SOPClassUID")
    if {frame.uid for frame in wanted} != {uid} or not sop_class:
        raise UserError(f"{file.name} has changed since it was read, or has no SOPClassUID; send the study again")
    several = "PerFrameFunctionalGroupsSequence" in dataset or int(_stated(dataset, "NumberOfFrames") or 1) > 1
    found = []
    for frame in wanted:
        position = _vector(_groups(dataset, frame.number), "PlanePositionSequence", "ImagePositionPatient", 3)
        found.append(SourceFrame(sop_class, uid, frame.number if several else None, position))
    return found


def _shared_geometry(dataset: Dataset, number: int) -> tuple[Vector, Vector]:
    """Return the orientation and the pixel spacing: what reading made sure that all slices share."""
    groups = _groups(dataset, number)
    orientation = _vector(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    return orientation, _vector(groups, "PixelMeasuresSequence", "PixelSpacing", 2)


def _groups(dataset: Dataset, number: int) -> list[Dataset]:
    """Return what states a frame's geometry, the most particular first; `number` counts from 1."""
    own = guarded(lambda: dataset.get("PerFrameFunctionalGroupsSequence"))
    shared = guarded(lambda: dataset.get("SharedFunctionalGroupsSequence"))
    return [*([own[number - 1]] if own else []), *(shared or []), dataset]


def _vector(groups: Sequence[Dataset], sequence: str, name: str, length: int) -> Vector:
    for group in groups:
        inner = group.get(sequence)
        found = vector(inner[0] if inner else group, name, length)
        if found:
            return found
    raise UserError(f"the images do not state their {name} any more; send the study again")


def _stated(dataset: Dataset, name: str) -> str:
    return guarded(lambda: text(dataset, name)).strip(" \0")


def _identity(first: Dataset) -> Dataset:
    """Return the attributes of patient and study that a first image states."""
    identity = Dataset()
    for name in KEPT:
        _copy(first, identity, name, checked=False)
    for name in CHECKED:
        _copy(first, identity, name, checked=True)
    if identity.get("PatientSex") not in ("M", "F", "O"):
        identity.PatientSex = None
    if identity.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in identity:
        identity.DeidentificationMethod = "not stated by the images"  # type 1 there
    for name in REQUIRED:
        if name not in identity:
            setattr(identity, name, None)
    return identity


def _copy(source: Dataset, target: Dataset, name: str, *, checked: bool) -> None:
    """Copy an attribute, its text decoded; one that cannot be read, or is not as it must be, only if not `checked`."""
    try:
        value: Any = guarded(lambda: source.get(name))
        if value is None or value == "":
            return
        vr = dictionary_VR(name)
        value = str(value) if vr in ("PN", "LO", "SH", "CS", "DA", "TM", "AS") and isinstance(value, str) else value
        if vr == "PN":  # as components in the file's own character set it would be written in that
            value = str(value[0] if isinstance(value, MultiValue) else value).strip()
        if checked:
            for one in [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value:
                validate_value(vr, str(one), RAISE)
        setattr(target, name, value)
    except (Unreadable, ValueError):
        if not checked:
            raise UserError(f"the images' {name} cannot be read; send the study again") from None
