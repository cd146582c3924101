"""A trained run without training, and studies of every kind to predict with it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nrrd
import numpy as np
from PIL import Image

from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.nrrd import geometry_fields
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes
from tests.studies import SPACING, phantom, write_study

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run_of_bac4a5e.zip"
ORIGIN = (-60.0, -75.5, -200.0)


def unpack_run(place: Path, normalise: str = "window") -> Path:
    """Unpack the run of an earlier version, which was trained on tiles in HU; return its folder.

    With `normalise` 'percentile' it says that it was trained on images normalised one by one.
    """
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(place, [name for name in archive.namelist() if name.startswith("run/")])
    contract = place / "run" / "checkpoints" / "10" / "contract" / "metadata"
    contract.write_text(contract.read_text().replace('"normalise": "window"', f'"normalise": "{normalise}"'))
    return place / "run"


def volume(index: int = 0) -> Volume:
    """A phantom patient, as `write_study` places it."""
    return Volume(phantom(index)[0], SPACING, ORIGIN, axes())


def write_inputs(place: Path) -> dict[str, Path]:
    """Write one patient in every format; return the paths by name."""
    place.mkdir(parents=True, exist_ok=True)
    write_study(place / "dicom", 0)
    write_nifti(volume(), place / "ct.nii.gz")
    nrrd.write(str(place / "ct.nrrd"), volume().voxels.T, geometry_fields(volume()))
    with zipfile.ZipFile(place / "packed.zip", "w") as archive:
        for file in sorted((place / "dicom").iterdir()):
            archive.write(file, f"study/{file.name}")
    (place / "png").mkdir()
    for z, plane in enumerate(np.clip((volume().voxels + 1024) / 8, 0, 255).astype(np.uint8)):
        Image.fromarray(plane).save(place / "png" / f"slice_{z}.png")
    return {
        "dicom": place / "dicom",
        "zip": place / "packed.zip",
        "nifti": place / "ct.nii.gz",
        "nrrd": place / "ct.nrrd",
        "pictures": place / "png",
    }
