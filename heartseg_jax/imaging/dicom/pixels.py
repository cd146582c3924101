"""From a DICOM file's stored values to HU. What must be decoded first is `decoding`'s."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from heartseg_jax.imaging.dicom.decoding import decode
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.hu_checks import LOWEST_HU
from heartseg_jax.imaging.volume import AIR_HU

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
        raise Unreadable(f"its pixels are {h.photometric or 'of no known kind'}, not grey values")
    needed = h.rows * h.columns * frames * max(h.bits_allocated // 8, 1)
    if needed > MOST_BYTES:
        raise Unreadable(f"it claims {frames} frames of {h.rows} x {h.columns}, {needed / 2**30:.1f} GiB")
    with header.source.open() as file:
        raw = _read_plain(file, header) if header.plain else decode(file, header)
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
