"""`preview.png`: what was segmented at one glance: three planes, a row of slices, the volumes and what must be said."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heartseg_jax.export.registry import Options
from heartseg_jax.export.statement import statement
from heartseg_jax.figures import study
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import MEASURED, PARTIAL, Measurements

WINDOW_HU = (-200.0, 600.0)
SLICES = 6


def write_preview(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `preview.png`. The sides of pictures are not known, so none is marked."""
    axial, order = patient_axial(prediction.volume)
    low, high = WINDOW_HU if axial.voxels.dtype != np.uint8 else (0.0, 255.0)
    notes = {}
    for row in measurements.structures:
        volume = f"{row.volume_ml:.0f} mL" if row.volume_ml is not None else ""
        bound = "≥ " if row.status == PARTIAL and volume else ""
        status = "" if row.status == MEASURED else row.status
        notes[row.label] = ", ".join(part for part in (bound + volume, status) if part)
    labels, sides_known = order.forth(prediction.labels), prediction.intake.kind != "pictures"
    study.preview(
        study.Shown(axial.voxels, labels, axial.spacing_mm, (low, high), sides_known),
        folder / "preview.png",
        prediction.contract.label_set,
        notes,
        statement(prediction, measurements),
        slices=SLICES,
    )
