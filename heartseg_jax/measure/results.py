"""What is measured of a prediction: a row per structure, each with a status. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

MEASURED, PARTIAL, ABSENT, REFUSED = "measured", "partial", "absent", "refused"
STATUSES = (MEASURED, PARTIAL, ABSENT, REFUSED)
UNCERTAIN = "uncertain"
"""Of a valve: there are numbers, and a reason to trust them less."""
WIDE_INTERVAL = 0.12
"""Width of the area's interval, or of its range between models, over the area: beyond, a valve is uncertain."""


@dataclass(frozen=True)
class StructureMeasurement:
    """One structure of one study. None is what cannot be known, never 0.

    Attributes:
      name: of the label set.
      label: its number there.
      status: 'measured'; 'partial', where it touches the border of the field of view, so that its volume is a lower
        bound; 'absent'; or 'refused'.
      reason: why it is not 'measured'; never anything that names a patient.
      voxels: how many it has.
      volume_ml: in mL.
      mean_hu, sd_hu: of the voxels in it; None for 8-bit images.
      extent_mm: of its bounding box along the patient's axes: right-left, anterior-posterior, inferior-superior.
      cut_face_share: faces of its surface on the border of the field of view, as a share of all its faces.
      normal_range_ml: published limits for adults, and None where there are none for this structure.
      within_normal_range: whether the volume lies between them; None where that cannot be said.
      confidence: mean probability that the model (the mean of several) gives it in its voxels, before postprocessing;
        None where it has none.
      agreement: mean pairwise Dice between models, or between the views of one model; None for one without views.
      removed_voxels, added_voxels: by postprocessing.
      withheld: whether its labels are not to be written either; False where only its volume cannot be known.
    """

    name: str
    label: int
    status: str
    reason: str = ""
    voxels: int = 0
    volume_ml: float | None = None
    mean_hu: float | None = None
    sd_hu: float | None = None
    extent_mm: tuple[float, float, float] | None = None
    cut_face_share: float | None = None
    normal_range_ml: tuple[float, float] | None = None
    within_normal_range: bool | None = None
    confidence: float | None = None
    agreement: float | None = None
    removed_voxels: int = 0
    added_voxels: int = 0
    withheld: bool = False


@dataclass(frozen=True)
class Quantity:
    """A number.

    Attributes:
      value: the number.
      low, high: the interval that 95 % of its resamples lie in; None where it was not resampled.
      models_low, models_high: the least and the greatest that the labels of each of several models give by themselves;
        None for one model, and where the labels of one of them do not show it.
    """

    value: float
    low: float | None = None
    high: float | None = None
    models_low: float | None = None
    models_high: float | None = None


@dataclass(frozen=True)
class ValveMeasurement:
    """The annulus of one atrioventricular valve, in the patient's coordinates (x, y, z of LPS, mm). Refused: no number.

    Attributes:
      valve: 'mitral' or 'tricuspid'.
      status: 'measured', 'uncertain' or 'refused'.
      reason: why it is not 'measured'; never anything that names a patient.
      centre_mm: `[3]`, of the annulus.
      normal: `[3]`, unit vector of the plane that is fitted to the annulus, from the atrium towards the ventricle.
      septal: `[3]`, unit vector in the plane, from the centre towards the aortic root (mitral) or the septum
        (tricuspid); None where there is none, and then diameters are called major and minor.
      curve_mm: `[N, 3]`, points at equal distances along the closed annulus; the first is not repeated.
      quantities: by name, with the unit as the name's end: `area_cm2`, `perimeter_mm`, `intercommissural_mm`,
        `septolateral_mm` (or `major_mm`, `minor_mm`), `height_mm`, `eccentricity`, `angle_to_aortic_valve_degrees`.
    """

    valve: str
    status: str
    reason: str = ""
    centre_mm: np.ndarray | None = None
    normal: np.ndarray | None = None
    septal: np.ndarray | None = None
    curve_mm: np.ndarray | None = None
    quantities: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurements:
    """All structures of the label set but background, in its order, and the warnings, to be said with them.

    Attributes:
      structures: one row each.
      warnings: of the whole result.
      mitral, tricuspid: the valves; None where nobody measured them.
      septal_offset_mm: how far the tricuspid annulus lies closer to the apex than the mitral one, at the septum.
    """

    structures: tuple[StructureMeasurement, ...]
    warnings: tuple[str, ...] = ()
    mitral: ValveMeasurement | None = None
    tricuspid: ValveMeasurement | None = None
    septal_offset_mm: Quantity | None = None

    @property
    def withheld(self) -> tuple[int, ...]:
        """The labels of structures that are not to be written."""
        return tuple(row.label for row in self.structures if row.withheld)

    def of(self, name: str) -> StructureMeasurement:
        """Return the row of a structure."""
        return next(row for row in self.structures if row.name == name)
