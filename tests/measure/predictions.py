"""Predictions whose labels are given by hand; for tests."""

from __future__ import annotations

import dataclasses

import numpy as np

from heartseg_jax.imaging.intake import Intake, of_volume
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.inference.study import Prediction
from heartseg_jax.preprocess.contract import Contract
from tests.preprocess.specs import spec

MODEL = ModelIdentity("/home/ana/runs/a", 120, "c" * 64, "d" * 64)
CONTRACT = Contract(spec(size=64), "heart", "/home/ana/data", "abc", 5)


def predicted(intake: Intake, labels: np.ndarray, /, **changes) -> Prediction:
    """Labels [Z, Y, X] on an intake, as if one model had found them; 255 counts as background."""
    labels = np.where(labels == 255, 0, labels).astype(np.uint8)
    made = Prediction(labels, None, intake, CONTRACT, (MODEL,), intake.findings)
    return dataclasses.replace(made, **changes)


def unchecked(labels: np.ndarray, spacing_mm=(1.0, 1.0, 1.0), hu=None, direction=None, **changes) -> Prediction:
    """Labels on a block without findings; `hu` is 300 in every voxel where it is not given."""
    hu = np.full(labels.shape, 300, np.int16) if hu is None else hu
    return predicted(Intake("nifti", Volume(hu, spacing_mm, direction=direction)), labels, **changes)


def of_phantom(phantom, **changes) -> Prediction:
    """The true labels of a phantom, its values checked as those of any volume."""
    return predicted(of_volume(phantom.volume), phantom.labels, **changes)
