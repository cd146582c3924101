"""The label map as NIfTI, on the grid of what was read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heartseg_jax.export.registry import Options
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements


def write_labels(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `labels.nii.gz`: uint8, the numbers of the label set."""
    write_nifti(replace(prediction.volume, voxels=prediction.labels), folder / "labels.nii.gz")
