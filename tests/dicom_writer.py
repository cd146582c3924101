"""A CT volume written as DICOM by pydicom alone, in all the ways that scanners and archives do; for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian

PLANTED = {
    "PatientName": "Zwicknagl^Leopoldine",
    "PatientID": "ID7741903",
    "PatientBirthDate": "19310417",
    "AccessionNumber": "ACC5550123",
    "InstitutionName": "Spital Hinterwald",
}
"""What names a patient, in every file that is written here: it must turn up nowhere else."""
INTERCEPT = -1024
SERIES = "1.2.826.0.1.3680043.8.498.1"


def axes(normal_degrees: float = 0.0) -> np.ndarray:
    """Direction [3, 3] as in `Volume`: patient-axial, turned about the x axis by so many degrees."""
    angle = np.radians(normal_degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return turn @ np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])


def decimal(values) -> list[str]:
    """Numbers as DICOM's decimal strings: at most 16 characters."""
    return [f"{value:.12g}"[:16] for value in values]


def base(series: str = SERIES, sop_class: str = CTImageStorage) -> FileDataset:
    """A file with all that does not differ from slice to slice."""
    dataset = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    for name, value in PLANTED.items():
        setattr(dataset, name, value)
    dataset.SOPClassUID = sop_class
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = series
    dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.3"
    dataset.SeriesDescription = "CTA heart"
    dataset.ContrastBolusAgent = "iodine"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    return dataset


def stored(hu: np.ndarray) -> np.ndarray:
    """The values that a scanner stores for HU."""
    return (hu.astype(np.int32) - INTERCEPT).astype(np.uint16)


def save(dataset: FileDataset, path: Path, pixels: np.ndarray, syntax: str) -> None:
    """Put the pixels in and write the file in a transfer syntax."""
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    uid = pydicom.uid.UID(syntax)
    if uid.is_compressed and not uid.is_deflated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = pixels.astype(">u2").tobytes()
            dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    dataset.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path,
    hu: np.ndarray,
    spacing_mm=(3.0, 1.5, 1.25),
    origin_mm=(-60.0, -75.5, -200.0),
    direction: np.ndarray | None = None,
    syntax: str = ExplicitVRLittleEndian,
    names: list[str] | None = None,
    edit=None,
    part: int = 1,
) -> list[Path]:
    """Write `hu [Z, H, W]` slice by slice; `edit(dataset, z)` changes a slice on the way, `part` keeps the
    instances of several calls apart. Returns the paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    direction = axes() if direction is None else direction
    paths = []
    for z, plane in enumerate(hu):
        dataset = base()
        dataset.SOPInstanceUID = f"{SERIES}.{part}.{z + 1}"
        dataset.InstanceNumber = str(len(hu) - z)
        place = np.array(origin_mm) + z * spacing_mm[0] * direction[:, 0]
        dataset.ImagePositionPatient = decimal(place)
        dataset.ImageOrientationPatient = decimal([*direction[:, 2], *direction[:, 1]])
        dataset.PixelSpacing = decimal(spacing_mm[1:])
        dataset.SliceThickness = "2"
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", str(INTERCEPT)
        pixels = stored(plane)
        if edit:
            edit(dataset, z)
        path = folder / (names[z] if names else f"CT{part}_{z:04d}.dcm")
        save(dataset, path, pixels, syntax)
        paths.append(path)
    return paths


def write_enhanced(path: Path, hu: np.ndarray, spacing_mm, origin_mm, direction: np.ndarray, edit=None) -> None:
    """Write `hu [Z, H, W]` as one enhanced CT file, its frames in a shuffled order; `edit(dataset)` changes it."""
    dataset = base(sop_class=EnhancedCTImageStorage)
    dataset.SOPInstanceUID = f"{SERIES}.77"
    order = np.random.default_rng(3).permutation(len(hu))
    shared, dataset.NumberOfFrames = Dataset(), len(hu)
    measures, transform = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = decimal(spacing_mm[1:]), "2"
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = "1", str(INTERCEPT), "HU"
    turned = Dataset()
    turned.ImageOrientationPatient = decimal([*direction[:, 2], *direction[:, 1]])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([transform])
    shared.PlaneOrientationSequence = Sequence([turned])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = decimal(np.array(origin_mm) + z * spacing_mm[0] * direction[:, 0])
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    if edit:
        edit(dataset)
    save(dataset, path, stored(hu[order]), ExplicitVRLittleEndian)
