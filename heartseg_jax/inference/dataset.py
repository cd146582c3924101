"""Predicts the patients of a labelled dataset, on its grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.inference.predictor import Predictor
from heartseg_jax.inference.slices import predict_labels
from heartseg_jax.preprocess.contract import InputSpec


class PatientLabels(NamedTuple):
    """The labels of some slices of one patient: its index, the slices' indices, and `[n, H, W]` uint8."""

    patient: int
    slices: list[int]
    labels: np.ndarray


def predict_split(predictor: Predictor, dataset: Dataset, split: str, spec: InputSpec) -> Iterator[PatientLabels]:
    """Yield each patient's labels; structures that the source does not distinguish are merged.

    One patient is held in memory at a time, seen by `spec` in the intensity unit of its own dataset.
    """
    for position, slices in dataset.slices_of(split).items():
        patient = dataset.patients[position]
        images, merge = dataset.images(patient), patient.merge
        own, _ = spec.for_intensity(dataset.part_of(patient).intensity)
        found = predict_labels(predictor, own, images, slices, patient.spacing_mm, patient.contiguous, merge)
        yield PatientLabels(position, slices, np.concatenate(list(found)))
