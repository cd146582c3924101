"""The stored values of a DICOM file's frames, decoded by pydicom and its plugins, and the HU that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import numpy as np
import pydicom
from pydicom.tag import Tag

from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.header import NATIVE, Header, guarded, parse
from heartseg_jax.imaging.hu_checks import LOWEST_HU
from heartseg_jax.imaging.volume import AIR_HU

T = TypeVar("T")
PLUGINS = {
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.53": "none that is known",
    "1.2.840.10008.1.2.4.55": "none that is known",
}
"""What would decode a transfer syntax that the required plugins do not (all others: python-gdcm)."""
MOST_BYTES = 2**30
"""Of one file's decoded pixels: half of what reading may take, since decoding holds them twice."""


def read_hu(header: Header) -> tuple[np.ndarray, int]:
    """Return a file's frames as HU, int16 `[F, H, W]`, and how many pixels were padding and are air now.

    Raises:
      Unreadable: there are no pixels, they cannot be decoded, or they do not fit into HU.
    """
    h, frames = header, len(header.frames)
    if not header.has_pixels or not h.rows or not h.columns:
        raise Unreadable("it has no pixel data")
    if h.samples != 1 or h.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(
            f"its pixels are {h.photometric or 'of no known kind'} (SamplesPerPixel {h.samples}), not grey values"
        )
    needed = h.rows * h.columns * frames * max(h.bits_allocated // 8, 1)
    if needed > MOST_BYTES:
        raise Unreadable(f"it claims {frames} frames of {h.rows} x {h.columns}, {needed / 2**30:.1f} GiB")
    with header.source.open() as file:
        if header.plain:
            raw = _read_plain(file, header)
        else:
            raw = _decoded(header, parse(file), lambda dataset: np.asarray(dataset.pixel_array))
    raw = raw.reshape(frames, h.rows, h.columns)
    hu = np.empty(raw.shape, np.int16)
    for plane, values, geometry in zip(hu, raw, header.frames, strict=True):
        _rescale(values, 1.0 if geometry.slope is None else geometry.slope, geometry.intercept or 0.0, plane)
    # Scanners pad round fields of view with values that no tissue has, and do not always name them.
    low = header.modality == "CT" and hu.min() < LOWEST_HU
    if not low and header.padding is None:
        return hu, 0
    padded = hu < LOWEST_HU if low else np.zeros(hu.shape, bool)
    if header.padding is not None:
        padded |= (raw >= header.padding[0]) & (raw <= header.padding[1])
    hu[padded] = AIR_HU
    return hu, int(padded.sum())


def _read_plain(file: BinaryIO, header: Header) -> np.ndarray:
    """Return uncompressed pixels `[F * H * W]`; bits beside the stored ones, which may hold an overlay, are dropped.

    The value's highest bit is HighBit, which is not always the highest of BitsStored counted from below.
    """
    assert header.plain is not None
    offset, dtype, unused, shift = header.plain
    file.seek(offset)
    length = header.rows * header.columns * len(header.frames) * np.dtype(dtype).itemsize
    content = file.read(length)
    if len(content) < length:
        raise Unreadable("its pixels end too soon")
    raw = np.frombuffer(content, dtype)
    if not unused:
        return raw
    if shift and (raw & ((1 << shift) - 1)).any() and not (np.abs(raw.astype(np.int32)) >> header.bits_stored).any():
        raise Unreadable(f"its HighBit {header.high_bit} contradicts its values, which lie in the lowest bits")
    return np.right_shift(np.left_shift(raw, unused - shift), unused)


def _rescale(values: np.ndarray, slope: float, intercept: float, hu: np.ndarray) -> None:
    """Write `slope * values + intercept` to `hu`, int16, rounded and kept within its range."""
    narrow = slope == 1 and intercept == int(intercept) and values.dtype.itemsize <= 2 and abs(intercept) < 2**15
    if narrow and int(values.min()) + intercept >= -32768 and int(values.max()) + intercept <= 32767:
        # Nothing is lost modulo 2^16, so that one pass over the pixels does: they are most of what reading takes.
        same = values.view(np.int16) if values.dtype == np.uint16 else values
        np.add(same, np.int16(intercept), out=hu, dtype=np.int16, casting="unsafe")
        return
    np.rint(np.clip(values.astype(np.float64) * slope + intercept, -32768, 32767), out=hu, casting="unsafe")


def decode_frames(header: Header) -> Iterator[np.ndarray]:
    """Yield the stored values of one frame after another, `[H, W]`: all at once may be more than memory holds.

    Raises:
      Unreadable: they cannot be decoded; it names the transfer syntax, and what would decode it.
    """
    with header.source.open() as file:
        dataset = parse(file)
        if header.bits_allocated == 1 and header.transfer_syntax in NATIVE:
            yield from _decoded(header, dataset, lambda dataset: _bits(dataset, header))
            return
        frames = _decoded(header, dataset, lambda dataset: pydicom.pixels.iter_pixels(dataset, raw=True))
        for _ in header.frames:
            yield _decoded(header, dataset, lambda _: next(frames))


def _bits(dataset: pydicom.Dataset, header: Header) -> Iterator[np.ndarray]:
    """Return frames of one bit a pixel: packed without gaps, so that one may begin within a byte (PS3.5, 8.1.1)."""
    size, frames = header.rows * header.columns, len(header.frames)
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
        raise Unreadable("its pixels are compressed and it does not state its transfer syntax")
    if header.high_bit != header.bits_stored - 1:
        raise Unreadable(f"its HighBit {header.high_bit} does not go with {header.bits_stored} bits stored")
    if header.syntax_is_guessed:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
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
