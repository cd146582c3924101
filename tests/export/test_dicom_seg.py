"""The segmentation: pydicom's and highdicom's own readers give back the labels, voxel by voxel, where they were."""

import dataclasses

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array

from heartseg_jax.anatomy import HEART, TUMOUR
from heartseg_jax.errors import UserError
from heartseg_jax.export.dicom_seg import write_segmentation
from heartseg_jax.export.registry import EXPORTERS, Options
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.header import read_header
from heartseg_jax.imaging.dicom.segmentation import read_segmentation
from heartseg_jax.imaging.dicom.study import read_contents
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import PARTIAL, REFUSED
from tests.dicom_writer import PLANTED, SERIES, decimal, write_enhanced
from tests.export import studies
from tests.export.studies import GEOMETRIES, WARNING, place, with_row
from tests.programs import dciodvfy

LABEL = {structure.snomed: structure.label for structure in HEART.foreground}


def written(case, folder, measurements=None, prediction=None, options=None):
    write_segmentation(prediction or case.prediction, measurements or case.measurements, folder, options or Options())
    return folder / "segmentation.dcm"


def by_pydicom(path) -> dict:
    """{position: labels [H, W]} of a segmentation, from its frames and functional groups only."""
    dataset = pydicom.dcmread(path)
    codes = {
        s.SegmentNumber: s.SegmentedPropertyTypeCodeSequence[0].CodeValue
        for s in dataset.SegmentSequence
        if s.SegmentNumber
    }
    frames = np.atleast_3d(pixel_array(dataset)).reshape(-1, dataset.Rows, dataset.Columns)
    found = {}
    for frame, groups in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        where = place(groups.PlanePositionSequence[0].ImagePositionPatient)
        plane = found.setdefault(where, np.zeros(frame.shape, np.uint8))
        if dataset.SegmentationType == "LABELMAP":
            for number, code in codes.items():
                plane[frame == number] = LABEL[code]
        else:
            number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            assert frame.any(), "empty frames are left out"
            assert not plane[frame > 0].any(), "segments do not overlap"
            plane[frame > 0] = LABEL[codes[number]]
    return found


def assert_same(found: dict, truth: dict) -> None:
    assert set(found) <= set(truth)
    for where, plane in truth.items():
        np.testing.assert_array_equal(found.get(where, np.zeros_like(plane)), plane)


@pytest.mark.parametrize(
    ("name", "labelmap"), [*((name, False) for name in GEOMETRIES), ("oblique7-3mm", True), ("negated-1mm", True)]
)
def test_every_voxel_comes_back_where_it_was(case_of, segmentation_of, name, labelmap):
    case, geometry, path = case_of(name), GEOMETRIES[name], segmentation_of(name, labelmap)
    assert sorted(np.unique(case.prediction.labels)) == list(range(9)), "the phantom has every structure"
    assert_same(by_pydicom(path), case.truth)

    segmentation = highdicom.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True)
    numbers = {d.segment_number: LABEL.get(d.segmented_property_type.value, 0) for d in segmentation.SegmentSequence}
    table = np.array([numbers.get(k, 0) for k in range(256)], np.uint8)
    found = {place(volume.affine @ [z, 0, 0, 1])[:3]: table[plane] for z, plane in enumerate(volume.array)}
    near = {min(case.truth, key=lambda t: np.abs(np.subtract(t, where)).max()): where for where in found}
    assert max(np.abs(np.subtract(*pair)).max() for pair in near.items()) < 1e-4
    assert_same({true: found[where] for true, where in near.items()}, case.truth)
    np.testing.assert_allclose(volume.spacing, geometry.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(np.stack(volume.unit_vectors(), 1)[:, 1:], geometry.direction[:, 1:], atol=1e-9)


@pytest.mark.system
@pytest.mark.parametrize("name", GEOMETRIES)
def test_dciodvfy_finds_no_error(segmentation_of, name):
    assert dciodvfy(segmentation_of(name)) == []


@pytest.mark.system
def test_of_a_labelmap_dciodvfy_only_dislikes_what_it_does_not_know(segmentation_of):
    """dicom3tools of 2022 know no LABELMAP, whose background may be segment 0 (PS3.3, C.8.20.2)."""
    errors = dciodvfy(segmentation_of("oblique7-3mm", True))
    assert [e for e in errors if "SegmentNumber of 0" not in e and "Information Object Not found" not in e] == []


@pytest.fixture(scope="module")
def enhanced_case(tmp_path_factory):
    return studies.case(tmp_path_factory.mktemp("enhanced"), GEOMETRIES["oblique7-3mm"], enhanced=True)


@pytest.mark.system
def test_dciodvfy_accepts_one_on_an_enhanced_study(enhanced_case):
    assert dciodvfy(written(enhanced_case, enhanced_case.folder)) == []


def test_an_enhanced_study_is_referred_to_frame_by_frame(enhanced_case, tmp_path):
    path, case = written(enhanced_case, tmp_path), enhanced_case
    assert_same(by_pydicom(path), case.truth)
    source, made = pydicom.dcmread(case.folder / "study" / "all.dcm"), pydicom.dcmread(path)
    for groups in made.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (source.SOPClassUID, f"{SERIES}.77")
        own = source.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == own.PlanePositionSequence[0].ImagePositionPatient
    for items in (made.SourceImageSequence, made.ReferencedSeriesSequence[0].ReferencedInstanceSequence):
        assert [item.ReferencedSOPInstanceUID for item in items] == [f"{SERIES}.77"]


def test_enhanced_files_may_state_their_position_once_for_all_frames(tmp_path):
    def share(dataset):
        [own] = dataset.PerFrameFunctionalGroupsSequence
        dataset.SharedFunctionalGroupsSequence[0].PlanePositionSequence = own.PlanePositionSequence
        del own.PlanePositionSequence
        dataset.SOPInstanceUID = f"{SERIES}.{z + 100}"

    (hu, labels), geometry = studies.phantom(), GEOMETRIES["oblique7-3mm"]
    for z in range(len(hu)):
        file = tmp_path / "study" / f"{z}.dcm"
        write_enhanced(file, hu[z : z + 1], geometry.spacing_mm, geometry.position(z), geometry.direction, share)
    truth = {place(np.array(decimal(geometry.position(z)), float)): labels[z] for z in range(len(labels))}
    prediction = studies.predicted(tmp_path / "study", truth)
    write_segmentation(prediction, studies.measured(labels, prediction.volume), tmp_path, Options())
    assert_same(by_pydicom(tmp_path / "segmentation.dcm"), truth)


def test_a_series_in_two_enhanced_files_refers_to_both(tmp_path):
    hu, labels = studies.phantom()
    geometry, half = GEOMETRIES["axial-3mm"], len(labels) // 2
    for part, start in (("a", 0), ("b", half)):

        def name(dataset, part=part):
            dataset.SOPInstanceUID = f"{SERIES}.{ord(part)}"

        write_enhanced(
            tmp_path / "study" / f"{part}.dcm",
            hu[start : start + half],
            geometry.spacing_mm,
            geometry.position(start),
            geometry.direction,
            name,
        )
    truth = {place(geometry.position(z)): labels[z] for z in range(2 * half)}
    prediction = studies.predicted(tmp_path / "study", truth)
    write_segmentation(prediction, studies.measured(labels, prediction.volume), tmp_path, Options())
    assert_same(by_pydicom(tmp_path / "segmentation.dcm"), truth)
    made = pydicom.dcmread(tmp_path / "segmentation.dcm")
    images = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, (tmp_path / "study").iterdir())}
    assert {item.ReferencedSOPInstanceUID for item in made.SourceImageSequence} == set(images)
    for groups in made.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        own = images[item.ReferencedSOPInstanceUID].PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        assert own.PlanePositionSequence[0].ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient


@pytest.mark.parametrize("labelmap", [False, True], ids=["binary", "labelmap"])
def test_prepare_reads_the_same_labels_from_it(case_of, segmentation_of, labelmap):
    case, path = case_of("oblique7-3mm"), segmentation_of("oblique7-3mm", labelmap)
    header = read_header(Source(path.name, lambda: path.open("rb")))
    (candidate,) = read_contents(case.folder / "study").candidates
    read = read_segmentation(header, candidate.stack)
    np.testing.assert_array_equal(read.labels, case.prediction.labels)
    assert (read.known, read.strange, read.overlapping) == (frozenset(range(1, 9)), 0, 0)


def test_each_frame_refers_to_its_own_slice(case_of, tmp_path):
    case = case_of("negated-3mm")
    made = pydicom.dcmread(written(case, tmp_path))
    slices = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, (case.folder / "study").iterdir())}
    for groups in made.PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        own = slices[item.ReferencedSOPInstanceUID]
        assert place(own.ImagePositionPatient) == place(groups.PlanePositionSequence[0].ImagePositionPatient)
    (referenced,) = made.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == set(slices)
    assert referenced.SeriesInstanceUID == SERIES


def test_it_says_what_it_is_and_who_made_it(case_of, tmp_path):
    case = case_of("axial-3mm")
    measurements = with_row(case.measurements, "left_atrium", status=PARTIAL, reason="it is cut by the border")
    made = pydicom.dcmread(written(case, tmp_path, measurements))
    for text in (made.SeriesDescription, made.ContentDescription, made.ImageComments):
        assert "Research use only, not for diagnosis" in text
    assert WARNING in made.ImageComments
    assert "ab12ab12ab12ab12" in made.ImageComments
    assert "zwicknagl" not in str(made.to_json()).replace(PLANTED["PatientName"], ""), "no path of a run"
    assert (made.Manufacturer, made.DeviceSerialNumber) == ("heartseg_jax", "ab12ab12ab12ab12")
    for segment, structure in zip(made.SegmentSequence, HEART.foreground, strict=True):
        kind, algorithm = (
            segment.SegmentedPropertyTypeCodeSequence[0],
            segment.SegmentationAlgorithmIdentificationSequence[0],
        )
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == (structure.snomed, "SCT")
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert "Research use only" in segment.SegmentAlgorithmName
        assert "ab12ab12ab12ab12" in algorithm.AlgorithmParameters
        colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(colour.to_rgb(), structure.display_rgb)).max() <= 1
        assert ("it is cut by the border" in segment.get("SegmentDescription", "")) == (segment.SegmentNumber == 2)


def test_patient_and_study_are_those_of_the_images(case_of, tmp_path):
    made = pydicom.dcmread(written(case_of("axial-3mm"), tmp_path))
    for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert made[name].value == PLANTED[name]
    assert made.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    assert made.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.3"
    assert made.SeriesInstanceUID != SERIES
    assert made.Modality == "SEG"


def test_absent_and_withheld_structures_have_no_segment(case_of, tmp_path):
    case = case_of("axial-3mm")
    labels = np.where(case.prediction.labels == 3, 0, case.prediction.labels).astype(np.uint8)
    prediction = dataclasses.replace(case.prediction, labels=labels)
    measurements = with_row(
        case.measurements, "descending_aorta", status=REFUSED, reason="members disagree", withheld=True
    )
    found = by_pydicom(written(case, tmp_path, measurements, prediction))
    kept = {where: np.where(np.isin(plane, (3, 6)), 0, plane) for where, plane in case.truth.items()}
    assert_same(found, kept)
    made = pydicom.dcmread(tmp_path / "segmentation.dcm")
    assert [segment.SegmentNumber for segment in made.SegmentSequence] == [1, 2, 3, 4, 5, 6]


def test_nothing_segmented_is_no_file_and_a_line(case_of, tmp_path, capsys):
    case = case_of("axial-3mm")
    prediction = dataclasses.replace(case.prediction, labels=np.zeros_like(case.prediction.labels))
    write_segmentation(prediction, case.measurements, tmp_path, Options())
    assert list(tmp_path.iterdir()) == []
    assert "segmentation.dcm" in capsys.readouterr().err


def test_a_structure_without_snomed_has_a_private_code(case_of, tmp_path):
    case = case_of("axial-3mm")
    prediction: Prediction = dataclasses.replace(
        case.prediction,
        labels=(case.prediction.labels == 3).astype(np.uint8),
        contract=dataclasses.replace(case.prediction.contract, task="tumour"),
    )
    measurements = studies.measured(prediction.labels, prediction.volume, TUMOUR)
    made = pydicom.dcmread(written(case, tmp_path, measurements, prediction))
    (segment,) = made.SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("TU", "99HEARTSEG", "Tumour")
    assert sum(int(frame.sum()) for frame in pixel_array(made)) == int((case.prediction.labels == 3).sum())


def odd(dataset, z):
    """A valid header of the odd kind: optional attributes are missing, and the name is in Cyrillic and in Japanese."""
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 144", "ISO 2022 IR 87"]
    dataset.PatientName = "Мюллер^Анна=山田^花子"
    for name in ("AccessionNumber", "PatientBirthDate", "SliceThickness"):
        del dataset[name]
    dataset.PatientSex, dataset.PatientIdentityRemoved = "W", "YES"
    dataset.StudyDate = "20.01.2020"
    dataset.ReferringPhysicianName = ["Doe^Jane", "Roe^Richard"]
    dataset.ImageOrientationPatient = [float(v) + 1e-7 * z for v in dataset.ImageOrientationPatient]


@pytest.fixture(scope="module")
def odd_case(tmp_path_factory):
    return studies.case(tmp_path_factory.mktemp("odd"), GEOMETRIES["axial-3mm"], edit=odd)


@pytest.mark.system
def test_odd_headers_pass_dciodvfy(odd_case):
    assert dciodvfy(written(odd_case, odd_case.folder)) == []


def test_odd_headers_are_put_right_and_the_name_is_kept(odd_case, tmp_path):
    path = written(odd_case, tmp_path)
    made = pydicom.dcmread(path)
    assert made.PatientName == "Мюллер^Анна=山田^花子"
    assert made.PatientID == PLANTED["PatientID"]
    assert (made.AccessionNumber, made.PatientSex, made.StudyDate) == ("", "", "")
    assert made.ReferringPhysicianName == "Doe^Jane"
    assert_same(by_pydicom(path), odd_case.truth)


def without(name):
    def edit(dataset, z):
        del dataset[name]

    return edit


def test_objects_of_images_without_a_frame_of_reference_share_one(tmp_path, capsys):
    case = studies.case(tmp_path, GEOMETRIES["axial-3mm"], edit=without("FrameOfReferenceUID"))
    first = pydicom.dcmread(written(case, tmp_path)).FrameOfReferenceUID
    assert "FrameOfReferenceUID" in capsys.readouterr().err
    again = studies.predicted(case.folder / "study", case.truth)
    assert pydicom.dcmread(written(case, tmp_path, prediction=again)).FrameOfReferenceUID == first


@pytest.mark.parametrize(("name", "value"), [("StudyInstanceUID", ""), ("SOPInstanceUID", "1.2.3")])
def test_what_cannot_be_referred_to_is_refused(tmp_path, name, value):
    def edit(dataset, z):
        setattr(dataset, name, value)

    case = studies.case(tmp_path, GEOMETRIES["axial-3mm"], edit=edit)
    with pytest.raises(UserError, match=rf"{name}.*--export"):
        written(case, tmp_path)
    assert not (tmp_path / "segmentation.dcm").exists()


def test_a_file_that_has_changed_is_refused(tmp_path):
    case = studies.case(tmp_path, GEOMETRIES["axial-3mm"])
    path = case.folder / "study" / "CT1_0007.dcm"
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = "1.2.3"
    dataset.save_as(path)
    with pytest.raises(UserError, match="CT1_0007.dcm"):
        written(case, tmp_path)


@pytest.mark.system
@pytest.mark.parametrize(
    "path",
    [
        pytest.param("chest_native/siemens_8mm.zip", marks=pytest.mark.slow),
        "transfer_syntaxes/CT1_J2KR",
        "odd/693_J2KI.dcm",
    ],
)
def test_objects_of_real_images_pass_dciodvfy(shared, tmp_path, path):
    prediction = studies.striped(shared / "data" / "dicom" / path)
    measurements = studies.measured(prediction.labels, prediction.volume)
    for name in ("dicom_seg", "dicom_sr", "rtstruct"):
        EXPORTERS[name].write(prediction, measurements, tmp_path, Options())
    for file in ("segmentation.dcm", "report.dcm", "rtstruct.dcm"):
        assert dciodvfy(tmp_path / file) == []


def test_an_anonymised_series_without_uids_is_refused(shared, tmp_path):
    prediction = studies.striped(shared / "data" / "dicom" / "siemens_series_j2k")
    measurements = studies.measured(prediction.labels, prediction.volume)
    with pytest.raises(UserError, match="SOPInstanceUID"):
        write_segmentation(prediction, measurements, tmp_path, Options())
