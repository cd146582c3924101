"""The valves in the structured report: a group of coded measurements each, with their finding site and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    RelationshipTypeValues,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from heartseg_jax.export.segments import ANATOMY, PRIVATE_SCHEME, new_uid
from heartseg_jax.export.sr_items import MM, RATIO, comment, status_of
from heartseg_jax.measure.results import Measurements, Quantity, ValveMeasurement

CM2 = Code("cm2", "UCUM", "square centimeter")
UPPER = codes.SCT.RangeOfUpperMeasurementUncertainty
LOWER = codes.SCT.RangeOfLowerMeasurementUncertainty
DEGREES = Code("deg", "UCUM", "degree")
MODELS = Code("EACH_MODEL", PRIVATE_SCHEME, "Labels of each model by themselves")
"""How the least and the greatest of several models were measured, whose derivation says which of the two they are."""
SITES = {
    "mitral": (Code("91134007", "SCT", "Mitral valve"), Code("65197004", "SCT", "Mitral annulus")),
    "tricuspid": (Code("46030003", "SCT", "Tricuspid valve"), Code("113259005", "SCT", "Tricuspid annulus")),
}
"""The finding, and the site of its measurements."""


class _Kind(NamedTuple):
    """How a quantity is written: its concept, its unit and the digits after the point."""

    concept: Code
    unit: Code
    digits: int


def _own(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


KINDS: Mapping[str, _Kind] = {
    "area_cm2": _Kind(codes.SCT.Area, CM2, 3),
    "perimeter_mm": _Kind(codes.SCT.Perimeter, MM, 2),
    "intercommissural_mm": _Kind(_own("INTERCOMMISSURAL", "Intercommissural diameter"), MM, 2),
    "septolateral_mm": _Kind(_own("SEPTOLATERAL", "Septolateral diameter"), MM, 2),
    "major_mm": _Kind(codes.SCT.MajorAxis, MM, 2),
    "minor_mm": _Kind(codes.SCT.MinorAxis, MM, 2),
    "height_mm": _Kind(codes.DCM.Height, MM, 2),
    "eccentricity": _Kind(_own("ECCENTRICITY", "Eccentricity of the annulus"), RATIO, 4),
    "angle_to_aortic_valve_degrees": _Kind(_own("ANGLE_AORTIC", "Angle to the plane of the aortic valve"), DEGREES, 2),
    "septal_offset_mm": _Kind(_own("SEPTAL_OFFSET", "Offset of the tricuspid annulus towards the apex"), MM, 2),
}
"""By the name in `ValveMeasurement.quantities`. What has no code that fits has one of the private scheme."""


def valve_groups(
    measurements: Measurements, algorithm: AlgorithmIdentification
) -> list[MeasurementsAndQualitativeEvaluations]:
    """Return a group per valve that was looked at, of a refused one with its reason and no number."""
    found = []
    for valve in (measurements.mitral, measurements.tricuspid):
        if valve is None:
            continue
        quantities = dict(valve.quantities)
        if valve is measurements.tricuspid and measurements.septal_offset_mm is not None:
            quantities["septal_offset_mm"] = measurements.septal_offset_mm
        found.append(_group(valve, quantities, algorithm))
    return found


def _group(
    valve: ValveMeasurement, quantities: Mapping[str, Quantity], algorithm: AlgorithmIdentification
) -> MeasurementsAndQualitativeEvaluations:
    finding, site = SITES[valve.valve]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(new_uid(), site.meaning),
        finding_category=ANATOMY,
        finding_type=finding,
        finding_sites=[FindingSite(site)],
        algorithm_id=algorithm,
        measurements=[item for name, one in quantities.items() for item in _measurements(KINDS[name], one)],
        qualitative_evaluations=[status_of(valve.status)],
    )
    if valve.reason:
        group[0].ContentSequence.append(comment(valve.reason))
    return group


def _measurements(kind: _Kind, quantity: Quantity) -> list[Measurement]:
    """Return a quantity and, of several models, the least and the greatest that these give.

    The distances to its interval's ends are its uncertainty, in its own unit.
    """
    properties = None
    if quantity.low is not None and quantity.high is not None:
        properties = MeasurementProperties()
        ranges = (UPPER, quantity.high - quantity.value), (LOWER, quantity.value - quantity.low)
        for concept, distance in ranges:
            value = round(max(distance, 0.0), kind.digits)
            properties.append(NumContentItem(concept, value, kind.unit, None, RelationshipTypeValues.HAS_PROPERTIES))
    found = [Measurement(kind.concept, round(quantity.value, kind.digits), kind.unit, properties=properties)]
    for derivation, end in (codes.SCT.Minimum, quantity.models_low), (codes.SCT.Maximum, quantity.models_high):
        if end is not None:
            number = round(end, kind.digits)
            found.append(Measurement(kind.concept, number, kind.unit, derivation=derivation, method=MODELS))
    return found
