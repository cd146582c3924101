"""The labels as a DICOM segmentation, on the very frames that they were predicted on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from heartseg_jax import __version__
from heartseg_jax.export.dicom_source import CHARACTER_SET, SourceFrame, SourceSeries, source_series
from heartseg_jax.export.registry import Options
from heartseg_jax.export.segments import (
    Segment,
    category_of,
    code_of,
    decimal,
    fitted,
    maker_of,
    new_uid,
    quietly,
    segment_numbers,
    series_description,
    title,
    written_segments,
)
from heartseg_jax.export.statement import PROGRAM, RESEARCH_USE, model_texts, statement
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements
from heartseg_jax.progress import say

FILE = "segmentation.dcm"
SERIES_NUMBER = 9001
COMMENTS = 10240
"""Characters of comments (VR LT)."""
FAMILY = Code("123110", "DCM", "Artificial Intelligence")


def write_segmentation(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `segmentation.dcm`: a segment per structure that is there and not withheld.

    Nothing is written, and a line says so, where there is none.

    Raises:
      UserError: the images lack what a reference to them needs.
    """
    segments = written_segments(prediction, measurements)
    if not segments:
        say(f"{FILE} is not written: no structure was segmented")
        return
    series = source_series(prediction)
    kind = SegmentationTypeValues.LABELMAP if options.labelmap else SegmentationTypeValues.BINARY
    maker = maker_of(prediction)
    with quietly():
        made = Segmentation(
            _images(series, prediction.volume),
            segment_numbers(prediction, segments),
            kind,
            [_description(segment, prediction) for segment in segments],
            series_instance_uid=new_uid(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=new_uid(),
            instance_number=1,
            manufacturer=maker.manufacturer,
            manufacturer_model_name=maker.model,
            software_versions=maker.version,
            device_serial_number=maker.serial,
            content_description=RESEARCH_USE,
            content_label=prediction.contract.label_set.name.upper(),
            series_description=series_description("segmentation"),
            specific_character_set=CHARACTER_SET,
        )
        [made.ImageComments] = fitted(statement(prediction, measurements), [COMMENTS])
        _refer_to_files(made, series)
        made.save_as(folder / FILE)


def _description(segment: Segment, prediction: Prediction) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(f"{PROGRAM} ({RESEARCH_USE})", FAMILY, __version__, source=PROGRAM)
    algorithm[0].AlgorithmParameters = "\n".join(model_texts(prediction))
    description = SegmentDescription(
        segment.number,
        title(segment.structure),
        category_of(segment.structure),
        code_of(segment.structure),
        "AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*segment.structure.display_rgb),
    )
    if segment.note:
        description.SegmentDescription = segment.note
    return description


def _images(series: SourceSeries, volume: Volume) -> list[Dataset]:
    """Return an image of a single frame per slice, for highdicom; frames of one file have UIDs of their own for now.

    So it does not matter in how many files the slices are, which of a file's frames are among them, and where each
    states its geometry.
    """
    images = []
    for z, frame in enumerate(series.frames):
        image = Dataset()
        image.update(series.identity)
        image.update(series.lossy)
        image.SOPClassUID = frame.sop_class if frame.number is None else CTImageStorage
        image.SOPInstanceUID = _stand_in(frame, z)
        image.SeriesInstanceUID, image.FrameOfReferenceUID = series.series_uid, series.frame_of_reference_uid
        image.Modality = "CT"
        image.Rows, image.Columns = volume.voxels.shape[1:]
        image.ImagePositionPatient = [decimal(value) for value in frame.position_mm]
        image.ImageOrientationPatient = [decimal(value) for value in series.orientation]
        image.PixelSpacing = [decimal(value) for value in series.spacing_mm]
        # Readers that look at only one of them take it for the distance between voxels.
        image.SliceThickness = image.SpacingBetweenSlices = decimal(volume.spacing_mm[0])
        images.append(image)
    return images


def _stand_in(frame: SourceFrame, z: int) -> str:
    return frame.uid if frame.number is None else f"2.25.{z}"


def _refer_to_files(made: Dataset, series: SourceSeries) -> None:
    """Replace the references to single slices by those to the images that they are frames of."""
    if all(frame.number is None for frame in series.frames):
        return
    frames = {_stand_in(frame, z): frame for z, frame in enumerate(series.frames)}

    def images(items: Iterable[Dataset]) -> list[Dataset]:
        once = {frames[item.ReferencedSOPInstanceUID].uid: frames[item.ReferencedSOPInstanceUID] for item in items}
        return [frame.image_reference for frame in once.values()]

    for referenced in made.ReferencedSeriesSequence:
        referenced.ReferencedInstanceSequence = images(referenced.ReferencedInstanceSequence)
    made.SourceImageSequence = images(made.SourceImageSequence)
    for group in made.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence") or []:
            for item in derivation.SourceImageSequence:
                frame = frames.get(item.ReferencedSOPInstanceUID)
                if frame:  # segments on one slice share the item
                    item.update(frame.reference)
