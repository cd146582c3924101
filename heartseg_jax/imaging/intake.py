"""What was given to be predicted, read from any format: its volume, and what the outputs must refer to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from heartseg_jax.findings import Finding
from heartseg_jax.imaging.block_checks import in_hu, of_extent
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.hu_checks import of_grey
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.volume import Volume

KINDS = ("dicom", "nifti", "nrrd", "pictures")


@dataclass(frozen=True)
class Intake:
    """One study or volume, as it was given.

    Attributes:
      kind: one of `KINDS`.
      volume: HU in int16, or 8-bit images of unknown window in uint8; on the source's grid, in its frame order.
      findings: of its reading, extent and values; any of them may refuse it.
      spacing_known: whether `volume.spacing_mm` is of the patient; pictures state none.
      files: of a DICOM study, the file that each slice is in, in frame order; several slices may be in one.
      names: of pictures, each slice's file name without its folder; it may name the patient.
    """

    kind: str
    volume: Volume
    findings: tuple[Finding, ...] = ()
    spacing_known: bool = True
    files: tuple[Source, ...] = ()
    names: tuple[str, ...] = ()


def of_volume(volume: Volume, kind: str = "nifti") -> Intake:
    """Return a volume of any dtype and order of axes with its values in HU and checked; uint8 stays as it is."""
    axial, order = patient_axial(volume)
    if volume.voxels.dtype == np.uint8:
        count, height, width = axial.voxels.shape
        extent = of_extent(count, (height, width), axial.spacing_mm)
        return Intake(kind, volume, (*extent, *of_grey(axial.voxels)))
    in_units, found = in_hu(axial)
    return Intake(kind, replace(volume, voxels=order.back(in_units.voxels)), tuple(found))
