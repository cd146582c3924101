"""Annulus and plane of a valve as 3D Slicer's markups (`.mrk.json`), which SlicerHeart reads too. No files here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from heartseg_jax.measure.region import axes_of, side_mm
from heartseg_jax.measure.results import ValveMeasurement

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
"""As 3D Slicer 5 writes it; it accepts any 1.x."""
COLOURS = {"mitral": (255, 255, 255), "tricuspid": (255, 170, 60)}
"""Wherever a valve is drawn: no structure has a colour like these."""
MOST_POINTS = 60
"""Of a closed curve: Slicer draws a spline through its points, and more are tedious to correct by hand."""


def annulus(valve: ValveMeasurement, statement: Sequence[str]) -> dict[str, Any]:
    """Return the annulus as a closed curve through at most `MOST_POINTS` of its points, in LPS."""
    assert valve.curve_mm is not None
    count = len(valve.curve_mm)
    chosen = np.arange(min(count, MOST_POINTS)) * count // min(count, MOST_POINTS)
    markup = {
        "type": "ClosedCurve",
        **_common(valve, "annulus"),
        "controlPoints": _points(valve.curve_mm[chosen], [str(number + 1) for number in range(len(chosen))]),
    }
    return _file(markup, statement)


def plane(valve: ValveMeasurement, statement: Sequence[str]) -> dict[str, Any]:
    """Return the plane as a square as large as the region of interest, in LPS; its normal leads to the ventricle.

    Three points define it, the centre first: a file without a type of plane means this in every version of Slicer.
    `center` and `normal` say the same to other programs.
    """
    assert valve.centre_mm is not None
    x, y, z = axes_of(valve)
    side = side_mm(valve)
    corners = valve.centre_mm + side / 2 * np.array([0 * x, x, y])
    markup = {
        "type": "Plane",
        **_common(valve, "plane"),
        "sizeMode": "absolute",
        "size": _rounded([side, side, 0.0]),
        "center": _rounded(valve.centre_mm),
        "normal": _rounded(z, 9),
        "controlPoints": _points(corners, ["centre", "septum" if valve.septal is not None else "long", "across"]),
    }
    markup["display"] |= {"opacity": 0.4}
    return _file(markup, statement)


def _common(valve: ValveMeasurement, part: str) -> dict[str, Any]:
    colour = [round(channel / 255, 4) for channel in COLOURS[valve.valve]]
    # Points are 'selected' unless a file says otherwise, so this is the colour that is seen.
    display = {"color": colour, "selectedColor": colour, "propertiesLabelVisibility": True}
    return {
        "name": f"{valve.valve}_{part}",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "labelFormat": "%N-%d",
        "display": display,
    }


def _points(positions: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "label": label,
            "position": _rounded(position),
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (position, label) in enumerate(zip(positions, labels, strict=True), start=1)
    ]


def _file(markup: dict[str, Any], statement: Sequence[str]) -> dict[str, Any]:
    """Return the content of a file; Slicer passes over what it does not know, as the statement."""
    return {"@schema": SCHEMA, "statement": list(statement), "markups": [markup]}


def _rounded(values: Sequence[float] | np.ndarray, digits: int = 4) -> list[float]:
    return [round(float(value), digits) + 0.0 for value in values]
