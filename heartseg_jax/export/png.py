"""Colour masks in the project's palette, a PNG per slice: what `prepare` reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from heartseg_jax.anatomy import LabelSet
from heartseg_jax.errors import UserError
from heartseg_jax.export.registry import Options
from heartseg_jax.export.statement import statement
from heartseg_jax.files import writing
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.pictures import save_png
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements


def write_masks(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `masks/NAME.png`, in the mask files' colours, for each slice as it lies in what was read.

    NAME is the picture's own name; of a DICOM study the slice's SOPInstanceUID, by which `prepare --source=dicom` finds
    the slice; of a volume its number from 1.

    Raises:
      UserError: as `names_of`.
    """
    names = names_of(prediction.intake)
    colours = colour_table(prediction.contract.label_set)
    said = {"Comment": "\n".join(statement(prediction, measurements))}
    for name, plane in zip(names, prediction.labels, strict=True):
        with writing(folder / "masks" / f"{name}.png") as partial:
            save_png(partial, colours[plane], said)


def names_of(intake: Intake) -> list[str]:
    """Return the name of each slice's mask, without suffix.

    Raises:
      UserError: two slices would have one name, or the slices have no names of their own.
    """
    names = _names(intake)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{len(twice)} names are of several slices, so masks cannot be named by them; leave out --export=png"
        )
    return names


def _names(intake: Intake) -> list[str]:
    volume = intake.volume
    if intake.names:
        return [Path(name).stem for name in intake.names]
    if volume.frames and all(frame.number == 1 for frame in volume.frames):
        return [frame.uid for frame in volume.frames]
    if volume.frames:
        raise UserError("masks cannot be named by the frames of one DICOM file; leave out --export=png")
    count = len(volume.voxels)
    digits = max(len(str(count)), 4)
    return [f"{number:0{digits}}" for number in range(1, count + 1)]


def colour_table(label_set: LabelSet) -> np.ndarray:
    """Return `[256, 3]` uint8: the mask colour of each label."""
    table = np.zeros((256, 3), np.uint8)
    for structure in label_set.structures:
        table[structure.label] = structure.mask_rgb
    return table
