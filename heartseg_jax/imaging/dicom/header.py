"""One DICOM file: its header as plain values, its stored values. The only module of imaging that knows pydicom.

What names a patient is read in `dicom_words`, and nowhere else.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from heartseg_jax.imaging.dicom.elements import TAGS, Unreadable, Vector, item, number, text, vector, whole
from heartseg_jax.imaging.dicom.files import Source

# Odd values are ours to judge, and threads decode: the filter is set once, for pydicom alone.
warnings.filterwarnings("ignore", module=r"pydicom\b")

T = TypeVar("T")
EMPTY = pydicom.Dataset()
READ = """SOPClassUID Modality SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID PatientID Rows Columns
SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation NumberOfFrames ImageType
ContrastBolusAgent GantryDetectorTilt SliceThickness SpacingBetweenSlices PixelPaddingValue TransferSyntaxUID
DirectoryRecordSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence TemporalPositionIndex
TemporalPositionIdentifier TriggerTime NominalPercentageOfCardiacPhase ImagePositionPatient ImageOrientationPatient
PixelSpacing RescaleSlope RescaleIntercept"""
"""What is looked at in every file."""
TAGS.update((name, Tag(name)) for name in READ.split())
NATIVE = (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)
MOST_FRAMES = 10_000
"""Of one file; the largest cardiac studies, of all phases, have half as many."""
PLUGINS = {
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.53": "none that is known",
    "1.2.840.10008.1.2.4.55": "none that is known",
}
"""What would decode a transfer syntax that the required plugins do not (all others: python-gdcm)."""


class Place(NamedTuple):
    """Where one frame lies, and how its values become HU. What the file does not tell is None.

    `position_mm` is (x, y, z) in DICOM's LPS; `orientation` the directions of a row and of a column; `spacing_mm`
    (between rows, between columns); `phase` what tells apart the frames of one place in several heart phases.
    """

    position_mm: Vector | None
    orientation: Vector | None
    spacing_mm: Vector | None
    slope: float | None
    intercept: float | None
    phase: str


class Plain(NamedTuple):
    """Where uncompressed little-endian pixels lie in their file, and how: no parser is needed for them."""

    offset: int
    dtype: str
    unused_bits: int


class Header(NamedTuple):
    """What a file says of itself, without its pixels."""

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
    transfer_syntax: str
    syntax_name: str
    image_type: tuple[str, ...]
    contrast_agent: bool | None
    tilt_degrees: float
    thickness_mm: float | None
    between_mm: float | None
    padding: tuple[int, int] | None
    has_pixels: bool
    plain: Plain | None
    places: tuple[Place, ...]


def read_header(source: Source) -> Header | None:
    """Return a file's header, or None where it is no DICOM file (a picture, a text, a DICOMDIR).

    Raises:
      Unreadable: it is one, and broken.
    """
    with source.open() as file:
        start = file.read(140)
        if start[128:132] != b"DICM" and start[:2] not in (b"\x08\x00", b"\x02\x00", b"\x00\x08"):
            return None
        file.seek(0)
        dataset = parse(file, stop_before_pixels=True)
        if item(dataset, "DirectoryRecordSequence") is not None:
            return None
        syntax = guarded(lambda: text(getattr(dataset, "file_meta", EMPTY), "TransferSyntaxUID"))
        # The parser stops at the pixels' tag: what follows there, follows or not. A deflated file is unpacked whole.
        if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
            file.seek(0)
            has_pixels, plain = "PixelData" in parse(file), None
        else:
            offset = file.tell()
            head = file.read(12)
            has_pixels = head != b""
            plain = guarded(lambda: _plain(dataset, syntax, offset, head))
    return guarded(lambda: _header(source, dataset, syntax, has_pixels, plain))


def _plain(dataset: pydicom.Dataset, syntax: str, offset: int, head: bytes) -> Plain | None:
    """Return where the pixels lie, `head` being what stands at the pixels' tag; None where a decoder must look."""
    if syntax not in NATIVE or head[:4] != b"\xe0\x7f\x10\x00" or item(dataset, "NumberOfFrames") is not None:
        return None
    allocated, stored = whole(dataset, "BitsAllocated") or 0, whole(dataset, "BitsStored") or 0
    if allocated not in (8, 16) or not 0 < stored <= allocated or whole(dataset, "HighBit") != stored - 1:
        return None
    explicit = syntax != pydicom.uid.ImplicitVRLittleEndian
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    expected = (whole(dataset, "Rows") or 0) * (whole(dataset, "Columns") or 0) * allocated // 8
    if length not in (expected, expected + expected % 2):
        return None
    sign = "i" if whole(dataset, "PixelRepresentation") else "u"
    return Plain(offset + (12 if explicit else 8), f"<{sign}{allocated // 8}", allocated - stored)


def parse(file: Any, **how: Any) -> pydicom.Dataset:
    """Return a file's elements; `how` is for `pydicom.dcmread`. Raises Unreadable for one that is none, or broken."""
    try:
        return pydicom.dcmread(file, force=True, **how)
    except InvalidDicomError as error:
        raise Unreadable("it is not a DICOM file") from error
    except Exception as error:  # a damaged file can break the parser at any point
        raise Unreadable(f"its header cannot be read ({_short(error)})") from error


def guarded(work: Callable[[], T]) -> T:
    """Do what reads values out of a parsed file: damaged ones raise at the moment they are looked at."""
    try:
        return work()
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("it asks for more memory than there is") from error
    except Exception as error:
        raise Unreadable(f"a value in its header cannot be read ({_short(error)})") from error


def _short(error: BaseException) -> str:
    """Return an error's kind alone: its text may quote a value, and a value may be a name."""
    return type(error).__name__


def _header(source: Source, dataset: pydicom.Dataset, syntax: str, has_pixels: bool, plain: Plain | None) -> Header:
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if not 1 <= frames <= MOST_FRAMES:
        raise Unreadable(f"it claims {frames} frames")
    padding = limit = None
    if item(dataset, "PixelPaddingValue") is not None:
        padding = dataset.get("PixelPaddingValue")
        limit = dataset.get("PixelPaddingRangeLimit", padding)
    return Header(
        source=source,
        sop_class=text(dataset, "SOPClassUID"),
        modality=text(dataset, "Modality"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        # Two patients in one series must be noticed; who they are must not be kept.
        person=hashlib.sha256(who.encode()).digest() if (who := text(dataset, "PatientID")) else b"",
        rows=whole(dataset, "Rows") or 0,
        columns=whole(dataset, "Columns") or 0,
        samples=whole(dataset, "SamplesPerPixel") or 1,
        photometric=text(dataset, "PhotometricInterpretation"),
        bits_allocated=whole(dataset, "BitsAllocated") or 0,
        transfer_syntax=syntax,
        syntax_name=_syntax_name(syntax),
        image_type=tuple(word.strip().upper() for word in text(dataset, "ImageType").split("\\")),
        contrast_agent=bool(text(dataset, "ContrastBolusAgent")) if "ContrastBolusAgent" in dataset else None,
        tilt_degrees=number(dataset, "GantryDetectorTilt") or 0.0,
        thickness_mm=number(dataset, "SliceThickness"),
        between_mm=number(dataset, "SpacingBetweenSlices"),
        padding=None if padding is None or limit is None else (min(int(padding), int(limit)), max(padding, limit)),
        has_pixels=has_pixels,
        plain=plain,
        places=_places(dataset, frames),
    )


@functools.cache
def _syntax_name(syntax: str) -> str:
    return pydicom.uid.UID(syntax).name if syntax else ""


def _places(dataset: pydicom.Dataset, frames: int) -> tuple[Place, ...]:
    shared, each = (
        dataset.get(name) if item(dataset, name) is not None else None
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    )
    if each and len(each) != frames:
        raise Unreadable(f"it has {frames} frames and places of {len(each)}")
    groups = (shared[0],) if shared else ()
    if not each:
        return (_place(dataset, groups),) * frames
    return tuple(_place(dataset, (own, *groups)) for own in each)


def _place(dataset: pydicom.Dataset, groups: tuple[pydicom.Dataset, ...]) -> Place:
    """Return a frame's place: from the functional groups, its own first, else from the file itself."""

    def group(name: str) -> pydicom.Dataset:
        for one in groups:
            if name in one and one[name].value:
                return one[name][0]
        return dataset

    rescale = group("PixelValueTransformationSequence")
    index = _told(group("FrameContentSequence"), "TemporalPositionIndex")
    phase = [
        index or _told(dataset, "TemporalPositionIdentifier"),
        _told(group("CardiacSynchronizationSequence"), "NominalPercentageOfCardiacPhase"),
        _told(dataset, "TriggerTime"),
    ]
    return Place(
        position_mm=vector(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing_mm=vector(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        slope=number(rescale, "RescaleSlope"),
        intercept=number(rescale, "RescaleIntercept"),
        phase="/".join(phase).strip("/"),
    )


def _told(dataset: pydicom.Dataset, name: str) -> str:
    """Return an element's value in words, '' where it is absent, which is told without converting anything."""
    if item(dataset, name) is None:
        return ""
    value = dataset.get(name)
    return "" if value is None else str(value)


def decode(file: BinaryIO, header: Header) -> np.ndarray:
    """Return the stored values of all frames, as pydicom and its plugins decode them.

    Raises:
      Unreadable: they cannot be decoded; it names the transfer syntax, and what would decode it.
    """
    return _decoded(header, parse(file), lambda dataset: np.asarray(dataset.pixel_array))


def decode_frames(header: Header) -> Iterator[np.ndarray]:
    """Yield the stored values of one frame after another, `[H, W]`: all at once may be more than memory holds.

    Raises:
      Unreadable: as `decode`.
    """
    with header.source.open() as file:
        dataset = parse(file)
        if header.bits_allocated == 1 and header.transfer_syntax in NATIVE:
            yield from _decoded(header, dataset, lambda dataset: _bits(dataset, header))
            return
        frames = _decoded(header, dataset, lambda dataset: pydicom.pixels.iter_pixels(dataset, raw=True))
        for _ in header.places:
            yield _decoded(header, dataset, lambda _: next(frames))


def _bits(dataset: pydicom.Dataset, header: Header) -> Iterator[np.ndarray]:
    """Return frames of one bit a pixel: packed without gaps, so that one may begin within a byte (PS3.5, 8.1.1)."""
    size, frames = header.rows * header.columns, len(header.places)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if not size or len(packed) * 8 < size * frames:
        raise ValueError("the pixels end too soon")

    def frame(start: int) -> np.ndarray:
        bits = np.unpackbits(packed[start // 8 : -(-(start + size) // 8)], bitorder="little")
        return bits[start % 8 : start % 8 + size].reshape(header.rows, header.columns)

    return map(frame, range(0, size * frames, size))


def _decoded(header: Header, dataset: pydicom.Dataset, work: Callable[[pydicom.Dataset], T]) -> T:
    """Do what decodes pixels; decoders' own errors are of many kinds."""
    syntax = header.transfer_syntax
    if not syntax:
        raise Unreadable("it does not say its transfer syntax, so nothing tells how its pixels are stored")
    if guarded(lambda: dataset.get(Tag("PixelData"))) is None:
        raise Unreadable("it has no pixel data")
    try:
        return work(dataset)
    except MemoryError as error:
        raise Unreadable("its pixels ask for more memory than there is") from error
    except NotImplementedError as error:
        raise Unreadable(_no_decoder(header)) from error
    except Exception as error:
        if syntax in PLUGINS:
            raise Unreadable(_no_decoder(header)) from error
        text = f"its pixels ({header.syntax_name}) cannot be decoded: they are damaged or end too soon"
        raise Unreadable(text) from error


def _no_decoder(header: Header) -> str:
    plugin = PLUGINS.get(header.transfer_syntax, "python-gdcm")
    return f"no decoder for its transfer syntax {header.syntax_name} ({header.transfer_syntax}); plugin: {plugin}"
