"""NIfTI files: into a Volume and back, with the geometry exact. The only module that knows nibabel."""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from heartseg_jax.errors import UserError
from heartseg_jax.files import writing
from heartseg_jax.findings import Finding
from heartseg_jax.imaging.axes import check_axes
from heartseg_jax.imaging.nifti_header import check_raw, compare_geometries, raw_header
from heartseg_jax.imaging.volume import Volume

nibabel.imageglobals.logger.setLevel(logging.CRITICAL)  # what it says of headers is said here, or refused
MOST_BYTES = 2**30
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's axes run to Right, Anterior, Superior; DICOM's, and a Volume's, to Left, Posterior, Superior."""
BROKEN = (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, OverflowError, zlib.error)
WHOLE = 1e-4
"""Labels that were stored with a scale come back within this of whole numbers."""
MM_OF = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
"""What a file's unit of length is in mm; most writers leave it unset and mean mm."""


def read_nifti(path: str | Path) -> Volume:
    """Return the volume in a `.nii`, `.nii.gz` or `.nii.bz2` file, NIfTI-1 or -2, scaled as its header says.

    Whole numbers stay whole.

    Further axes of length one are dropped. The geometry is the sform where it is set, else the qform.

    Raises:
      UserError: the file is damaged, has no geometry or a sheared one, or holds no single grey volume.
    """
    path = Path(path)
    image, grid, _ = _opened(path)
    try:
        values = np.asarray(image.dataobj).reshape(grid.voxels.shape[::-1])
    except (*BROKEN, MemoryError) as error:
        raise UserError(f"{path} ends too soon or is damaged; export it again") from error
    if not np.isfinite(values).all():
        raise UserError(f"{path} has values that are not finite; set them to air (-1000) or background (0)")
    return replace(grid, voxels=np.ascontiguousarray(values.transpose(2, 1, 0)))


def read_grid(path: str | Path) -> Volume:
    """Return the volume of a file with its geometry and zeros for voxels: only the header is read.

    Raises:
      UserError: as `read_nifti`, for what the header says.
    """
    return _opened(Path(path))[1]


def check_geometry(path: str | Path) -> list[Finding]:
    """Return warnings where a file states its geometry twice, and differently. The header only is read.

    Raises:
      UserError: as `read_nifti`.
    """
    return _opened(Path(path))[2]


def _opened(path: Path) -> tuple[Any, Volume, list[Finding]]:
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    version, order, block = raw_header(path)
    kinds: Any = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    raw = kinds.header_class(block, order, check=False)
    check_raw(raw, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Any = kinds.from_filename(path)
            if image.header.endianness != order:  # nibabel goes by another field
                raise ValueError("its fields contradict each other on the order of bytes")
        except BROKEN as error:
            raise UserError(f"{path} is no NIfTI file, or a damaged one ({error}); export it again") from error
    shape = image.shape[:3]
    if len(shape) != 3 or min(shape) < 1 or set(image.shape[3:]) - {1}:
        raise UserError(f"{path} has the shape {' x '.join(map(str, image.shape))}; a volume of three axes is needed")
    kind = image.get_data_dtype()
    if kind.fields or kind.kind not in "iuf":
        raise UserError(f"{path} holds values of the kind {kind}, not numbers; export it as a grey volume")
    if raw["bitpix"] != 8 * kind.itemsize:
        raise UserError(
            f"{path} states {raw['bitpix']} bits per voxel (bitpix) and the datatype {kind}, which has "
            f"{8 * kind.itemsize}: its header is damaged; export it again"
        )
    if math.prod(map(int, shape)) * kind.itemsize > MOST_BYTES:
        raise UserError(f"{path} claims {' x '.join(map(str, shape))} voxels, more than memory is kept for; crop it")
    unit_mm = _unit_mm(image.header, path)
    affine = _affine(image, unit_mm, path)
    columns = (LPS @ affine)[:3, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    grid = Volume(
        np.broadcast_to(np.int8(0), shape[::-1]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        tuple(float(part) for part in (LPS @ affine)[:3, 3]),  # type: ignore[arg-type]
        columns / spacing,
    )
    return image, grid, compare_geometries(*_both(image.header, raw), unit_mm, raw, path)


def _both(header: Any, raw: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the sform and the qform of a file, None where it has none or one that says nothing."""
    sform = header.get_sform(coded=True)[0]
    if header["qform_code"] == 0 or not all(0 < mm < np.inf for mm in raw["pixdim"][1:4]):
        return sform, None
    try:
        return sform, header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return sform, None


def _unit_mm(header: Any, path: Path) -> float:
    try:
        return MM_OF[header.get_xyzt_units()[0]]
    except (KeyError, HeaderDataError):
        raise UserError(f"{path} has a unit of length that is not known; export it again in mm") from None


@np.errstate(all="ignore")  # what is not finite is refused
def _affine(image: Any, unit_mm: float, path: Path) -> np.ndarray:
    """Return the matrix from voxels (i, j, k) to mm in NIfTI's axes."""
    if image.header["sform_code"] == image.header["qform_code"] == 0:
        raise UserError(f"{path} has neither an sform nor a qform: nothing states which side is left; export it again")
    affine = np.diag([unit_mm, unit_mm, unit_mm, 1.0]) @ np.asarray(image.affine, np.float64)
    check_axes(affine[:3, :3], affine[:3, 3], path)
    return affine


def read_labels(path: str | Path) -> Volume:
    """Return a label map like `read_nifti`, as whole numbers of at most 32 bits, however they are stored.

    Raises:
      UserError: as there, or a value is no whole number.
    """
    return whole_numbers(read_nifti(path), path)


def whole_numbers(volume: Volume, path: str | Path) -> Volume:
    """Return a volume with its values as whole numbers of at most 32 bits; raise UserError where they are none."""
    values = volume.voxels
    lowest, highest = values.min(), values.max()
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if np.abs(whole - values).max() > WHOLE:
            raise UserError(f"{path} has values that are no whole numbers: is it a label map, or was it interpolated?")
        values = whole
    if lowest < -(2**31) or highest >= 2**31:
        raise UserError(f"{path} has values from {lowest} to {highest}: labels are small whole numbers")
    if values.dtype.kind == "f" or values.dtype.itemsize > 4 or values.dtype == np.uint32:
        values = values.astype(np.int32)
    return replace(volume, voxels=values)


def label_table(path: str | Path) -> dict[int, str]:
    """Return value -> name of a label map whose header has them (XML as Caret and TotalSegmentator write it), or {}.

    Raises:
      UserError: as `read_nifti`, for what the header says, or the names are damaged.
    """
    image, _, _ = _opened(Path(path))
    found: dict[int, str] = {}
    for extension in image.header.extensions:
        content = extension.get_content()
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        if "<LabelTable" not in text:
            continue
        try:
            if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow without bound
                raise ValueError("it defines entities")
            labels = [*ElementTree.fromstring(text.strip(" \0\n\t")).iter("Label")]
            found |= {int(label.attrib["Key"]): (label.text or "").strip() for label in labels}
        except (ElementTree.ParseError, ValueError, KeyError) as error:
            raise UserError(f"{path} has a damaged label table in its header ({error}); export it again") from None
    return found


def write_nifti(volume: Volume, path: str | Path, *, comment: str = "") -> None:
    """Write a volume, `.nii` or `.nii.gz`; reading it gives the same voxels and geometry. It appears whole.

    The first line of `comment` is the header's description, as far as its 79 characters reach; all of it is an
    extension, which readers that do not know it pass over.
    """
    image = _image(volume)
    if comment:
        image.header["descrip"] = comment.splitlines()[0].encode("ascii", "replace")[:79]
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", comment.encode()))
    with writing(path) as partial:
        image.to_filename(partial)


def nifti_bytes(volume: Volume) -> bytes:
    """Return what `write_nifti` would write to a `.nii` file."""
    content: bytes = _image(volume).to_bytes()
    return content


def _image(volume: Volume) -> nibabel.Nifti1Image:
    assert volume.direction is not None
    affine = np.eye(4)
    affine[:3, [2, 1, 0]] = volume.direction * np.array(volume.spacing_mm)
    affine[:3, 3] = volume.origin_mm
    image = nibabel.Nifti1Image(volume.voxels.transpose(2, 1, 0), LPS @ affine)
    image.set_sform(LPS @ affine, code=1)
    image.set_qform(LPS @ affine, code=1)
    image.header.set_xyzt_units("mm")
    return image
