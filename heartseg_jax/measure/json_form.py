"""Measurements as JSON (docs/measurements.schema.json) and as rows of a table: no name, id, date or path in either."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from heartseg_jax import __version__
from heartseg_jax.findings import in_order
from heartseg_jax.imaging.block_checks import fit_for
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.normal_ranges import range_sources
from heartseg_jax.measure.results import REFUSED, Measurements, Quantity, StructureMeasurement, ValveMeasurement

VERSION = 2
"""Of the form; a key that changes its meaning or goes is a new version, a key more is not. In version 1 `confidence`
was what `agreement` is now."""
RESEARCH_USE = "Research use only, not for diagnosis"
PROGRAM = "heartseg_jax"
NO_VALVE = "valves are measured of hearts only"
EXTENT_KEYS = ("extent_right_left_mm", "extent_anterior_posterior_mm", "extent_inferior_superior_mm")


def to_json(prediction: Prediction, measurements: Measurements) -> dict[str, Any]:
    """Return the content of `measurements.json`: units in the keys, null for what cannot be known, no NaN."""
    return {
        "version": VERSION,
        "statement": RESEARCH_USE,
        "structures": {row.name: _structure(row) for row in measurements.structures},
        **_valve("mitral_valve", measurements.mitral),
        **_valve("tricuspid_valve", measurements.tricuspid),
        "septal_offset_mm": _quantity(measurements.septal_offset_mm),
        "model": _model(prediction),
        "input": _input(prediction),
        "warnings": list(measurements.warnings),
    }


def rows(study_name: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per structure of what `to_json` returned, for a table over studies: `COLUMNS`, '' for null."""
    found = []
    valves = {
        column: value
        for valve in ("mitral", "tricuspid")
        if f"{valve}_valve" in content  # earlier versions measured none
        for column, value in _valve_cells(valve, content[f"{valve}_valve"], content[f"{valve}_valve_reason"]).items()
    } | {"septal_offset_mm": (content.get("septal_offset_mm") or {}).get("value")}
    for name, structure in content["structures"].items():
        was = {"agreement": structure["confidence"], "confidence": None} if content["version"] < 2 else {}
        own = {
            **structure,
            **was,
            "study": study_name,
            "structure": name,
            "warnings": len(content["warnings"]),
            "normal_range_low_ml": (structure["normal_range_ml"] or (None, None))[0],
            "normal_range_high_ml": (structure["normal_range_ml"] or (None, None))[1],
            **valves,
        }
        found.append({column: "" if own.get(column) is None else own[column] for column in COLUMNS})
    return found


QUANTITIES = (
    "area_cm2",
    "perimeter_mm",
    "intercommissural_mm",
    "septolateral_mm",
    "major_mm",
    "minor_mm",
    "height_mm",
    "eccentricity",
    "angle_to_aortic_valve_degrees",
)
"""Of a valve, in the order of the table's columns; a valve has those that could be measured."""
COLUMNS = (
    "study",
    "structure",
    "label",
    "status",
    "reason",
    "volume_ml",
    "voxels",
    "mean_hu",
    "sd_hu",
    *EXTENT_KEYS,
    "cut_face_share",
    "normal_range_low_ml",
    "normal_range_high_ml",
    "within_normal_range",
    "confidence",
    "removed_voxels",
    "added_voxels",
    "labels_withheld",
    "warnings",
    *(f"{valve}_{name}" for valve in ("mitral", "tricuspid") for name in ("status", "reason", *QUANTITIES)),
    "septal_offset_mm",
    "agreement",
)
"""Of `measurements.csv`, in this order in every file; later versions add theirs at the end."""


def _valve(key: str, valve: ValveMeasurement | None) -> dict[str, Any]:
    """Return a valve's two keys: null with the reason, or what was measured and an empty reason."""
    if valve is None or valve.status == REFUSED:
        return {key: None, f"{key}_reason": NO_VALVE if valve is None else valve.reason}
    found = {
        "status": valve.status,
        "reason": valve.reason,
        "centre_mm": _rounded_all(valve.centre_mm, 2),
        "normal": _rounded_all(valve.normal, 4),
        "septal": _rounded_all(valve.septal, 4),
        "curve_mm": _rounded_all(valve.curve_mm, 2),
        "quantities": {name: _quantity(quantity) for name, quantity in valve.quantities.items()},
    }
    return {key: found, f"{key}_reason": ""}


def _quantity(quantity: Quantity | None) -> dict[str, float | None] | None:
    if quantity is None:
        return None
    return {key: _rounded(value, 3) for key, value in vars(quantity).items()}


def _valve_cells(valve: str, found: Mapping[str, Any] | None, reason: str) -> dict[str, Any]:
    """Return a valve's cells in a row of the table."""
    if found is None:
        return {f"{valve}_status": REFUSED, f"{valve}_reason": reason}
    cells = {name: quantity["value"] for name, quantity in found["quantities"].items()}
    cells |= {"status": found["status"], "reason": found["reason"]}
    return {f"{valve}_{name}": value for name, value in cells.items()}


def _structure(row: StructureMeasurement) -> dict[str, Any]:
    return {
        "label": row.label,
        "status": row.status,
        "reason": row.reason,
        "volume_ml": _rounded(row.volume_ml, 3),
        "voxels": row.voxels,
        "mean_hu": _rounded(row.mean_hu, 1),
        "sd_hu": _rounded(row.sd_hu, 1),
        **{key: _rounded(mm, 2) for key, mm in zip(EXTENT_KEYS, row.extent_mm or (None,) * 3, strict=True)},
        "cut_face_share": _rounded(row.cut_face_share, 4),
        "normal_range_ml": list(row.normal_range_ml) if row.normal_range_ml else None,
        "normal_range_sources": range_sources(row.name) if row.normal_range_ml else [],
        "within_normal_range": row.within_normal_range,
        "confidence": _rounded(row.confidence, 4),
        "agreement": _rounded(row.agreement, 4),
        "removed_voxels": row.removed_voxels,
        "added_voxels": row.added_voxels,
        "labels_withheld": row.withheld,
    }


def _model(prediction: Prediction) -> dict[str, Any]:
    spec, taught = prediction.contract.input, prediction.contract.taught
    return {
        "program": PROGRAM,
        "program_version": __version__,
        "label_set": prediction.contract.task,
        "members": [one.digests for one in prediction.models],
        "intensity": spec.intensity,
        "size_pixels": spec.size,
        "pixel_mm": spec.mm_per_pixel or None,
        "taught": None if taught is None else {name: list(kinds) for name, kinds in taught.items()},
        "learned_from": _learned_from(prediction),
    }


def _learned_from(prediction: Prediction) -> list[dict[str, Any]] | None:
    """Return the datasets that a package states; a run's folders may be called after anyone, so they are left out."""
    if not prediction.models or not all(model.package_sha256 for model in prediction.models):
        return None
    keys = ("name", "images", "patients", "slices", "licence")
    return [{key: getattr(one, key) for key in keys} for one in prediction.contract.learned_from]


def _input(prediction: Prediction) -> dict[str, Any]:
    intake, volume = prediction.intake, prediction.volume
    found = in_order(prediction.findings)
    return {
        "kind": intake.kind,
        "intensity": "uint8" if volume.voxels.dtype.kind == "u" else "HU",
        "shape_voxels": list(volume.voxels.shape),
        "spacing_mm": [_rounded(mm, 6) for mm in volume.spacing_mm] if intake.spacing_known else None,
        "oblique_degrees": _rounded(patient_axial(volume)[1].oblique_degrees, 2),
        "fit_for": list(fit_for(found)),
        "findings": [
            {"level": one.level, "check": one.check, "seen": one.seen, "cause": one.cause, "fix": one.fix}
            for one in found
        ],
    }


def _rounded_all(values: np.ndarray | None, digits: int) -> list[Any] | None:
    return None if values is None else (np.round(values, digits) + 0.0).tolist()


def _rounded(value: float | None, digits: int) -> float | None:
    """Return a plain number of so many digits after the point; None for one that is none or not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
