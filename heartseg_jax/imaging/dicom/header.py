"""One DICOM file: its header as plain values, and where its stored values lie.

What names a patient is read in `patient`, and nowhere else.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pydicom
from pydicom.errors import InvalidDicomError

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.directory import Directory, directory_of
from heartseg_jax.imaging.dicom.elements import Unreadable, Vector, item, number, text, vector, whole
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.marks import marks_of

# Odd values are judged here, and threads decode: the filter is set once, only for pydicom.
warnings.filterwarnings("ignore", module=r"pydicom\b")

T = TypeVar("T")
EMPTY = pydicom.Dataset()
NATIVE = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)
MOST_FRAMES = 10_000
"""Of one file; the largest cardiac studies, of all phases, have half as many."""


class FrameGeometry(NamedTuple):
    """Where one frame lies, and how its values become HU. What the file does not state is None.

    `position_mm` is (x, y, z) in DICOM's LPS; `orientation` the directions of a row and of a column; `spacing_mm`
    (between rows, between columns); `phase` what distinguishes frames of one position in several heart phases; `marks`
    those of `marks_of` that are the frame's own.
    """

    position_mm: Vector | None
    orientation: Vector | None
    spacing_mm: Vector | None
    slope: float | None
    intercept: float | None
    phase: str
    marks: frozenset[tuple[str, str]]


class Plain(NamedTuple):
    """Where uncompressed little-endian pixels lie in their file, and how: no parser is needed for them.

    A value's bits lie `shift` bits above the lowest one; `unused` bits of each word hold something else.
    """

    offset: int
    dtype: str
    unused: int
    shift: int


class Header(NamedTuple):
    """What a file says of itself, without its pixels.

    `concatenation` is the UID of an object in several files, this file's number in it (from 1) and how many there are
    (0 where it does not say).
    """

    source: Source
    sop_class: str
    modality: str
    series_uid: str
    instance_uid: str
    frame_of_reference: str
    person: bytes
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    transfer_syntax: str
    syntax_is_guessed: bool
    image_type: tuple[str, ...]
    marks: frozenset[tuple[str, str]]
    concatenation: tuple[str, int, int] | None
    contrast_agent: bool | None
    tilt_degrees: float
    thickness_mm: float | None
    between_mm: float | None
    padding: tuple[int, int] | None
    has_lut: bool
    has_pixels: bool
    plain: Plain | None
    frames: tuple[FrameGeometry, ...]

    @property
    def syntax_name(self) -> str:
        """The transfer syntax in words."""
        return pydicom.uid.UID(self.transfer_syntax).name


def read_header(source: Source) -> Header | Directory | None:
    """Return a file's header, what a DICOMDIR lists, or None where it is no DICOM file (a picture, a text).

    Raises:
      Unreadable: it is one, and broken.
    """
    with source.open() as file:
        start = file.read(140)
        if not start.strip(b"\0"):
            raise Unreadable("it is empty")
        if start[128:132] != b"DICM" and start[:2] not in (b"\x08\x00", b"\x02\x00", b"\x00\x08"):
            return None
        file.seek(0)
        dataset = parse(file, stop_before_pixels=True)
        if guarded(lambda: item(dataset, "DirectoryRecordSequence")) is not None:
            return guarded(lambda: directory_of(dataset))
        syntax = guarded(lambda: text(getattr(dataset, "file_meta", EMPTY), "TransferSyntaxUID"))
        # The parser stops at the pixels' tag, whether pixels follow or not. A deflated file is unpacked whole.
        if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
            file.seek(0)
            has_pixels, plain, guessed = "PixelData" in parse(file), None, False
        else:
            offset = file.tell()
            head = file.read(12)
            has_pixels, guessed = head != b"", not syntax
            syntax = syntax or _guess(dataset, head)
            plain = guarded(lambda: _plain(dataset, syntax, offset, head))
    return guarded(lambda: _header(source, dataset, syntax, has_pixels, plain, guessed))


def _plain(dataset: pydicom.Dataset, syntax: str, offset: int, head: bytes) -> Plain | None:
    """Return where the pixels lie, `head` being what stands at the pixels' tag; None where a decoder must look."""
    if syntax not in NATIVE or head[:4] != b"\xe0\x7f\x10\x00" or (whole(dataset, "SamplesPerPixel") or 1) != 1:
        return None
    allocated, stored = whole(dataset, "BitsAllocated") or 0, whole(dataset, "BitsStored") or 0
    high = whole(dataset, "HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16) or not 0 < stored <= high + 1 <= allocated:
        return None
    explicit = syntax != pydicom.uid.ImplicitVRLittleEndian
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    frames = int(number(dataset, "NumberOfFrames") or 1)
    expected = frames * (whole(dataset, "Rows") or 0) * (whole(dataset, "Columns") or 0) * allocated // 8
    if length not in (expected, expected + expected % 2):
        return None
    sign = "i" if whole(dataset, "PixelRepresentation") else "u"
    return Plain(offset + (12 if explicit else 8), f"<{sign}{allocated // 8}", allocated - stored, high + 1 - stored)


def _guess(dataset: pydicom.Dataset, head: bytes) -> str:
    """Return the transfer syntax that the parser has found the header in, '' where the pixels are compressed."""
    is_implicit, is_little_endian = dataset.original_encoding
    if (head[4:8] if is_implicit else head[8:12]) == b"\xff\xff\xff\xff":
        return ""
    if is_implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if is_little_endian else pydicom.uid.ExplicitVRBigEndian


def parse(file: Any, **how: Any) -> pydicom.Dataset:
    """Return a file's elements; `how` is for `pydicom.dcmread`. Raises Unreadable where it is none, or broken."""
    try:
        return pydicom.dcmread(file, force=True, **how)
    except InvalidDicomError as error:
        raise Unreadable("it is not a DICOM file") from error
    except Exception as error:  # a damaged file can break the parser at any point
        raise Unreadable(f"its header cannot be read ({_short(error)})") from error


def guarded(work: Callable[[], T]) -> T:
    """Do what reads values out of a parsed file: damaged ones raise when they are read."""
    try:
        return work()
    except (Unreadable, UserError):
        raise
    except MemoryError as error:
        raise Unreadable("it asks for more memory than there is") from error
    except Exception as error:
        raise Unreadable(f"a value in its header cannot be read ({_short(error)})") from error


def read_from(source: Source, work: Callable[[pydicom.Dataset], T]) -> T:
    """Return what `work` reads out of a file's header. Raises Unreadable where the file is broken."""
    with source.open() as file:
        dataset = parse(file, stop_before_pixels=True)
    return guarded(lambda: work(dataset))


def _short(error: BaseException) -> str:
    """Return only an error's kind: its text may quote a value, and a value may be a name."""
    return type(error).__name__


def _header(
    source: Source, dataset: pydicom.Dataset, syntax: str, has_pixels: bool, plain: Plain | None, guessed: bool
) -> Header:
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if not 1 <= frames <= MOST_FRAMES:
        raise Unreadable(f"it claims {frames} frames")
    padding = limit = None
    stored, high_bit = whole(dataset, "BitsStored") or 0, whole(dataset, "HighBit")
    kind = text(dataset, "ImageType")
    if item(dataset, "PixelPaddingValue") is not None:
        padding = dataset.get("PixelPaddingValue")
        limit = dataset.get("PixelPaddingRangeLimit", padding)
    return Header(
        source=source,
        sop_class=text(dataset, "SOPClassUID"),
        modality=text(dataset, "Modality").upper(),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        # Two patients in one series must be noticed; who they are must not be kept.
        person=hashlib.sha256(who.encode()).digest() if (who := text(dataset, "PatientID")) else b"",
        rows=whole(dataset, "Rows") or 0,
        columns=whole(dataset, "Columns") or 0,
        samples=whole(dataset, "SamplesPerPixel") or 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        bits_allocated=whole(dataset, "BitsAllocated") or 0,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        transfer_syntax=syntax,
        syntax_is_guessed=guessed,
        image_type=tuple(word.strip().upper() for word in kind.split("\\")),
        marks=marks_of(f"{kind} {text(dataset, 'SeriesDescription')}"),
        concatenation=_concatenation(dataset),
        contrast_agent=bool(text(dataset, "ContrastBolusAgent")) if "ContrastBolusAgent" in dataset else None,
        tilt_degrees=number(dataset, "GantryDetectorTilt") or 0.0,
        thickness_mm=number(dataset, "SliceThickness"),
        between_mm=number(dataset, "SpacingBetweenSlices"),
        padding=None if padding is None or limit is None else (min(int(padding), int(limit)), max(padding, limit)),
        has_lut=item(dataset, "ModalityLUTSequence") is not None and bool(dataset.get("ModalityLUTSequence")),
        has_pixels=has_pixels,
        plain=plain,
        frames=_geometries(dataset, frames),
    )


def _concatenation(dataset: pydicom.Dataset) -> tuple[str, int, int] | None:
    uid = text(dataset, "ConcatenationUID")
    if not uid:
        return None
    return uid, whole(dataset, "InConcatenationNumber") or 0, whole(dataset, "InConcatenationTotalNumber") or 0


def _geometries(dataset: pydicom.Dataset, frames: int) -> tuple[FrameGeometry, ...]:
    shared, each = (
        dataset.get(name) if item(dataset, name) is not None else None
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    )
    if each and len(each) != frames:
        raise Unreadable(f"it has {frames} frames and positions of {len(each)}")
    groups = (shared[0],) if shared else ()
    if not each:
        return (_geometry(dataset, groups),) * frames
    return tuple(_geometry(dataset, (own, *groups)) for own in each)


def _geometry(dataset: pydicom.Dataset, groups: tuple[pydicom.Dataset, ...]) -> FrameGeometry:
    """Return a frame's geometry: from the functional groups, its own first, else from the file itself."""

    def group(name: str) -> pydicom.Dataset:
        for one in groups:
            if name in one and one[name].value:
                return one[name][0]
        return dataset

    rescale = group("PixelValueTransformationSequence")
    index = _stated(group("FrameContentSequence"), "TemporalPositionIndex")
    phase = [
        index or _stated(dataset, "TemporalPositionIdentifier"),
        _stated(group("CardiacSynchronizationSequence"), "NominalPercentageOfCardiacPhase"),
        _stated(dataset, "TriggerTime"),
    ]
    return FrameGeometry(
        position_mm=vector(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing_mm=vector(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        slope=number(rescale, "RescaleSlope"),
        intercept=number(rescale, "RescaleIntercept"),
        phase="/".join(phase).strip("/"),
        marks=marks_of(f"{text(group('CTImageFrameTypeSequence'), 'FrameType')}\\{text(rescale, 'RescaleType')}"),
    )


def _stated(dataset: pydicom.Dataset, name: str) -> str:
    """Return an element's value as text, '' where it is absent, which is seen without converting anything."""
    if item(dataset, name) is None:
        return ""
    value = dataset.get(name)
    return "" if value is None else str(value)
