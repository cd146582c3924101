"""The guards' checks of the data before the first step: labels, images, and structures of the training slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.findings import apply_policy
from heartseg_jax.progress import Progress
from heartseg_jax.training import guards

MAX_IMAGES_LOOKED_AT = 24


def inspect_data(dataset: Dataset, policy: Any, progress: Progress) -> list[str]:
    """Return the guards' warnings about a dataset; raises GuardStop where the config says stop.

    Every label of every patient is read; of the images, slices evenly spaced through each patient.
    """
    warnings: list[str] = []
    label_set = dataset.label_set
    for number, patient in enumerate(dataset.patients, 1):
        labels = dataset.labels(patient)
        for plane in labels:
            # One slice at a time: its counts show whether a value is out of range.
            counts = np.bincount(np.asarray(plane).ravel(), minlength=256)
            if counts[label_set.num_classes : IGNORED].any():
                warnings += apply_policy(
                    guards.check_labels(f"patient {patient.id}", np.asarray(labels), label_set), policy
                )
                break
        images = dataset.images(patient)
        chosen = np.unique(np.linspace(0, len(images) - 1, MAX_IMAGES_LOOKED_AT).round().astype(int))
        found = guards.check_images(f"patient {patient.id}", np.stack([images[z] for z in chosen]), dataset.intensity)
        warnings += apply_policy(found, policy)
        progress(number, len(dataset.patients))
    training = dataset.patients_in("train")
    counts = np.array(
        [np.sum([c for c, s in zip(p.class_counts, p.splits, strict=True) if s == "train"], axis=0) for p in training]
    )
    return warnings + apply_policy(
        guards.check_known_structures(counts, [p.merge for p in training], label_set), policy
    )
