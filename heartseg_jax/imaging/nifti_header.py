"""What a NIfTI header says before any library has repaired it: its version, and whether its geometry can be meant."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding

HEADER_BYTES = 540
VERSIONS = {348: 1, 540: 2}
"""NIfTI's version by the header's first number, its own length."""
PACKED = {b"\x1f\x8b": ".nii.gz", b"BZh": ".nii.bz2"}
"""The suffix that a file needs by its first bytes; anything else is not packed."""
KNOWN_CODES = range(6)
SAME_PLACE_MM, SAME_SPACING = 1.0, 0.01
"""Rounding explains this much between two statements of one geometry: of corners, and of spacings (relative)."""


def raw_header(path: Path) -> tuple[int, str, bytes]:
    """Return the NIfTI version, the byte order ('<' or '>') and the header's bytes, unpacked.

    Raises:
      UserError: it is no NIfTI file of one piece, or its name does not state how it is packed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(3)
        needed = next((suffix for magic, suffix in PACKED.items() if start.startswith(magic)), ".nii")
        opener: Any = {".nii.gz": gzip.open, ".nii.bz2": bz2.open}.get(needed, open)
        with opener(path, "rb") as file:
            block = file.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no NIfTI file, or a damaged one ({error}); export it again") from error
    for order in "<>":
        version = VERSIONS.get(int(np.frombuffer(block[:4].ljust(4, b"\0"), f"{order}i4")[0]))
        if version is None:
            continue
        magic = block[344:348] if version == 1 else block[4:8]
        if magic[:2] == b"ni":
            raise UserError(f"{path} is the header of a pair of files (.hdr and .img); export one .nii.gz")
        if magic[:2] == b"n+":
            if not path.name.lower().endswith(needed):
                raise UserError(f"{path} is packed as a {needed} file is: rename it, so that its name ends in {needed}")
            return version, order, block[: 348 if version == 1 else 540]
    raise UserError(f"{path} is no NIfTI file, or a damaged one; export it again")


def check_raw(header: Mapping[str, Any], path: Path) -> None:
    """Refuse what nibabel would repair without a word: unknown codes, and a qform without extent or handedness.

    Raises:
      UserError: naming the field.
    """
    codes = {name: int(header[name]) for name in ("sform_code", "qform_code")}
    for name, code in codes.items():
        if code not in KNOWN_CODES:
            raise UserError(f"{path} has a {name} of {code}, which NIfTI does not know: is the file damaged?")
    if codes["sform_code"] > 0 or codes["qform_code"] == 0:
        return
    handedness, *spacing = (float(value) for value in header["pixdim"][:4])
    if not all(np.isfinite(mm) and mm > 0 for mm in spacing):
        shown = " x ".join(f"{mm:g}" for mm in spacing)
        raise UserError(
            f"{path} states voxels of {shown} (pixdim): its spacing is lost, and there is no sform that states it; "
            "export it again from the scanner's files"
        )
    if handedness not in (-1.0, 0.0, 1.0):  # NIfTI takes 0 for 1
        raise UserError(
            f"{path} has a pixdim[0] of {handedness:g} instead of 1 or -1: nothing states which side is left"
        )


@np.errstate(all="ignore")  # a qform that is not finite says nothing
def compare_geometries(
    sform: np.ndarray | None, qform: np.ndarray | None, unit_mm: float, header: Mapping[str, Any], path: Path
) -> list[Finding]:
    """Return warnings where the sform `[4, 4]`, which is read, contradicts the qform or the raw header's pixdim.

    A form is None where the file has none that can be used; `unit_mm` is what the file's unit of length is in mm.

    Raises:
      UserError: they mirror each other: nothing states which side is left.
    """
    if sform is None:
        return []
    if qform is not None:
        if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
            raise UserError(
                f"the sform of {path} ({_axes(sform)}) and its qform ({_axes(qform)}) are mirror images: nothing "
                "states which side is left; correct the wrong one, or export it again"
            )
        corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(header["dim"][1:4], np.float64) - 1)
        apart = unit_mm * np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
        if apart > SAME_PLACE_MM:
            text = (
                f"sform ({_axes(sform)}) and qform ({_axes(qform)}) differ by up to {apart:.0f} mm; the sform was read"
            )
            return [Finding(WARN, "two_geometries", text, fix="check which one is right, and correct the other")]
    spacing = unit_mm * np.linalg.norm(sform[:3, :3], axis=0)
    stated = unit_mm * np.array(header["pixdim"][1:4], np.float64)
    if (stated > 0).all() and np.isfinite(stated).all() and (np.abs(stated / spacing - 1) > SAME_SPACING).any():
        shown = [" x ".join(f"{mm:.4g}" for mm in some) for some in (spacing, stated)]
        text = f"the sform has voxels of {shown[0]} mm, pixdim of {shown[1]}; the sform was read"
        return [Finding(WARN, "two_spacings", text, fix="check which one is right: volumes and distances rest on it")]
    return []


def _axes(affine: np.ndarray) -> str:
    """Return where the axes i, j, k run, such as 'L P S'."""
    letters = ("RL", "AP", "SI")
    largest = np.abs(affine[:3, :3]).argmax(axis=0)
    return " ".join(letters[row][int(affine[row, column] < 0)] for column, row in enumerate(largest))
