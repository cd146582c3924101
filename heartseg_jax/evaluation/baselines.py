"""Predictions that need no network. They are scored as every model is: skill is what beats them.

They read a dataset folder one patient at a time. No JAX.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from heartseg_jax.data.dataset.records import Dataset, Patient
from heartseg_jax.evaluation.metrics import score_patient, summarise

THUMBNAIL = 32
"""Rows and columns of the picture by which slices are compared."""

NAMES = ALL_BACKGROUND, NEAREST_SLICE, POSITION_PRIOR = "all_background", "nearest_slice", "position_prior"


class Learned(NamedTuple):
    """What the baselines take from the training split.

    `thumbnails` float32 [n, t*t], one per training slice; `where` (patient index, slice index) of each; `prior` uint8
    [H, W], the most frequent label of each pixel.
    """

    thumbnails: np.ndarray
    where: tuple[tuple[int, int], ...]
    prior: np.ndarray


def thumbnail(image: np.ndarray, size: int = THUMBNAIL) -> np.ndarray:
    """Reduce a slice [H, W] to block means, less their mean, scaled to length 1; float32 [rows * columns].

    A dot product of two is their correlation: brightness and contrast have no influence. A constant image gives zeros:
    it correlates with nothing. `size` is the number of rows and columns; fewer if the image has fewer.
    """
    image = np.asarray(image, dtype=np.float64)
    for axis in (0, 1):
        edges = np.linspace(0, image.shape[axis], min(size, image.shape[axis]) + 1).astype(int)
        lengths = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
        image = np.add.reduceat(image, edges[:-1], axis=axis) / lengths
    flat = (image - image.mean()).ravel()
    length = float(np.linalg.norm(flat))
    # Rounding leaves a constant image a length a little over zero.
    return (flat / length if length > 1e-6 * flat.size else np.zeros_like(flat)).astype(np.float32)


def learn(dataset: Dataset) -> Learned | None:
    """Read the training split of a single dataset once; None if it is empty.

    Memory: the thumbnails, and one count per class and pixel; images and labels are read one slice at a time.
    """
    where = tuple(dataset.examples("train"))
    if not where:
        return None
    thumbnails = []
    classes = dataset.label_set.num_classes
    counts = np.zeros((classes, dataset.height, dataset.width), dtype=np.int32)
    for index, rows in dataset.slices_of("train").items():
        images, labels = dataset.images(index), dataset.labels(index)
        for z in rows:
            thumbnails.append(thumbnail(images[z]))
            plane = np.asarray(labels[z])
            for label in range(classes):
                counts[label] += plane == label
    # Ties, and pixels that are ignored in every slice, go to the lowest label: background.
    return Learned(np.stack(thumbnails), where, counts.argmax(axis=0).astype(np.uint8))


def baseline_scores(dataset: Dataset, split: str) -> dict[str, dict[str, float | None]]:
    """Score every baseline on a split as the model is scored: name -> {mean_dice, pixel_accuracy}, or nulls."""
    scores: dict[str, dict] = {name: {} for name in NAMES}
    for patient, slices, predictions in predict_split(dataset, split):
        truth = dataset.labels(patient)[slices]
        for name, labels in predictions.items():
            scores[name][patient.id] = score_patient(truth, labels, dataset.label_set, patient.merge, overlap_only=True)
    summaries = {name: summarise(found, dataset.label_set) for name, found in scores.items()}
    return {name: {key: s[key] for key in ("mean_dice", "pixel_accuracy")} for name, s in summaries.items()}


def predict_split(dataset: Dataset, split: str) -> Iterator[tuple[Patient, list[int], dict[str, np.ndarray]]]:
    """Yield each patient, the patient's slices in `split`, and every baseline's labels: uint8 [n, H, W].

    Those that learn are left out where no patient trains; each of several joined datasets is learned by itself.
    `nearest_slice` copies the labels of the training slice whose
    thumbnail correlates best (the first of equals), never the slice itself; ignored pixels of it become background.
    `position_prior` is the same in every slice.
    """
    for part in dataset.parts:
        yield from _predict_part(part, split)


def _predict_part(dataset: Dataset, split: str) -> Iterator[tuple[Patient, list[int], dict[str, np.ndarray]]]:
    asked = dataset.slices_of(split)
    learned = learn(dataset) if asked else None
    for index, slices in asked.items():
        shape = (len(slices), dataset.height, dataset.width)
        found = {ALL_BACKGROUND: np.broadcast_to(np.zeros((), dtype=np.uint8), shape)}
        if learned is not None:
            found[NEAREST_SLICE] = _nearest(dataset, learned, index, slices)
            found[POSITION_PRIOR] = np.broadcast_to(learned.prior, shape)
        yield dataset.patients[index], slices, found


def _nearest(dataset: Dataset, learned: Learned, patient_index: int, slices: list[int]) -> np.ndarray:
    images = dataset.images(dataset.patients[patient_index])
    similarity = np.stack([thumbnail(images[z]) for z in slices]) @ learned.thumbnails.T
    labels = np.zeros((len(slices), dataset.height, dataset.width), dtype=np.uint8)
    for row, z in enumerate(slices):
        order = np.argsort(-similarity[row], kind="stable")
        source = next((learned.where[k] for k in order if learned.where[k] != (patient_index, z)), None)
        if source is not None:
            copied = dataset.labels(dataset.patients[source[0]])[source[1]]
            labels[row] = np.where(copied >= dataset.label_set.num_classes, 0, copied)
    return labels
