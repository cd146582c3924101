"""RT structure sets, drawn by hand and by the project's own exporter, onto the grid of their series."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.rtstruct import read_structure_set, structure_set_references
from heartseg_jax.imaging.dicom.study import read_contents
from tests.dicom_writer import SERIES, axes, decimal, write_series

SPACING, ORIGIN, DIRECTION = (3.0, 1.5, 1.25), (-60.0, -75.5, -200.0), axes(20)
SHAPE = (9, 24, 20)
REFERENCE = "1.2.826.0.1.3680043.8.498.3"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    hu = np.random.default_rng(0).integers(-100, 300, SHAPE).astype(np.int16)
    write_series(folder, hu, SPACING, ORIGIN, DIRECTION)
    return read_contents(folder).candidates[0].stack


def points(z, polygon):
    """Contour data of (row, column) in slice z."""
    places = np.array([(z, row, column) for row, column in polygon], float)
    return decimal((np.array(ORIGIN) + (places * SPACING) @ DIRECTION.T).ravel())


def box(top, left, bottom, right):
    """Around the pixels from top left to bottom right, halfway to their neighbours."""
    a, b, c, d = top - 0.5, left - 0.5, bottom + 0.5, right + 0.5
    return [(a, b), (a, d), (c, d), (c, b)]


def contour(z, polygon, kind="CLOSED_PLANAR", image=None):
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(polygon)
    item.ContourData = points(z, polygon)
    if image is not None:
        item.ContourImageSequence = [Dataset()]
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = f"{SERIES}.1.{image + 1}"
    return item


def write(path, regions, edit=None, reference=REFERENCE):
    """Write {name: contours} as a structure set."""
    made = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = RTStructureSetStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = f"{SERIES}.99"
    made.Modality, made.SeriesInstanceUID, made.SpecificCharacterSet = "RTSTRUCT", f"{SERIES}.98", "ISO_IR 192"
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = SERIES
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        roi, drawn, seen = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, reference
        drawn.ReferencedROINumber = seen.ReferencedROINumber = number
        drawn.ContourSequence = contours
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
        made.RTROIObservationsSequence.append(seen)
    if edit:
        edit(made)
    made.save_as(path, enforce_file_format=True)
    (header,) = read_contents(path).structure_sets
    return header


def test_contours_fill_their_slices(tmp_path, stack):
    regions = {
        "Left Atrium": [contour(2, box(3, 4, 8, 9)), contour(2, box(5, 6, 6, 7)), contour(3, box(3, 4, 8, 9), image=3)],
        "LV": [contour(7, box(10, 2, 12, 5))],
        "Heart": [contour(4, box(1, 1, 5, 5))],
    }
    header = write(tmp_path / "rt.dcm", regions)
    read, found = read_structure_set(header, stack)
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:4, 3:9, 4:10] = 2
    expected[2, 5:7, 6:8] = 0
    expected[7, 10:13, 2:6] = 3
    np.testing.assert_array_equal(read.labels, expected)
    assert (read.known, read.strange, read.overlapping, found) == ({2, 3}, 1, 0, [])
    assert structure_set_references(header).series_uid == SERIES


def test_overlaps_of_structures_and_of_contours(tmp_path, stack):
    atrium = [contour(2, box(3, 4, 8, 9)), contour(2, box(7, 8, 11, 12)), contour(2, box(3, 4, 8, 9))]
    read, found = read_structure_set(
        write(tmp_path / "rt.dcm", {"LA": atrium, "LV": [contour(2, box(3, 4, 3, 6))]}), stack
    )
    assert read.overlapping == 3
    assert (read.labels[2, 3, 4:7] == 255).all()
    assert (read.labels[2, 7:9, 8:10] == 255).all()
    assert (read.labels == 255).sum() == 7
    assert [one.check for one in found] == ["contour_copies", "crossing_contours"]


def test_voxels_where_the_contours_of_two_structures_cross_are_counted_once(tmp_path, stack):
    crossing = [contour(2, box(3, 4, 8, 9)), contour(2, box(7, 8, 11, 12))]
    read, found = read_structure_set(write(tmp_path / "rt.dcm", {"LA": crossing, "LV": crossing}), stack)
    assert read.overlapping == 6 * 6 + 5 * 5 - 2 * 2
    assert (read.labels == 255).sum() == read.overlapping
    assert [(one.check, one.seen.split()[0]) for one in found] == [("crossing_contours", "4")]


def test_codes_maps_and_empty_regions(tmp_path, stack):
    def coded(made):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "87878005", "SCT"
        made.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence = [code]

    regions = {
        "a": [contour(2, box(3, 4, 8, 9))],
        "Aurícula": [contour(2, box(10, 4, 12, 9))],
        "RV": [],
    }
    read, found = read_structure_set(write(tmp_path / "rt.dcm", regions, coded), stack, {"Aurícula": 2})
    assert (read.labels[2, 3, 4], read.labels[2, 10, 4]) == (3, 2)
    assert read.known == {2, 3}, "a region that nobody has drawn in says nothing"
    assert [one.check for one in found] == ["empty_regions"]


def test_slices_that_were_skipped_are_warned_of(tmp_path, stack):
    atrium = [contour(z, box(3, 4, 8, 9)) for z in (0, 1, 2, 4, 5)]
    _, found = read_structure_set(write(tmp_path / "rt.dcm", {"LA": atrium}), stack)
    assert [(one.check, one.seen.split()[0]) for one in found] == [("contour_gaps", "1")]


def shortened(made):
    made.ROIContourSequence[0].ContourSequence[0].ContourData = [1.0, 2.0]


def not_finite(made):
    data = made.ROIContourSequence[0].ContourSequence[0]
    data.ContourData = ["1e400", *[str(value) for value in data.ContourData[1:]]]


def undescribed(made):
    made.ROIContourSequence[0].ReferencedROINumber = 7


GOOD = [contour(2, box(3, 4, 8, 9))]


@pytest.mark.parametrize(
    ("contours", "how", "words"),
    [
        ([contour(2.2, box(3, 4, 8, 9))], {}, "0.60 mm from the nearest"),
        ([contour(11, box(3, 4, 8, 9))], {}, "mm from the nearest"),
        ([contour(2, box(3, 4, 8, 22))], {}, "beyond the image"),
        ([contour(2, box(3, 4, 8, 9), image=3)], {}, "image of another slice"),
        ([contour(2, [(3, 4)], kind="POINT")], {}, "POINT"),
        ([contour(z, box(3, 4, 8, 9)) for z in (0, 2, 4, 6)], {}, "2 slices apart"),
        (GOOD, {"reference": "1.2.3"}, "frame of reference"),
        (GOOD, {"edit": shortened}, "as many points"),
        (GOOD, {"edit": not_finite}, "ContourData"),
        (GOOD, {"edit": undescribed}, "does not describe"),
        ([], {}, "no contour"),
    ],
)
def test_refusals(tmp_path, stack, contours, how, words):
    with pytest.raises(UserError, match=words) as error:
        read_structure_set(write(tmp_path / "rt.dcm", {"LA": contours}, **how), stack)
    assert "rt.dcm" in str(error.value)


def test_a_contour_across_the_slices_is_refused(tmp_path, stack):
    item = contour(2, box(3, 4, 8, 9))
    item.ContourData = [*item.ContourData[:9], *contour(3, box(3, 4, 8, 9)).ContourData[9:]]
    with pytest.raises(UserError, match="across"):
        read_structure_set(write(tmp_path / "rt.dcm", {"LA": [item]}), stack)


def test_a_real_one_without_the_heart(shared, stack):
    (header,) = read_contents(shared / "data" / "dicom" / "odd" / "rtstruct.dcm").structure_sets
    with pytest.raises(UserError, match="none of the 3 segments of rtstruct.dcm"):
        read_structure_set(header, stack)
    with pytest.raises(UserError, match=r"rtstruct.dcm lies in another frame of reference"):
        read_structure_set(header, stack, {"patient": 3})
