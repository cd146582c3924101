"""The labels as contours for radiotherapy: a DICOM RT structure set, by pydicom."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from heartseg_jax.export.contours import outlines
from heartseg_jax.export.dicom_source import CHARACTER_SET, SourceSeries, source_series
from heartseg_jax.export.registry import Options
from heartseg_jax.export.segments import (
    Segment,
    code_of,
    decimal,
    fitted,
    maker_of,
    new_uid,
    quietly,
    series_description,
    title,
    written_segments,
)
from heartseg_jax.export.statement import PROGRAM, RESEARCH_USE, statement
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements
from heartseg_jax.progress import say

FILE = "rtstruct.dcm"
SERIES_NUMBER = 9003
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Retired, but what a reference to a study needs (PS3.3, C.8.8.5) has no other."""
DESCRIPTION = 1024
"""Characters of a description (VR ST)."""
CONTOUR_DATA = Tag("ContourData")
ENCODING = (True, True)
"""Implicit and little-endian, which needs no VR: in explicit VR the points of a contour are 65,534 bytes at most."""


def write_rtstruct(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `rtstruct.dcm`: a region of interest per structure that is there and not withheld.

    Nothing is written, and a line says so, where there is none.

    Raises:
      UserError: the images lack what a reference to them needs.
    """
    segments = written_segments(prediction, measurements)
    if not segments:
        say(f"{FILE} is not written: no structure was segmented")
        return
    series = source_series(prediction)
    with quietly():
        # A description has 1024 characters: what does not fit into the set's goes on in those of its observations.
        description, *more = fitted(statement(prediction, measurements), [DESCRIPTION] * (1 + len(segments)))
        made = _structure_set(prediction, series, description)
        made.StructureSetROISequence = [_roi(segment, series, measurements) for segment in segments]
        made.ROIContourSequence = [_contours(segment, prediction.labels, series) for segment in segments]
        made.RTROIObservationsSequence = [_observation(*each) for each in zip(segments, more, strict=True)]
        made.save_as(folder / FILE, enforce_file_format=True)


def _structure_set(prediction: Prediction, series: SourceSeries, description: str) -> FileDataset:
    """Return all but the regions of interest."""
    maker, now = maker_of(prediction), datetime.datetime.now()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = CHARACTER_SET
    made.update(series.identity)
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, new_uid()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.Modality = "RTSTRUCT"
    made.SeriesInstanceUID, made.SeriesNumber, made.InstanceNumber = new_uid(), SERIES_NUMBER, 1
    made.SeriesDescription = series_description("structure set")
    made.OperatorsName = None
    made.Manufacturer, made.ManufacturerModelName = maker.manufacturer, maker.model
    made.DeviceSerialNumber, made.SoftwareVersions = maker.serial, maker.version
    made.InstanceCreationDate = made.StructureSetDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.StructureSetTime = now.strftime("%H%M%S")
    made.StructureSetLabel = prediction.contract.label_set.name.upper()[:16]
    made.StructureSetName = RESEARCH_USE
    made.StructureSetDescription = description
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = series.frame_of_reference_uid, None
    made.ReferencedFrameOfReferenceSequence = [_reference(series)]
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _reference(series: SourceSeries) -> Dataset:
    """Return the frame of reference with the study, the series and the images that lie in it."""
    inner, study, frame = Dataset(), Dataset(), Dataset()
    inner.SeriesInstanceUID = series.series_uid
    inner.ContourImageSequence = [one.image_reference for one in {f.uid: f for f in series.frames}.values()]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, series.study_uid
    study.RTReferencedSeriesSequence = [inner]
    frame.FrameOfReferenceUID = series.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(segment: Segment, series: SourceSeries, measurements: Measurements) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = segment.number, title(segment.structure)
    roi.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    volume = measurements.of(segment.structure.name).volume_ml
    if volume is not None:
        roi.ROIVolume = decimal(round(volume, 3))  # cubic centimetres
    roi.ROIDescription = segment.note[:DESCRIPTION] or RESEARCH_USE
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = f"{PROGRAM}: {RESEARCH_USE}"
    return roi


def _contours(segment: Segment, labels: np.ndarray, series: SourceSeries) -> Dataset:
    """Return a structure's closed contours, each in the plane of its slice."""
    found: list[Dataset] = []
    axes = np.array([series.orientation[3:], series.orientation[:3]])  # of rows' numbers, of columns' numbers
    steps = axes * np.array(series.spacing_mm)[:, None]
    for plane, frame in zip(labels, series.frames, strict=True):
        for polygon in outlines(plane, segment.structure.label):
            contour = Dataset()
            contour.set_original_encoding(*ENCODING, default_encoding)
            contour.ContourImageSequence = [frame.reference]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            contour.ContourNumber = len(found) + 1
            contour[CONTOUR_DATA] = _points(polygon @ steps + frame.position_mm)
            found.append(contour)
    roi = Dataset()
    roi.ReferencedROINumber, roi.ROIDisplayColor = segment.number, list(segment.structure.display_rgb)
    roi.ContourSequence = found
    return roi


def _points(points: np.ndarray) -> RawDataElement:
    """Return points `[N, 3]` in mm to a thousandth, at most 16 characters a number, as the file has them.

    pydicom writes such an element as it is where its dataset has the file's encoding, and would else make an object of
    each number, which takes longer than all the rest.
    """
    text = "\\".join([f"{value:.3f}" for value in points.ravel().tolist()]).encode()
    text += b" " * (len(text) % 2)
    return RawDataElement(CONTOUR_DATA, "DS", len(text), text, 0, *ENCODING)


def _observation(segment: Segment, said: str) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = segment.number
    observation.ROIObservationLabel = segment.structure.short
    if said:
        observation.ROIObservationDescription = said
    observation.RTROIIdentificationCodeSequence = [_item(code_of(segment.structure))]
    observation.RTROIInterpretedType = "ORGAN"
    observation.ROIInterpreter = None
    return observation


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
