"""The measurements as a DICOM structured report of template TID 1500, which refers to the segmentation beside it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pydicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import AlgorithmIdentification as Algorithm
from highdicom.sr import (
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementProperties,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NormalRangeProperties,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from heartseg_jax.export.dicom_seg import FAMILY
from heartseg_jax.export.dicom_seg import FILE as SEGMENTATION
from heartseg_jax.export.dicom_source import CHARACTER_SET, SourceSeries, source_series
from heartseg_jax.export.dicom_sr_valves import valve_groups
from heartseg_jax.export.registry import Options
from heartseg_jax.export.segments import (
    PRIVATE_SCHEME,
    Maker,
    category_of,
    code_of,
    maker_of,
    new_uid,
    quietly,
    series_description,
    title,
    written_segments,
)
from heartseg_jax.export.sr_items import MM, RATIO, comment, status_of
from heartseg_jax.export.statement import PROGRAM, model_texts, statement
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.normal_ranges import range_sources
from heartseg_jax.measure.results import Measurements, StructureMeasurement

FILE = "report.dcm"
SERIES_NUMBER = 9002
ML = Code("mL", "UCUM", "milliliter")
HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
CUT_FACES = Code("CUT_FACES", PRIVATE_SCHEME, "Share of the surface on the border of the field of view")
CONFIDENCE = Code("CONFIDENCE", PRIVATE_SCHEME, "Mean probability of the structure in its voxels")
AGREEMENT = Code("AGREEMENT", PRIVATE_SCHEME, "Mean pairwise Dice between models, or views of one model")
EXTENTS = (
    Code("EXTENT_RL", PRIVATE_SCHEME, "Extent from right to left"),
    Code("EXTENT_AP", PRIVATE_SCHEME, "Extent from anterior to posterior"),
    Code("EXTENT_IS", PRIVATE_SCHEME, "Extent from inferior to superior"),
)


NORMAL_RANGE = "Limits of healthy adults of both sexes in any heart phase; a volume outside is unusual, not wrong"


def write_report(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `report.dcm`: a group per structure with its status, its measurements and, where it is there, its segment.

    Each valve that was looked at has a group too.

    It refers to the `segmentation.dcm` in `folder`; without one its groups have no segments.

    Raises:
      UserError: the images lack what a reference to them needs.
    """
    series, maker = source_series(prediction), maker_of(prediction)
    segmentation = _segmentation(folder / SEGMENTATION, series)
    numbers = {segment.structure.label: segment.number for segment in written_segments(prediction, measurements)}
    algorithm = Algorithm(PROGRAM, maker.version, parameters=model_texts(prediction), family=FAMILY)
    groups = []
    for row in measurements.structures:
        segment = None
        if segmentation is not None and row.label in numbers:
            segment = ReferencedSegment(
                segmentation.SOPClassUID,
                segmentation.SOPInstanceUID,
                numbers[row.label],
                source_series=SourceSeriesForSegmentation(series.series_uid),
            )
        groups.append(_group(row, prediction, segment, algorithm))
    groups += valve_groups(measurements, algorithm)
    report = MeasurementReport(
        ObservationContext(ObserverContext(codes.DCM.Device, _device(maker))),
        codes.cid100.CTUnspecifiedBodyRegion,
        groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    report[0].ContentSequence.extend(comment(text) for text in statement(prediction, measurements))
    evidence = [_instance(series, uid, sop_class) for uid, sop_class in series.instances.items()]
    with quietly():
        made = Comprehensive3DSR(
            [*([] if segmentation is None else [segmentation]), *evidence],
            report,
            series_instance_uid=new_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=new_uid(),
            instance_number=1,
            manufacturer=maker.manufacturer,
            manufacturer_model_name=maker.model,
            software_versions=maker.version,
            device_serial_number=maker.serial,
            is_complete=True,
            is_final=False,
            series_description=series_description("report"),
            specific_character_set=CHARACTER_SET,
            coding_schemes=[CodingSchemeIdentificationItem(PRIVATE_SCHEME, responsible_organization=PROGRAM)],
        )
        made.save_as(folder / FILE)


def _group(
    row: StructureMeasurement, prediction: Prediction, segment: ReferencedSegment | None, algorithm: Algorithm
) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    structure = prediction.contract.label_set.structures[row.label]
    common: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(new_uid(), title(structure)),
        "finding_category": category_of(structure),
        "finding_type": code_of(structure),
        "algorithm_id": algorithm,
        "measurements": _measurements(row),
        "qualitative_evaluations": [status_of(row.status)],
    }
    group: MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    if segment is None:
        group = MeasurementsAndQualitativeEvaluations(**common)
    else:
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **common)
    if row.reason:
        group[0].ContentSequence.append(comment(row.reason))
    return group


def _measurements(row: StructureMeasurement) -> list[Measurement]:
    """Return what is known of a structure; nothing stands for what is not."""
    found = []
    if row.volume_ml is not None:
        found.append(Measurement(codes.SCT.Volume, round(row.volume_ml, 3), ML, properties=_normal_range(row)))
    for value, derivation in ((row.mean_hu, codes.SCT.Mean), (row.sd_hu, codes.SCT.StandardDeviation)):
        if value is not None:
            found.append(Measurement(codes.DCM.AttenuationCoefficient, round(value, 2), HU, derivation=derivation))
    for name, length in zip(EXTENTS, row.extent_mm or (), strict=False):
        found.append(Measurement(name, round(length, 2), MM))
    shares = (CUT_FACES, row.cut_face_share), (CONFIDENCE, row.confidence), (AGREEMENT, row.agreement)
    for name, share in shares:
        if share is not None:
            found.append(Measurement(name, round(share, 4), RATIO))
    return found


def _normal_range(row: StructureMeasurement) -> MeasurementProperties | None:
    if row.normal_range_ml is None:
        return None
    limits = zip(
        (codes.cid223.NormalRangeLowerLimit, codes.cid223.NormalRangeUpperLimit), row.normal_range_ml, strict=True
    )
    values = [NumContentItem(name, limit, ML, None, RelationshipTypeValues.HAS_PROPERTIES) for name, limit in limits]
    properties = NormalRangeProperties(values, NORMAL_RANGE, "; ".join(range_sources(row.name)) or None)
    return MeasurementProperties(normal_range_properties=properties)


def _device(maker: Maker) -> DeviceObserverIdentifyingAttributes:
    """Return the program with this very model as an observer: its UID is the same in every report of it."""
    uid = uuid.uuid5(uuid.NAMESPACE_OID, "/".join(maker))
    return DeviceObserverIdentifyingAttributes(
        f"2.25.{uid.int}", PROGRAM, maker.manufacturer, maker.model, maker.serial
    )


def _segmentation(path: Path, series: SourceSeries) -> Dataset | None:
    """Return the UIDs of the segmentation beside the report, with the patient and study, or None without one."""
    if not path.is_file():
        return None
    wanted = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
    found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
    found.update(series.identity)
    return found


def _instance(series: SourceSeries, uid: str, sop_class: str) -> Dataset:
    instance = Dataset()
    instance.update(series.identity)
    instance.SOPClassUID, instance.SOPInstanceUID, instance.SeriesInstanceUID = sop_class, uid, series.series_uid
    return instance
