"""Valves that are made by hand, for tests of what becomes of them."""

from __future__ import annotations

import numpy as np

from heartseg_jax.measure.results import MEASURED, Quantity, ValveMeasurement

MITRAL = {
    "area_cm2": Quantity(9.876, 9.1, 10.5),
    "perimeter_mm": Quantity(113.21, 110.0, 117.5),
    "intercommissural_mm": Quantity(38.42, 37.0, 39.9),
    "septolateral_mm": Quantity(30.15, 29.0, 31.4),
    "height_mm": Quantity(6.31, 5.5, 7.25),
    "eccentricity": Quantity(0.62),
    "angle_to_aortic_valve_degrees": Quantity(121.4, 118.0, 126.0),
}
TRICUSPID = {"area_cm2": Quantity(11.2, 10.0, 12.1), "major_mm": Quantity(42.0, 40.0, 44.5), "minor_mm": Quantity(33.0)}


def saddle(
    centre=(0.0, 0.0, 0.0),
    normal=(0.0, 0.0, 1.0),
    along=(1.0, 0.0, 0.0),
    half_mm=(15.0, 19.0),
    height_mm=6.0,
    **changes,
) -> ValveMeasurement:
    """A valve whose annulus is an ellipse of two half-axes, along a direction and across it, bent as a saddle."""
    centre, normal = np.array(centre, float), np.array(normal, float)
    normal /= np.linalg.norm(normal)
    along = np.array(along, float)
    along -= (along @ normal) * normal
    along /= np.linalg.norm(along)
    angle = 2 * np.pi * np.arange(96) / 96
    curve = centre + np.stack(
        [half_mm[0] * np.cos(angle), half_mm[1] * np.sin(angle), height_mm / 2 * np.cos(2 * angle)], 1
    ) @ np.array([along, np.cross(normal, along), normal])
    made = {
        "valve": "mitral",
        "status": MEASURED,
        "centre_mm": centre,
        "normal": normal,
        "septal": along,
        "curve_mm": curve,
        "quantities": MITRAL,
    }
    return ValveMeasurement(**(made | changes))


def of_phantom(annulus, **changes) -> ValveMeasurement:
    """A phantom's true annulus."""
    rim = np.asarray(annulus.rim_mm, float)
    made = {"centre_mm": np.array(annulus.centre_mm), "normal": np.array(annulus.normal), "septal": None}
    return ValveMeasurement("mitral", MEASURED, curve_mm=rim, quantities=MITRAL, **(made | changes))
