"""What 3D Slicer's published schema demands of the keys that are written here.

From Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json of https://github.com/Slicer/Slicer (draft 7
of JSON Schema; 1.0.4 demands the same of these keys), in our own words. The published schema allows further keys
everywhere; only the file and the markup may have one here, so that a misspelt key is found.
"""

from __future__ import annotations

UNIT = {"type": "number", "minimum": 0.0, "maximum": 1.0}


def _numbers(count: int, items: dict | None = None) -> dict:
    """An array of so many numbers."""
    return {"type": "array", "items": items or {"type": "number"}, "minItems": count, "maxItems": count}


POINT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "label": {"type": "string"},
        "position": _numbers(3),
        "selected": {"type": "boolean"},
        "locked": {"type": "boolean"},
        "visibility": {"type": "boolean"},
        "positionStatus": {"enum": ["undefined", "preview", "defined"]},
    },
}
DISPLAY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "opacity": UNIT,
        "color": _numbers(3, UNIT),
        "selectedColor": _numbers(3, UNIT),
        "propertiesLabelVisibility": {"type": "boolean"},
    },
}
MARKUP = {
    "type": "object",
    "required": ["type"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
        "name": {"type": "string"},
        "coordinateSystem": {"enum": ["LPS", "RAS"]},
        "coordinateUnits": {"enum": ["mm", "um"]},
        "locked": {"type": "boolean"},
        "labelFormat": {"type": "string"},
        "sizeMode": {"type": "string"},
        "center": _numbers(3),
        "normal": _numbers(3),
        "size": _numbers(3),
        "controlPoints": {"type": "array", "items": POINT},
        "display": DISPLAY,
    },
}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["@schema", "markups"],
    "properties": {"@schema": {"type": "string"}, "markups": {"type": "array", "items": MARKUP}},
}
ACCEPTED = r".*markups-schema-v1\.[0-9]+\.[0-9]+\.json#*$"
"""What Slicer's reader (vtkMRMLMarkupsJsonStorageNode) wants `@schema` to look like, in lower case."""
