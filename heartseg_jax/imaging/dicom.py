"""One DICOM file: its header as plain values, its pixels as HU. The only module of imaging that knows pydicom.

What names a patient never leaves this module.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from heartseg_jax.imaging.dicom_files import Source
from heartseg_jax.imaging.volume import AIR_HU

Vector = tuple[float, ...]
MOST_BYTES = 2**30
"""Of one file's decoded pixels: half of what reading may take, since decoding holds them twice."""
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DEFLATED = "1.2.840.10008.1.2.1.99"
CT = ("1.2.840.10008.5.1.4.1.1.2", *ENHANCED_CT)
LOWEST_HU = -1100
"""Air is -1000; noise reaches somewhat lower, and most scanners cut at -1024."""
PLUGINS = {
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.53": "none that is known",
    "1.2.840.10008.1.2.4.55": "none that is known",
}
"""What would decode a transfer syntax that the required plugins do not (all others: python-gdcm)."""


class Unreadable(Exception):
    """A file that holds no usable image; the message says why, and names no patient."""


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


class Header(NamedTuple):
    """What a file says of itself, without its pixels."""

    source: Source
    sop_class: str
    modality: str
    series_uid: str
    instance_uid: str
    frame_of_reference: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    transfer_syntax: str
    syntax_name: str
    image_type: tuple[str, ...]
    description: str
    contrast_agent: bool | None
    cardiac_phase: str
    tilt_degrees: float
    thickness_mm: float | None
    padding: tuple[int, int] | None
    has_pixels: bool
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
        dataset = _parse(file, stop_before_pixels=True)
        if "DirectoryRecordSequence" in dataset:
            return None
        # The parser stops at the pixels' tag: what follows there, follows or not. A deflated file is unpacked whole.
        if getattr(dataset, "file_meta", pydicom.Dataset()).get("TransferSyntaxUID") == DEFLATED:
            file.seek(0)
            has_pixels = "PixelData" in _parse(file)
        else:
            has_pixels = file.read(1) != b""
    return _guarded(lambda: _header(source, dataset, has_pixels))


def _parse(file: Any, **how: Any) -> pydicom.Dataset:
    """Parse a file; pydicom's warnings on odd values are not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pydicom.dcmread(file, force=True, **how)
        except InvalidDicomError as error:
            raise Unreadable("it is not a DICOM file") from error
        except Exception as error:  # a damaged file can break the parser at any point
            raise Unreadable(f"its header cannot be read ({_short(error)})") from error


def _guarded(work: Any) -> Any:
    """Do what reads values out of a parsed file: damaged ones raise at the moment they are looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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


def _header(source: Source, dataset: pydicom.Dataset, has_pixels: bool) -> Header:
    meta = getattr(dataset, "file_meta", pydicom.Dataset())
    syntax = str(meta.get("TransferSyntaxUID", "") or "")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= frames <= 100_000:
        raise Unreadable(f"it claims {frames} frames")
    padding = dataset.get("PixelPaddingValue")
    limit = dataset.get("PixelPaddingRangeLimit", padding)
    return Header(
        source=source,
        sop_class=str(dataset.get("SOPClassUID", "") or ""),
        modality=str(dataset.get("Modality", "") or ""),
        series_uid=str(dataset.get("SeriesInstanceUID", "") or ""),
        instance_uid=str(dataset.get("SOPInstanceUID", "") or ""),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID", "") or ""),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        photometric=str(dataset.get("PhotometricInterpretation", "") or ""),
        bits_allocated=int(dataset.get("BitsAllocated") or 0),
        transfer_syntax=syntax,
        syntax_name=pydicom.uid.UID(syntax).name if syntax else "",
        image_type=tuple(str(word).upper() for word in dataset.get("ImageType") or ()),
        description=_description(dataset),
        contrast_agent=bool(dataset.get("ContrastBolusAgent")) if "ContrastBolusAgent" in dataset else None,
        cardiac_phase=_cardiac_phase(dataset),
        tilt_degrees=_number(dataset, "GantryDetectorTilt") or 0.0,
        thickness_mm=_number(dataset, "SliceThickness"),
        padding=None if padding is None or limit is None else (min(int(padding), int(limit)), max(padding, limit)),
        has_pixels=has_pixels,
        places=_places(dataset, frames),
    )


def _places(dataset: pydicom.Dataset, frames: int) -> tuple[Place, ...]:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if each and len(each) != frames:
        raise Unreadable(f"it has {frames} frames and places of {len(each)}")
    return tuple(_place(dataset, shared, each[k] if each else pydicom.Dataset()) for k in range(frames))


def _place(dataset: pydicom.Dataset, shared: pydicom.Dataset, own: pydicom.Dataset) -> Place:
    """Return a frame's place: from its own functional groups, else the shared ones, else the file itself."""

    def group(name: str) -> pydicom.Dataset:
        for groups in (own, shared):
            if groups.get(name):
                return groups[name][0]
        return dataset

    rescale = group("PixelValueTransformationSequence")
    content, cardiac = group("FrameContentSequence"), group("CardiacSynchronizationSequence")
    phase = [
        content.get("TemporalPositionIndex") or dataset.get("TemporalPositionIdentifier"),
        cardiac.get("NominalPercentageOfCardiacPhase"),
        dataset.get("TriggerTime"),
    ]
    return Place(
        position_mm=_vector(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=_vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing_mm=_vector(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        slope=_number(rescale, "RescaleSlope"),
        intercept=_number(rescale, "RescaleIntercept"),
        phase="/".join("" if value is None else str(value) for value in phase).strip("/"),
    )


def _vector(dataset: pydicom.Dataset, name: str, length: int) -> Vector | None:
    value = dataset.get(name)
    if value is None or value == "":
        return None
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError):
        raise Unreadable(f"its {name} is not {length} numbers") from None
    if len(numbers) != length or not all(map(math.isfinite, numbers)):
        raise Unreadable(f"its {name} is not {length} numbers")
    return numbers


def _number(dataset: pydicom.Dataset, name: str) -> float | None:
    value = dataset.get(name)
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise Unreadable(f"its {name} is not a finite number")
    return number


def _cardiac_phase(dataset: pydicom.Dataset) -> str:
    """Return the heart's phase where the file tells it: percent of the cycle, or ms after the R wave."""
    percent = dataset.get("NominalPercentageOfCardiacPhase")
    if percent is not None:
        return f"{float(percent):g} %"
    if dataset.get("TriggerTime") is not None:
        return f"{float(dataset.TriggerTime):g} ms"
    found = re.search(r"(?<!\d)(\d{1,3})(?:\.\d+)?\s?%", str(dataset.get("SeriesDescription", "") or ""))
    return f"{found[1]} %" if found and int(found[1]) <= 100 else ""


def _description(dataset: pydicom.Dataset) -> str:
    """Return the series' description, unless it has a part of the patient's name or id in it."""
    text = str(dataset.get("SeriesDescription", "") or "")
    secret = f"{dataset.get('PatientName', '')} {dataset.get('PatientID', '')} {dataset.get('AccessionNumber', '')}"
    parts = {part.casefold() for part in re.split(r"[\W_]+", secret) if len(part) >= 3}
    if any(part in text.casefold() for part in parts):
        return "(not shown: it names the patient)"
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]", " ", text)[:64]


def read_hu(header: Header) -> tuple[np.ndarray, int]:
    """Return a file's frames as HU, int16 `[F, H, W]`, and how many pixels were padding and are air now.

    Raises:
      Unreadable: there are no pixels, they cannot be decoded, or they do not fit into HU.
    """
    h, frames = header, len(header.places)
    if not header.has_pixels or not h.rows or not h.columns:
        raise Unreadable("it has no pixel data")
    if h.samples != 1 or h.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(f"its pixels are {h.photometric or 'of no known kind'}, not grey values")
    needed = h.rows * h.columns * frames * max(h.bits_allocated // 8, 1)
    if needed > MOST_BYTES:
        raise Unreadable(f"it claims {frames} frames of {h.rows} x {h.columns}, {needed / 2**30:.1f} GiB")
    with header.source.open() as file:
        dataset = _parse(file)
    raw = _decode(dataset, header).reshape(frames, h.rows, h.columns)
    hu = np.empty(raw.shape, np.int16)
    for plane, values, place in zip(hu, raw, header.places, strict=True):
        exact = values.astype(np.float64) * (1.0 if place.slope is None else place.slope) + (place.intercept or 0.0)
        plane[:] = np.rint(np.clip(exact, -32768, 32767))
    # Scanners pad round fields of view with values that no tissue has, and do not always name them.
    padded = hu < LOWEST_HU if header.modality == "CT" else np.zeros(hu.shape, bool)
    if header.padding is not None:
        padded |= (raw >= header.padding[0]) & (raw <= header.padding[1])
    hu[padded] = AIR_HU
    return hu, int(padded.sum())


def _decode(dataset: pydicom.Dataset, header: Header) -> np.ndarray:
    syntax = header.transfer_syntax
    if not syntax:
        raise Unreadable("it does not say its transfer syntax, so nothing tells how its pixels are stored")
    if _guarded(lambda: dataset.get(Tag("PixelData"))) is None:
        raise Unreadable("it has no pixel data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(dataset.pixel_array)
        except MemoryError as error:
            raise Unreadable("its pixels ask for more memory than there is") from error
        except NotImplementedError as error:
            raise Unreadable(_no_decoder(header)) from error
        except Exception as error:  # the decoders' own errors are of many kinds
            if syntax in PLUGINS:
                raise Unreadable(_no_decoder(header)) from error
            raise Unreadable(
                f"its pixels ({header.syntax_name}) cannot be decoded: they are damaged or end too soon"
            ) from error


def _no_decoder(header: Header) -> str:
    plugin = PLUGINS.get(header.transfer_syntax, "python-gdcm")
    return f"no decoder for its transfer syntax {header.syntax_name} ({header.transfer_syntax}); plugin: {plugin}"
