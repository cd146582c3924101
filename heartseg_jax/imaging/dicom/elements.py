"""Single values out of a parsed DICOM header. The parser itself is in `header`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from pydicom.tag import Tag

Vector = tuple[float, ...]
BINARY = ("FL", "FD", "SS", "US", "SL", "UL")
"""Value representations that are no text."""


class Unreadable(Exception):
    """A file that holds no usable image; the message says why, and names no patient."""


READ = """SOPClassUID Modality SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID PatientID Rows Columns
SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation NumberOfFrames ImageType
ContrastBolusAgent GantryDetectorTilt SliceThickness SpacingBetweenSlices PixelPaddingValue TransferSyntaxUID
DirectoryRecordSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence TemporalPositionIndex
TemporalPositionIdentifier TriggerTime NominalPercentageOfCardiacPhase ImagePositionPatient ImageOrientationPatient
PixelSpacing RescaleSlope RescaleIntercept RescaleType SeriesDescription CTImageFrameTypeSequence FrameType
ConcatenationUID InConcatenationNumber InConcatenationTotalNumber ModalityLUTSequence"""
TAGS: dict[str, Any] = {name: Tag(name) for name in READ.split()}
"""The elements that are read in every file, by name: looking the tags up each time takes a tenth of the reading."""


def item(dataset: Any, name: str) -> Any:
    """Return an element as it is in the file, or None where it is absent."""
    return dataset.get_item(TAGS.get(name, name))


def text(dataset: Any, name: str) -> str:
    """Return an element of plain text as it stands, '' where absent: pydicom's own conversion is slow."""
    element = item(dataset, name)
    if element is None:
        return ""
    value = element.value
    if isinstance(value, bytes):
        if element.VR not in BINARY:
            return value.decode("latin-1").strip(" \0")
        value = dataset.get(name)
    if isinstance(value, str) or value is None:
        return value or ""
    return "\\".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def vector(dataset: Any, name: str, length: int) -> Vector | None:
    """Return an element of `length` finite numbers, or None where it is absent; raise Unreadable for anything else."""
    value = text(dataset, name)
    if not value:
        return None
    try:
        numbers = tuple(float(part) for part in value.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != length or not all(map(math.isfinite, numbers)) or "_" in value:
        comma = ": it is written with a decimal comma" if re.search(r"\d,\d", value) else ""
        raise Unreadable(f"its {name} is not {'a number' if length == 1 else f'{length} numbers'}{comma}")
    return numbers


def number(dataset: Any, name: str) -> float | None:
    """Return an element of one finite number, or None where it is absent; raise Unreadable for anything else."""
    found = vector(dataset, name, 1)
    return found[0] if found else None


def whole(dataset: Any, name: str) -> int | None:
    """Return an element of VR US, one unsigned number of 16 bits, or None where it is absent or empty."""
    element = item(dataset, name)
    if element is None:
        return None
    value = element.value
    if isinstance(value, bytes) and len(value) == 2 and element.VR in (None, "US"):
        return int.from_bytes(value, "little" if element.is_little_endian else "big")
    value = dataset.get(name)
    return None if value is None or value == "" else int(value)
