"""Reads whatever is given to be predicted: a DICOM study, a NIfTI or NRRD volume, or a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.findings import NOTE, Finding, counted, some
from heartseg_jax.imaging.block_checks import of_count
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source, is_clutter, walk
from heartseg_jax.imaging.dicom.header import read_header
from heartseg_jax.imaging.dicom.study import SUFFIXES, read_study
from heartseg_jax.imaging.hu_checks import of_grey
from heartseg_jax.imaging.intake import Intake, of_volume
from heartseg_jax.imaging.nifti import check_geometry, read_nifti
from heartseg_jax.imaging.nrrd import read_nrrd
from heartseg_jax.imaging.pictures import PICTURES, natural_key, picture_header, read_grey
from heartseg_jax.imaging.volume import Volume

Progress = Callable[[int, int], None]

NIFTI = (".nii", ".nii.gz", ".nii.bz2")
NRRD = (".nrrd",)
VOLUMES = (*NIFTI, *NRRD)
OTHER_FORMATS = {
    ".nhdr": "a .nrrd with its data in it",
    ".mha": "NIfTI or NRRD",
    ".mhd": "NIfTI or NRRD",
    ".hdr": "NIfTI or NRRD",
    ".img": "NIfTI or NRRD",
    ".npy": "NIfTI or NRRD",
    ".tar": "a folder or a zip",
    ".gz": "a folder or a zip",
    ".7z": "a folder or a zip",
    ".rar": "a folder or a zip",
}
"""Formats of which nothing is read, and what to export instead."""
BESIDE = (".csv", ".json", ".txt", ".md", ".pdf", ".xlsx", ".xml", ".zip")
"""Files that are not looked into to find out what a folder is."""
MOST_TRIED = 50
MOST_BYTES = 2**30


def read_intake(path: str | Path, series: str = "", progress: Progress | None = None) -> Intake:
    """Read one study: a folder, zip or file of DICOM, a NIfTI or NRRD volume, or a folder of pictures.

    Args:
      path: of the study. A folder of pictures has one per slice, from the top of the body to its bottom or the other
        way round, in the natural order of their names; rows run towards Posterior, columns towards Left. Where DICOM
        files lie beside or below pictures, it is a DICOM study.
      series: of a DICOM study, which; see `dicom.study.choose`.
      progress: called with (files done, files in all).

    Raises:
      UserError: it is none of these, damaged, or not fit for any use; or a series is named and it has none.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is nothing at {path}")
    if path.is_dir() and (pictures := pictures_in(path)) and not _has_dicom(path):
        _no_series(series, path)
        return _read_pictures(path, pictures, progress)
    if path.is_file() and path.name.lower().endswith(VOLUMES):
        _no_series(series, path)
        return _read_volume(path)
    _check_format(path)
    study = read_study(path, series, progress)
    assert study.chosen.stack is not None
    files = tuple(frame.header.source for frame in study.chosen.stack.frames)
    return Intake("dicom", study.volume, study.findings, files=files)


def files_in(folder: Path) -> list[Path]:
    """Return the files that lie in a folder itself, in the order of their names, without what file managers leave."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror})") from error
    return [path for path in entries if path.is_file() and not path.name.startswith(".") and not is_clutter(path.name)]


def first_dicom(folder: Path, *, besides: str = "") -> Path | None:
    """Return the first DICOM file that lies in a folder itself, besides one name; only so many files are tried."""
    others = [path for path in files_in(folder) if not path.name.lower().endswith((*PICTURES, *VOLUMES, *BESIDE))]
    others = [path for path in others if path.name.upper() != besides]
    others.sort(key=lambda path: not path.name.lower().endswith(SUFFIXES))  # before whatever else lies there
    return next((path for path in others[:MOST_TRIED] if is_dicom(path)), None)


def is_dicom(path: Path) -> bool:
    """Return whether a file's header is that of DICOM, whatever its name."""
    try:
        return read_header(Source(path.name, lambda: path.open("rb"))) is not None
    except Unreadable:
        return path.stat().st_size > 0  # a broken one
    except OSError:
        return path.name.lower().endswith(SUFFIXES)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, in the natural order of their names."""
    found = [path for path in files_in(folder) if path.name.lower().endswith(PICTURES)]
    return sorted(found, key=lambda path: natural_key(path.name))


def _has_dicom(folder: Path) -> bool:
    """Return whether DICOM files lie in a folder or below it: pictures beside them were made of them, or are logos."""
    folders = dict.fromkeys([folder, *(file.parent for file in walk(folder))])
    seen = (place for place in folders if not any(part.startswith(".") for part in place.relative_to(folder).parts))
    return any(first_dicom(place) is not None for place in seen)


def _no_series(series: str, path: Path) -> None:
    if series:
        raise UserError(f"--series is only used with a DICOM study, which {path} is not; remove it")


def _check_format(path: Path) -> None:
    name = path.name.lower()
    if path.is_file() and name.endswith(PICTURES):
        raise UserError(f"{path} is a single picture: give a folder with a picture per slice")
    export = next((export for suffix, export in OTHER_FORMATS.items() if name.endswith(suffix)), None)
    if path.is_file() and export:
        raise UserError(f"{path} is in a format that is not read: export it as {export}")


def _read_volume(path: Path) -> Intake:
    if path.name.lower().endswith(NRRD):
        return of_volume(read_nrrd(path), "nrrd")
    found = of_volume(read_nifti(path), "nifti")
    return replace(found, findings=(*found.findings, *check_geometry(path)))


def _read_pictures(folder: Path, pictures: Sequence[Path], progress: Progress | None) -> Intake:
    """Return pictures as slices from the first to the last; of their place in the patient nothing is known."""
    sizes = {path.name: picture_header(path)[0] for path in pictures}
    first = sizes[pictures[0].name]
    others = [f"{name} ({height} x {width})" for name, (height, width) in sizes.items() if (height, width) != first]
    if others:
        raise UserError(
            f"the pictures in {folder} differ in size: {pictures[0].name} is {first[0]} x {first[1]} pixels, not so "
            f"{some(others)}; give the slices of one series, all of one size"
        )
    if len(pictures) * first[0] * first[1] > MOST_BYTES:
        raise UserError(f"{folder} holds {len(pictures)} pictures of {first[0]} x {first[1]}; give the heart's part")
    voxels = np.empty((len(pictures), *first), np.uint8)
    for z, path in enumerate(pictures):
        voxels[z], coloured = read_grey(path)
        if coloured:
            raise UserError(f"{path} is coloured: give the grey images of the scan, not masks, maps or screenshots")
        if progress:
            progress(z + 1, len(pictures))
    found = [*of_count(len(pictures)), *of_grey(voxels)]
    left = [path for path in files_in(folder) if not path.name.lower().endswith(PICTURES)]
    if left:
        text = f"{counted(len(left), 'file')} beside the pictures left out"
        found.append(Finding(NOTE, "not_pictures", text))
    names = tuple(path.name for path in pictures)
    return Intake("pictures", Volume(voxels, (1.0, 1.0, 1.0)), tuple(found), spacing_known=False, names=names)
