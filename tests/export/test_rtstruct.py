"""The RT structure set, rasterised by skimage and by Pillow on the grid of the images that it refers to."""

import dataclasses

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask

from heartseg_jax.anatomy import HEART
from heartseg_jax.export.registry import Options
from heartseg_jax.export.rtstruct import write_rtstruct
from heartseg_jax.measure.results import PARTIAL, REFUSED
from tests.dicom_writer import PLANTED, SERIES
from tests.export import studies
from tests.export.studies import GEOMETRIES, WARNING, with_row
from tests.programs import dciodvfy


def written(case, folder, measurements=None):
    write_rtstruct(case.prediction, measurements or case.measurements, folder, Options())
    return folder / "rtstruct.dcm"


def planes(folder) -> dict:
    """{UID: (position, steps [2, 3] per row and column, shape)} of the images, as pydicom reads them."""
    found = {}
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        turn, (down, across) = np.array(image.ImageOrientationPatient, float), image.PixelSpacing
        steps = np.stack([turn[3:] * down, turn[:3] * across])
        found[image.SOPInstanceUID] = np.array(image.ImagePositionPatient, float), steps, (image.Rows, image.Columns)
    return found


def by_skimage(points, shape):
    return polygon2mask(shape, points)


def by_pillow(points, shape):
    """Pillow, whose pixels are filled where their middle is within, drawn four times as large: its outline is broad."""
    image = Image.new("1", (4 * shape[1], 4 * shape[0]))
    ImageDraw.Draw(image).polygon([(4 * x + 1.5, 4 * y + 1.5) for y, x in points], fill=1, outline=0)
    return np.asarray(image)[1::4, 1::4]


def rasterised(path, images, draw, combine) -> dict:
    """{name: {UID: mask [H, W]}} of a structure set."""
    made = pydicom.dcmread(path)
    names = {roi.ROINumber: roi.ROIName for roi in made.StructureSetROISequence}
    found = {}
    for roi in made.ROIContourSequence:
        masks = found.setdefault(names[roi.ReferencedROINumber], {})
        for contour in roi.ContourSequence:
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            position, steps, shape = images[uid]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            away = np.cross(steps[1], steps[0]) @ (points - position).T / np.prod(np.linalg.norm(steps, axis=1))
            assert np.abs(away).max() < 2e-3, "in the plane of its image"
            pixels = np.stack([(points - position) @ step / (step @ step) for step in steps], axis=1)
            mask = draw(pixels, shape)
            masks[uid] = combine(masks[uid], mask) if uid in masks else mask
    return found


def dice(found: dict, case, structure) -> float:
    """Of one structure over all slices; those without a contour count as empty."""
    both = total = 0
    for frame, plane in zip(case.prediction.volume.frames, case.prediction.labels, strict=True):
        truth = plane == structure.label
        mask = found.get(frame.uid, np.zeros_like(truth))
        both, total = both + int((truth & mask).sum()), total + int(truth.sum() + mask.sum())
    return 2 * both / total


@pytest.fixture(scope="module")
def structure_set_of(case_of, tmp_path_factory):
    made = {}

    def structure_set(name):
        if name not in made:
            made[name] = written(case_of(name), tmp_path_factory.mktemp("rt"))
        return made[name]

    return structure_set


@pytest.mark.parametrize(
    ("draw", "combine", "least"),
    [(by_skimage, np.logical_or, 1.0), (by_skimage, np.logical_xor, 1.0), (by_pillow, np.logical_xor, 0.98)],
    ids=["skimage-or", "skimage-xor", "pillow"],
)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_other_libraries_rasterise_it_to_the_labels(case_of, structure_set_of, name, draw, combine, least):
    case = case_of(name)
    found = rasterised(structure_set_of(name), planes(case.folder / "study"), draw, combine)
    scores = {s.name: dice(found[s.name.replace("_", " ").capitalize()], case, s) for s in HEART.foreground}
    assert min(scores.values()) >= least, scores


@pytest.mark.system
@pytest.mark.parametrize("name", GEOMETRIES)
def test_dciodvfy_finds_no_error(structure_set_of, name):
    assert dciodvfy(structure_set_of(name)) == []


@pytest.mark.parametrize("combine", [np.logical_or, np.logical_xor], ids=["or", "xor"])
def test_holes_and_islands_in_them_are_kept(case_of, tmp_path, combine):
    case = case_of("oblique30-1mm")
    labels = np.zeros_like(case.prediction.labels)
    labels[5:9, 4:40, 2:42] = 3
    labels[5:9, 8:34, 10:24] = 2
    labels[5:9, 14:20, 14:20] = 3
    labels[5:9, 10:30, 28:38] = 0
    case = case._replace(prediction=dataclasses.replace(case.prediction, labels=labels))
    found = rasterised(written(case, tmp_path), planes(case.folder / "study"), by_skimage, combine)
    assert [
        dice(found[name], case, HEART.structures[k]) for name, k in (("Left atrium", 2), ("Left ventricle", 3))
    ] == [1, 1]


def test_every_number_has_at_most_16_characters_as_it_is_in_the_file(structure_set_of):
    made = pydicom.dcmread(structure_set_of("oblique30-3mm"))
    numbers = [
        part
        for roi in made.ROIContourSequence
        for contour in roi.ContourSequence
        for part in contour.get_item("ContourData").value.decode().strip().split("\\")
    ]
    assert len(numbers) > 2_000
    assert max(map(len, numbers)) <= 16


def test_it_refers_to_frame_of_reference_study_series_and_every_image(case_of, structure_set_of):
    made = pydicom.dcmread(structure_set_of("axial-3mm"))
    (frame,) = made.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == made.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.3"
    assert study.ReferencedSOPInstanceUID == made.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.2"
    assert series.SeriesInstanceUID == SERIES
    images = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert images == [one.uid for one in case_of("axial-3mm").prediction.volume.frames]
    assert {roi.ReferencedFrameOfReferenceUID for roi in made.StructureSetROISequence} == {frame.FrameOfReferenceUID}


def test_names_colours_codes_and_the_research_use_line(case_of, tmp_path):
    case = case_of("axial-3mm")
    measurements = with_row(case.measurements, "left_atrium", status=PARTIAL, reason="it is cut by the border")
    made = pydicom.dcmread(written(case, tmp_path, measurements))
    rows = zip(
        made.StructureSetROISequence,
        made.ROIContourSequence,
        made.RTROIObservationsSequence,
        HEART.foreground,
        strict=True,
    )
    for number, (roi, contours, observation, structure) in enumerate(rows, 1):
        assert roi.ROINumber == contours.ReferencedROINumber == observation.ReferencedROINumber == number
        assert roi.ROIName == structure.name.replace("_", " ").capitalize()
        assert tuple(contours.ROIDisplayColor) == structure.display_rgb
        assert observation.RTROIIdentificationCodeSequence[0].CodeValue == structure.snomed
        assert observation.RTROIInterpretedType == "ORGAN"
        assert roi.ROIVolume == pytest.approx(measurements.structures[number - 1].volume_ml, abs=1e-3)
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
        assert "Research use only" in roi.ROIGenerationDescription
    assert "it is cut by the border" in made.StructureSetROISequence[1].ROIDescription
    for text in (made.SeriesDescription, made.StructureSetName, made.StructureSetDescription):
        assert "Research use only, not for diagnosis" in text
    assert WARNING in made.StructureSetDescription
    assert "ab12ab12ab12ab12" in made.StructureSetDescription
    assert made.ApprovalStatus == "UNAPPROVED"
    assert (made.PatientName, made.PatientID) == (PLANTED["PatientName"], PLANTED["PatientID"])


def test_withheld_and_absent_structures_have_no_contour(case_of, tmp_path, capsys):
    case = case_of("axial-3mm")
    measurements = with_row(case.measurements, "left_atrium", status=REFUSED, reason="members disagree", withheld=True)
    made = pydicom.dcmread(written(case, tmp_path, measurements))
    assert "Left atrium" not in [roi.ROIName for roi in made.StructureSetROISequence]
    assert len(made.ROIContourSequence) == 7

    empty = case._replace(prediction=dataclasses.replace(case.prediction, labels=case.prediction.labels * 0))
    (tmp_path / "none").mkdir()
    written(empty, tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []
    assert "rtstruct.dcm" in capsys.readouterr().err


def test_of_an_enhanced_image_each_contour_names_its_frame(tmp_path):
    case = studies.case(tmp_path, GEOMETRIES["oblique7-3mm"], enhanced=True)
    made = pydicom.dcmread(written(case, tmp_path))
    source = pydicom.dcmread(tmp_path / "study" / "all.dcm")
    for contour in made.ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        own = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        position = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert np.abs((points - position) @ GEOMETRIES["oblique7-3mm"].direction[:, 0]).max() < 2e-3
    (frame,) = made.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    (image,) = series.ContourImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "ReferencedFrameNumber" not in image
