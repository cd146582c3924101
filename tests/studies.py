"""Phantom patients as DICOM studies with masks of every kind; for tests."""

from __future__ import annotations

import functools
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from highdicom.sr.coding import CodedConcept
from PIL import Image

from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.masks.palette import labels_to_rgb
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from tests.dicom_writer import SERIES, write_series

SPACING = (7.0, 4.0, 5.0)
SPEC = PhantomSpec((24, 64, 48), SPACING)


@functools.lru_cache
def phantom(index: int) -> tuple[np.ndarray, np.ndarray]:
    """HU (not below -1024) and labels [Z, Y, X] of a patient."""
    made = generate(5, index, SPEC)
    return np.maximum(made.volume.voxels, -1024).astype(np.int16), made.labels


def write_study(folder: Path, index: int, person: str | None = None, edit=None, number: int = 1, **how) -> list[Path]:
    """Write a patient's study; `person` is the PatientID, `number` keeps several studies of one patient apart."""

    def change(dataset, z):
        dataset.PatientID = person or f"ID774190{index}"
        dataset.StudyInstanceUID = f"{SERIES}.7.{index}.{number}"
        dataset.SeriesInstanceUID = f"{SERIES}.8.{index}.{number}"
        dataset.SOPInstanceUID = f"{SERIES}.9.{index}.{number}.{z + 1}"
        dataset.FrameOfReferenceUID = f"{SERIES}.6.{index}.{number}"
        if edit:
            edit(dataset, z)

    return write_series(folder, phantom(index)[0], SPACING, edit=change, **how)


def write_pictures(folder: Path, labels: np.ndarray, names: list[str]) -> None:
    """Write colour masks, one a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for plane, name in zip(labels, names, strict=True):
        Image.fromarray(labels_to_rgb(plane)).save(folder / name)


def write_segmentation(
    path: Path,
    slices: list[Path],
    labels: np.ndarray,
    structures=HEART.foreground,
    kind: str = "BINARY",
    codes: bool = True,
) -> None:
    """Write labels [Z, H, W], or masks [Z, H, W, K], on these slices as a DICOM segmentation, by highdicom."""
    images = [pydicom.dcmread(file) for file in slices]
    for image in images:
        image.StudyDate, image.StudyTime, image.StudyID = "20200101", "000000", "1"
        image.PatientSex, image.ReferringPhysicianName = "O", ""
    anatomical = CodedConcept("123037004", "SCT", "Anatomical Structure")
    if labels.ndim == 4:
        pixels = labels.astype(np.uint8)
    elif kind == "LABELMAP":
        # Numbers of segments must run on from 1 there, as those of structures do.
        pixels = np.where(np.isin(labels, [s.label for s in structures]), labels, 0).astype(np.uint8)
    else:
        pixels = np.stack([labels == s.label for s in structures], axis=-1).astype(np.uint8)
        if kind == "FRACTIONAL":
            pixels = pixels.astype(np.float32)
    descriptions = [
        highdicom.seg.SegmentDescription(
            s.label if kind == "LABELMAP" else number,
            s.name,
            anatomical,
            CodedConcept(s.snomed, "SCT", s.name) if codes else CodedConcept("1", "99LOCAL", s.name),
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, s in enumerate(structures, 1)
    ]
    made = highdicom.seg.Segmentation(
        images,
        pixels,
        highdicom.seg.SegmentationTypeValues[kind],
        descriptions,
        series_instance_uid=f"{images[0].SeriesInstanceUID}.1",
        series_number=2,
        sop_instance_uid=f"{images[0].SeriesInstanceUID}.1.1",
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
