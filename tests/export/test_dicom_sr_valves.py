"""The valves in the structured report, read back by highdicom: concepts, sites, units, intervals and reasons."""

import dataclasses

import highdicom
import numpy as np
import pytest
from pydicom.sr.codedict import codes

from heartseg_jax.export.dicom_sr_valves import KINDS
from heartseg_jax.measure.annulus import quantities
from heartseg_jax.measure.json_form import QUANTITIES
from heartseg_jax.measure.results import REFUSED, UNCERTAIN, Quantity, ValveMeasurement
from tests.export.test_dicom_sr import status, values, written
from tests.programs import dciodvfy
from tests.valves import TRICUSPID, saddle

MITRAL_ANNULUS, TRICUSPID_ANNULUS = "65197004", "113259005"


@pytest.fixture(scope="module")
def path(case_of, tmp_path_factory):
    """A report with a measured mitral and an uncertain tricuspid valve."""
    case = case_of("oblique7-3mm")
    reason = "slices of 3 mm are coarse"
    of_models = {**TRICUSPID, "area_cm2": Quantity(11.2, 10.0, 12.1, 10.4567, 12.0)}
    tricuspid = saddle(valve="tricuspid", septal=None, status=UNCERTAIN, reason=reason, quantities=of_models)
    measurements = dataclasses.replace(
        case.measurements, mitral=saddle(), tricuspid=tricuspid, septal_offset_mm=Quantity(4.5, 3.25, 6.0)
    )
    return written(case, tmp_path_factory.mktemp("sr"), measurements)


def group_at(path, site):
    """The one group of measurements with a finding site."""
    groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
    (group,) = [one for one in groups if site in [where.value.value for where in one.finding_sites]]
    return group


@pytest.mark.system
def test_dciodvfy_finds_no_error(path):
    assert dciodvfy(path) == []


def test_the_mitral_annulus_has_its_figures(path):
    group = group_at(path, MITRAL_ANNULUS)
    assert (group.finding_type.value, group.finding_type.scheme_designator) == ("91134007", "SCT")
    assert status(group) == "MEASURED"
    assert values(group) == {
        ("Area", ""): (9.876, "cm2"),
        ("Perimeter", ""): (113.21, "mm"),
        ("Intercommissural diameter", ""): (38.42, "mm"),
        ("Septolateral diameter", ""): (30.15, "mm"),
        ("Height", ""): (6.31, "mm"),
        ("Eccentricity of the annulus", ""): (0.62, "1"),
        ("Angle to the plane of the aortic valve", ""): (121.4, "deg"),
    }


def test_each_interval_is_an_uncertainty_in_the_quantitys_unit(path):
    found = {}
    for measurement in group_at(path, MITRAL_ANNULUS).get_measurements():
        for item in measurement[0].get("ContentSequence", []):
            unit = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
            number = float(item.MeasuredValueSequence[0].NumericValue)
            found[measurement.name.meaning, item.ConceptNameCodeSequence[0].CodeValue] = number, unit
    assert found["Area", "371886008"] == (0.624, "cm2")  # 10.5 - 9.876
    assert found["Area", "371885007"] == (0.776, "cm2")
    assert found["Height", "371885007"] == (0.81, "mm")
    assert not [name for name, _ in found if name.startswith("Eccentricity")], "it has no interval"


def test_the_tricuspid_annulus_has_its_reason_and_the_offset(path):
    group = group_at(path, TRICUSPID_ANNULUS)
    assert group.finding_type.value == "46030003"
    assert status(group) == "UNCERTAIN"
    found = values(group)
    assert found["Major Axis", ""] == (42.0, "mm")
    assert found["Minor Axis", ""] == (33.0, "mm")
    assert found["Offset of the tricuspid annulus towards the apex", ""] == (4.5, "mm")
    assert [item.TextValue for item in group[0].ContentSequence if item.name == codes.DCM.Comment] == [
        "slices of 3 mm are coarse"
    ]


def test_the_least_and_the_greatest_of_several_models_are_said_to_be_so(path):
    group = group_at(path, TRICUSPID_ANNULUS)
    found = values(group)
    assert found["Area", ""] == (11.2, "cm2")
    assert (found["Area", "Minimum"], found["Area", "Maximum"]) == ((10.457, "cm2"), (12.0, "cm2"))
    assert ("Major Axis", "Minimum") not in found, "it has no range"
    methods = {(m.derivation and m.derivation.value): m.method and m.method.value for m in group.get_measurements()}
    assert methods == {None: None, "255605001": "EACH_MODEL", "56851009": "EACH_MODEL"}  # of SNOMED CT


def test_a_refused_valve_has_its_reason_and_no_number(case_of, tmp_path):
    case = case_of("axial-3mm")
    refused = ValveMeasurement("mitral", REFUSED, "the chambers lie apart")
    group = group_at(written(case, tmp_path, dataclasses.replace(case.measurements, mitral=refused)), MITRAL_ANNULUS)
    assert status(group) == "REFUSED"
    assert values(group) == {}
    assert "the chambers lie apart" in [item.get("TextValue") for item in group[0].ContentSequence]


def test_every_quantity_of_the_measurement_has_a_code():
    curve = saddle().curve_mm[None]
    way = np.array([0.0, 0.0, 1.0])
    measured = {name for septal in (None, way) for name in quantities(curve, way, septal, way)}
    assert measured | {"septal_offset_mm"} == set(KINDS)
    assert measured == set(QUANTITIES)  # and a column of the table
    assert all(len(kind.concept.value) <= 16 for kind in KINDS.values())  # of CodeValue
    assert all(len(kind.concept.meaning) <= 64 for kind in KINDS.values())
