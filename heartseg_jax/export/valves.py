"""The mitral valve's region of interest as NIfTI, and annulus and plane of both valves for 3D Slicer."""

from __future__ import annotations

from pathlib import Path

from heartseg_jax.anatomy import HEART
from heartseg_jax.export import markups
from heartseg_jax.export.registry import Options
from heartseg_jax.export.statement import statement
from heartseg_jax.files import write_json
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.border import UNSEEN
from heartseg_jax.measure.region import OUTSIDE_HU, box, images_in, labels_in
from heartseg_jax.measure.results import REFUSED, Measurements, ValveMeasurement
from heartseg_jax.measure.status import percent
from heartseg_jax.measure.volumes import released
from heartseg_jax.progress import say


def write_valves(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `VALVE_annulus.mrk.json` and `VALVE_plane.mrk.json` of each valve that was measured.

    Of the mitral valve also `mitral_roi_ct.nii.gz` and `mitral_roi_labels.nii.gz`. Of a valve that was refused nothing
    is written, and the reason is said.
    """
    lines = statement(prediction, measurements)
    for name, valve in (("mitral", measurements.mitral), ("tricuspid", measurements.tricuspid)):
        if valve is None:
            if prediction.contract.label_set is HEART:
                say(f"no file of the {name} valve is written: it was not measured")
        elif valve.status == REFUSED:
            say(f"no file of the {name} valve is written: {valve.reason}")
        else:
            own = [*lines, note(valve)] if valve.reason else lines
            write_json(folder / f"{name}_annulus.mrk.json", markups.annulus(valve, own))
            write_json(folder / f"{name}_plane.mrk.json", markups.plane(valve, own))
            if name == "mitral":
                _write_region(valve, released(prediction, measurements), folder, own)


def note(valve: ValveMeasurement) -> str:
    """Return the line that says why a valve's numbers are to be trusted less."""
    return f"{valve.valve.capitalize()} valve {valve.status}: {valve.reason}"


def _write_region(valve: ValveMeasurement, prediction: Prediction, folder: Path, lines: list[str]) -> None:
    grid = box(valve)
    images, outside = images_in(grid, prediction.volume)
    labels = labels_in(grid, prediction.volume, prediction.labels)
    if outside:
        value = 0 if images.voxels.dtype.kind == "u" else OUTSIDE_HU
        text = (
            f"{percent(outside)} of the mitral valve's region lies outside of the field of view: "
            f"its images are {value} there, its labels {UNSEEN}"
        )
        say(text)
        lines = [*lines, text]
    # The orientation is the valve's own, so readers must go by the transform in the file.
    write_nifti(images, folder / "mitral_roi_ct.nii.gz", comment="\n".join(lines))
    write_nifti(labels, folder / "mitral_roi_labels.nii.gz", comment="\n".join(lines))
