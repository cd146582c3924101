"""The stored values of a DICOM file's frames, decoded by pydicom and its plugins. HU are made in `pixels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import numpy as np
import pydicom
from pydicom.tag import Tag

from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.header import NATIVE, Header, guarded, parse

T = TypeVar("T")
PLUGINS = {
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.53": "none that is known",
    "1.2.840.10008.1.2.4.55": "none that is known",
}
"""What would decode a transfer syntax that the required plugins do not (all others: python-gdcm)."""


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
