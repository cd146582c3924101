"""The label map as NIfTI, on the grid of what was read, and the names of its labels for ITK-SNAP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heartseg_jax.export.registry import Options
from heartseg_jax.export.statement import statement
from heartseg_jax.files import write_text
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements


def write_labels(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `labels.nii.gz`, uint8, the numbers of the label set, and `labels.txt`, their names and colours.

    The statement is the NIfTI header's comment. Without a known spacing the voxels are written as 1 mm.
    """
    lines = statement(prediction, measurements)
    volume = replace(prediction.volume, voxels=prediction.labels)
    write_nifti(volume, folder / "labels.nii.gz", comment="\n".join(lines))
    # ITK-SNAP's label description: number, red, green, blue, opacity, visible, in the surface, name.
    table = [f"# {line}" for line in lines]
    table.append('0 0 0 0 0 0 0 "Clear Label"')
    for structure in prediction.contract.label_set.foreground:
        colour = " ".join(map(str, structure.display_rgb))
        table.append(f'{structure.label} {colour} 1 1 1 "{structure.name}"')
    write_text(folder / "labels.txt", "\n".join(table) + "\n")
