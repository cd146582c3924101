"""What the review page says, as JSON: measurements, structures with their colours, and what was done to the images."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy import ndimage

from heartseg_jax.export.page.images import Shown
from heartseg_jax.export.page.valves import drawn
from heartseg_jax.export.page.viewer import Viewer
from heartseg_jax.export.statement import statement
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.json_form import to_json
from heartseg_jax.measure.results import Measurements


def content(
    prediction: Prediction, measurements: Measurements, images: Shown, drawn_by: Viewer, language: str
) -> dict[str, Any]:
    """Return what the page's script shows. Nothing in it names a patient, a file or a date."""
    places = centres(images.labels)
    structures = [
        {
            "label": structure.label,
            "name": structure.name,
            "short": structure.short,
            "rgb": list(structure.display_rgb),
            "centre_mm": places.get(structure.label),
        }
        for structure in prediction.contract.label_set.foreground
    ]
    return {
        "language": language,
        "label_set": prediction.contract.label_set.name,
        "structures": structures,
        "valves": drawn(measurements),
        "measurements": to_json(prediction, measurements),
        "statement": statement(prediction, measurements)[: -len(measurements.warnings) or None],
        "images": {
            "factors": list(images.factors),
            "step": images.step,
            "spacing_mm": list(images.images.spacing_mm),
            "shape_voxels": list(images.images.voxels.shape),
            "sides_known": prediction.intake.kind != "pictures",
        },
        "viewer": f"NiiVue (ipyniivue {drawn_by.version})",
        "licence": drawn_by.licence,
    }


def centres(labels: Volume) -> dict[int, list[float]]:
    """Return for each label the place of a voxel in it, nearest to its centre of mass: mm to Right, Anterior, Superior.

    These are the axes of NIfTI.
    """
    assert labels.direction is not None
    steps, found = labels.direction * np.array(labels.spacing_mm), {}
    for index, box in enumerate(ndimage.find_objects(labels.voxels)):
        if box is not None:
            inside = np.argwhere(labels.voxels[box] == index + 1)
            nearest = inside[((inside - inside.mean(0)) ** 2).sum(1).argmin()] + [part.start for part in box]
            place = (labels.origin_mm + steps @ nearest) * [-1, -1, 1]
            found[index + 1] = [round(float(mm), 3) for mm in place]
    return found


def as_script(value: Any) -> str:
    """Return JSON that may stand in a page's script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
