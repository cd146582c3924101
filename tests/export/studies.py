"""Phantoms written as DICOM in every geometry, with their own labels as the prediction."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART, LabelSet
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.dicom.study import read_contents
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import ABSENT, MEASURED, Measurements, StructureMeasurement
from heartseg_jax.preprocess.contract import Contract
from tests.dicom_writer import axes, write_enhanced, write_series
from tests.preprocess.specs import spec

ORIGIN = (-61.25, -75.5, -200.125)
MODEL = ModelIdentity("runs/zwicknagl", 1200, "ab12" * 16, "cd34" * 16)
WARNING = "the arms were not raised: streaks cross the heart"


class Geometry(NamedTuple):
    """How a study lies in the patient. The labels are the same in all: those of a coarse phantom."""

    spacing_mm: tuple[float, float, float]
    direction: np.ndarray

    def position(self, z: int) -> np.ndarray:
        """ImagePositionPatient of slice z."""
        return np.array(ORIGIN) + z * self.spacing_mm[0] * self.direction[:, 0]


def _turned(degrees: float, negated: bool = False) -> np.ndarray:
    """Patient-axial, turned about the x and the z axis; with its columns towards Right where it is negated."""
    angle = np.radians(degrees / 2)
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    direction = about_z @ axes(degrees)
    direction[:, 2] *= -1 if negated else 1
    return direction


WAYS = {"axial": _turned(0), "oblique7": _turned(7), "oblique30": _turned(30), "negated": _turned(7, negated=True)}
GRIDS = {"3mm": (3.0, 1.75, 1.625), "1mm": (1.0, 0.9765625, 0.8)}
GEOMETRIES = {f"{way}-{grid}": Geometry(GRIDS[grid], WAYS[way]) for way in WAYS for grid in GRIDS}


class Case(NamedTuple):
    """A study, its prediction, and what must come back: the labels [H, W] of each position, rounded to 1e-6 mm."""

    prediction: Prediction
    measurements: Measurements
    truth: dict[tuple[float, ...], np.ndarray]
    folder: Path


def place(position) -> tuple[float, ...]:
    """A position as a key; -0 is 0."""
    return tuple(np.round(np.asarray(position, float), 6) + 0.0)


@functools.lru_cache
def phantom() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels [Z, H, W]: an odd number of pixels, so that frames of one bit a pixel begin within a byte."""
    made = generate(5, 2, PhantomSpec((14, 45, 43), (11.0, 5.0, 5.2)))
    labels = np.where(made.labels == 255, 0, made.labels).astype(np.uint8)
    return np.maximum(made.volume.voxels, -1024).astype(np.int16), labels


def write(folder: Path, geometry: Geometry, edit=None, enhanced: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write a phantom's study; return HU and labels [Z, H, W]."""
    hu, labels = phantom()
    if enhanced:
        write_enhanced(folder / "all.dcm", hu, geometry.spacing_mm, ORIGIN, geometry.direction, edit)
    else:
        write_series(folder, hu, geometry.spacing_mm, ORIGIN, geometry.direction, edit=edit)
    return hu, labels


def measured(labels: np.ndarray, volume, label_set: LabelSet = HEART) -> Measurements:
    """Measurements that are simply counted."""
    found = []
    for structure in label_set.foreground:
        inside = labels == structure.label
        number = int(inside.sum())
        row = StructureMeasurement(structure.name, structure.label, ABSENT, "no voxel was found")
        if number:
            hu = volume.voxels[inside]
            row = replace(
                row,
                status=MEASURED,
                reason="",
                voxels=number,
                volume_ml=number * volume.voxel_ml,
                mean_hu=float(hu.mean()),
                sd_hu=float(hu.std()),
                extent_mm=(50.0, 40.0, 30.0),
                cut_face_share=0.0,
            )
        found.append(row)
    return Measurements(tuple(found), (WARNING,))


def prediction_of(candidate, labels: np.ndarray) -> Prediction:
    """A prediction with these labels [Z, H, W] of a series, in its order."""
    volume, found = read_block(candidate)
    files = tuple(frame.header.source for frame in candidate.stack.frames)
    contract = Contract(spec("-1,0,1"), "heart", "/data/ds", "abc", 5)
    return Prediction(labels, None, Intake("dicom", volume, tuple(found), True, files), contract, (MODEL,), ())


def predicted(path: Path, labels_of) -> Prediction:
    """Read a study and take `labels_of[position]` as the prediction of each slice."""
    (candidate,) = read_contents(path).candidates
    places = [place(frame.geometry.position_mm) for frame in candidate.stack.frames]
    return prediction_of(candidate, np.stack([labels_of[where] for where in places]))


def striped(path: Path) -> Prediction:
    """A real study with a stripe of each label across every slice."""
    candidate = read_contents(path).candidates[0]
    header = candidate.frames[0].header
    rows = np.minimum(np.arange(header.rows) * 10 // header.rows, 9).astype(np.uint8)
    plane = np.where(rows < 9, rows, 0)[:, None] * (np.arange(header.columns) < header.columns // 3)
    return prediction_of(candidate, np.repeat(plane[None].astype(np.uint8), len(candidate.frames), 0))


def case(folder: Path, geometry: Geometry, edit=None, enhanced: bool = False) -> Case:
    """Write a study, and return it with its own labels as the prediction."""
    _, labels = write(folder / "study", geometry, edit, enhanced)
    truth = {
        place(np.array([float(f"{v:.12g}"[:16]) for v in geometry.position(z)])): labels[z] for z in range(len(labels))
    }
    prediction = predicted(folder / "study", truth)
    return Case(prediction, measured(prediction.labels, prediction.volume), truth, folder)


def with_row(measurements: Measurements, name: str, **changes) -> Measurements:
    """The measurements with some fields of a structure's row changed."""
    rows = tuple(replace(row, **changes) if row.name == name else row for row in measurements.structures)
    return replace(measurements, structures=rows)
