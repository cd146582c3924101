"""The structured report, read back by highdicom: every figure, status and reference."""

import dataclasses

import highdicom
import pydicom
import pytest
from pydicom.sr.codedict import codes

from heartseg_jax.anatomy import HEART
from heartseg_jax.export.dicom_seg import write_segmentation
from heartseg_jax.export.dicom_sr import write_report
from heartseg_jax.export.registry import Options
from heartseg_jax.measure.results import ABSENT, PARTIAL, REFUSED
from tests.dicom_writer import PLANTED, SERIES
from tests.export import studies
from tests.export.studies import GEOMETRIES, WARNING, with_row
from tests.programs import dciodvfy


def written(case, folder, measurements=None, segmentation=True):
    """The report, with or without a segmentation beside it."""
    measurements = measurements or case.measurements
    if segmentation:
        write_segmentation(case.prediction, measurements, folder, Options())
    write_report(case.prediction, measurements, folder, Options())
    return folder / "report.dcm"


def values(group) -> dict:
    """{(name, derivation): (value, unit)} of a group's measurements."""
    return {
        (m.name.meaning, m.derivation.meaning if m.derivation else ""): (m.value, m.unit.value)
        for m in group.get_measurements()
    }


def status(group) -> str:
    """The status of a group's measurements."""
    (found,) = [e.value.value for e in group.get_qualitative_evaluations() if e.name.value == "STATUS"]
    return found


def texts(path) -> list[str]:
    """Comments at the root of the report."""
    return [item.TextValue for item in pydicom.dcmread(path).ContentSequence if item.ValueType == "TEXT"]


@pytest.fixture(scope="module")
def full(case_of, tmp_path_factory):
    """A report with all that can be said."""
    case = case_of("oblique7-3mm")
    changes = {"normal_range_ml": (62.0, 120.0), "within_normal_range": False}
    changes |= {"confidence": 0.812345, "agreement": 0.912345}
    measurements = with_row(case.measurements, "left_ventricle", **changes)
    measurements = with_row(measurements, "left_atrium", status=PARTIAL, reason="it is cut by the border")
    nothing = dict.fromkeys(("volume_ml", "mean_hu", "sd_hu", "extent_mm", "cut_face_share")) | {"withheld": True}
    measurements = with_row(measurements, "vena_cava", status=REFUSED, reason="members disagree", **nothing)
    return case, measurements, written(case, tmp_path_factory.mktemp("sr"), measurements)


@pytest.mark.system
def test_dciodvfy_finds_no_error(full):
    assert dciodvfy(full[2]) == []


@pytest.mark.system
def test_dciodvfy_finds_none_without_a_segmentation_either(case_of, tmp_path):
    assert dciodvfy(written(case_of("negated-1mm"), tmp_path, segmentation=False)) == []


def test_highdicom_reads_every_figure(full):
    _, measurements, path = full
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [g.finding_type.value for g in groups] == [s.snomed for s in HEART.foreground if s.name != "vena_cava"]
    for group, row in zip(groups, measurements.structures, strict=False):
        found = values(group)
        assert found["Volume", ""] == (pytest.approx(row.volume_ml, abs=1e-3), "mL")
        assert found["Attenuation Coefficient", "Mean"] == (pytest.approx(row.mean_hu, abs=0.01), "[hnsf'U]")
        assert found["Attenuation Coefficient", "Standard Deviation"][0] == pytest.approx(row.sd_hu, abs=0.01)
        assert found["Extent from right to left", ""] == (50.0, "mm")
        assert found["Extent from anterior to posterior", ""] == (40.0, "mm")
        assert found["Extent from inferior to superior", ""] == (30.0, "mm")
    assert values(groups[2])["Mean probability of the structure in its voxels", ""] == (0.8123, "1")
    assert values(groups[2])["Mean pairwise Dice between models, or views of one model", ""] == (0.9123, "1")
    assert ("Mean pairwise Dice between models, or views of one model", "") not in values(groups[0])


def test_each_group_refers_to_its_own_segment(full):
    _, _, path = full
    segmentation = pydicom.dcmread(path.with_name("segmentation.dcm"))
    segments = {s.SegmentNumber: s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in segmentation.SegmentSequence}
    for group in highdicom.sr.srread(path).content.get_volumetric_roi_measurement_groups():
        (item,) = [item for item in group[0].ContentSequence if item.name == codes.DCM.ReferencedSegment]
        (reference,) = item.ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert segments[reference.ReferencedSegmentNumber] == group.finding_type.value


def test_the_normal_range_is_there_with_its_source(full):
    group = highdicom.sr.srread(full[2]).content.get_volumetric_roi_measurement_groups()[2]
    volume = next(m for m in group.get_measurements() if m.name == codes.SCT.Volume)
    inner = {i.name.meaning: i for i in map(highdicom.sr.ContentItem._from_dataset_derived, volume[0].ContentSequence)}
    assert inner["Normal Range Lower Limit"].value == 62
    assert inner["Normal Range Upper Limit"].value == 120
    assert "Fuchs" in inner["Normal Range Authority"].value
    assert not [item for item in inner.values() if item.ValueType == "CODE"], "no verdict"


def test_statuses_and_reasons_are_there(full):
    content = highdicom.sr.srread(full[2]).content
    groups = [*content.get_volumetric_roi_measurement_groups(), *content.get_image_measurement_groups()]
    found = {}
    for group in groups:
        reasons = [item.TextValue for item in group[0].ContentSequence if item.name == codes.DCM.Comment]
        found[group.finding_type.meaning] = (status(group), reasons)
    assert found["Left atrium"] == ("PARTIAL", ["it is cut by the border"])
    assert found["Vena cava"] == ("REFUSED", ["members disagree"])
    assert found["Right ventricle"] == ("MEASURED", [])


def test_a_withheld_structure_has_no_figure_and_no_segment(full):
    (group,) = highdicom.sr.srread(full[2]).content.get_image_measurement_groups()
    assert group.finding_type.meaning == "Vena cava"
    assert values(group) == {}


def test_a_structure_whose_volume_alone_is_refused_keeps_its_segment(case_of, tmp_path):
    case = case_of("axial-3mm")
    measurements = with_row(case.measurements, "left_atrium", status=REFUSED, reason="too coarse", volume_ml=None)
    groups = highdicom.sr.srread(written(case, tmp_path, measurements)).content.get_volumetric_roi_measurement_groups()
    assert (groups[1].finding_type.meaning, status(groups[1])) == ("Left atrium", "REFUSED")
    assert ("Volume", "") not in values(groups[1])
    segment = pydicom.dcmread(tmp_path / "segmentation.dcm").SegmentSequence[1]
    assert "too coarse" in segment.SegmentDescription


def test_it_says_what_it_is_by_which_model(full):
    _, _, path = full
    said = texts(path)
    assert "Research use only, not for diagnosis." in said
    assert f"Warning: {WARNING}" in said
    assert any("ab12ab12ab12ab12" in text for text in said)
    made = pydicom.dcmread(path)
    assert "Research use only" in made.SeriesDescription
    assert (made.PreliminaryFlag, made.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    observer = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue")
        for item in made.ContentSequence
        if item.RelationshipType == "HAS OBS CONTEXT"
    }
    assert observer["Device Observer Name"] == "heartseg_jax"
    assert observer["Device Observer Serial Number"] == "ab12ab12ab12ab12"
    assert "zwicknagl" not in made.to_json().lower().replace(PLANTED["PatientName"].lower(), ""), "no path of a run"


def test_it_belongs_to_the_patient_and_names_the_images_as_evidence(full):
    case, _, path = full
    made = pydicom.dcmread(path)
    for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert made[name].value == PLANTED[name]
    (study,) = made.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == made.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    evidence = {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        if series.SeriesInstanceUID == SERIES
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {frame.uid for frame in case.prediction.volume.frames}


def test_without_a_segmentation_all_is_said_but_the_segments(case_of, tmp_path):
    case = case_of("oblique7-3mm")
    content = highdicom.sr.srread(written(case, tmp_path, segmentation=False)).content
    assert content.get_volumetric_roi_measurement_groups() == []
    groups = content.get_image_measurement_groups()
    assert len(groups) == 8
    assert values(groups[0])["Volume", ""][0] == pytest.approx(case.measurements.structures[0].volume_ml, abs=1e-3)


def test_a_study_without_any_structure_is_reported_as_such(case_of, tmp_path):
    case = case_of("axial-3mm")
    prediction = dataclasses.replace(case.prediction, labels=case.prediction.labels * 0)
    measurements = studies.measured(prediction.labels, prediction.volume)
    case = case._replace(prediction=prediction, measurements=measurements)
    groups = highdicom.sr.srread(written(case, tmp_path)).content.get_image_measurement_groups()
    assert [status(group) for group in groups] == [ABSENT.upper()] * 8


def test_libraries_do_not_quote_the_patients_name(tmp_path, capsys, caplog, recwarn):
    def edit(dataset, z):
        dataset.PatientName = "Leopoldine Zwicknagl"

    case = studies.case(tmp_path, GEOMETRIES["axial-3mm"], edit=edit)
    recwarn.clear()
    written(case, tmp_path)
    said = "".join([*capsys.readouterr(), caplog.text, *(str(one.message) for one in recwarn)])
    assert "Zwicknagl" not in said
    assert pydicom.dcmread(tmp_path / "report.dcm").PatientName == "Leopoldine Zwicknagl"
