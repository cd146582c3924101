"""Write a dataset again with what its labels leave open filled in by a trained model.

    python benchmarks/pseudo_labels.py --run=RUN --data=DATASET --output=DATASET [--sure=0.9]

Where a patient's `merge` makes one label of several structures, each pixel of it gets the structure that the model
gives the highest probability among these; below `--sure`, as a share of theirs, it is ignored in training. A label that
stands for one structure only stays as it is. Name a model that has not seen the patients you will score.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.inference.slices import predict_slices
from heartseg_jax.progress import bar
from heartseg_jax.verbs.models import load_models


def filled_in(labels: np.ndarray, merge: tuple[int, ...], probabilities: np.ndarray, sure: float) -> np.ndarray:
    """Return `labels [...]` with merged ones told apart by `probabilities [..., K]`; IGNORED where these are unsure."""
    filled = labels.copy()
    for common in sorted(set(merge)):
        members = [label for label, counts_as in enumerate(merge) if counts_as == common]
        here = labels == common
        if len(members) > 1 and here.any():
            own = probabilities[here][:, members]
            own = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-6)
            filled[here] = np.where(own.max(axis=1) < sure, IGNORED, np.array(members)[own.argmax(axis=1)])
    return filled


def main() -> None:
    """Read, predict, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run's folder or a package")
    parser.add_argument("--data", type=Path, required=True, help="a dataset with patients of whom not all is labelled")
    parser.add_argument("--output", type=Path, required=True, help="the new dataset's folder")
    parser.add_argument("--sure", type=float, default=0.9)
    asked = parser.parse_args()
    predictor, contract, _ = load_models([asked.run])
    dataset = read_dataset(asked.data)
    spec, _ = contract.input.for_intensity(dataset.intensity)
    with DatasetWriter(
        asked.output,
        intensity=dataset.intensity,
        height=dataset.height,
        width=dataset.width,
        label_set=dataset.label_set,
        source={"kind": "pseudo_labels", "of": str(asked.data), "by": str(asked.run), "sure": asked.sure},
    ) as writer:
        patients = bar("patients")
        for number, patient in enumerate(dataset.patients, 1):
            images, labels = np.asarray(dataset.images(patient)), np.asarray(dataset.labels(patient))
            given = predictor, spec, images, range(len(images)), patient.spacing_mm, patient.contiguous
            probabilities = np.concatenate(list(predict_slices(*given)))
            writer.add(
                patient.id,
                images,
                filled_in(labels, patient.merge, probabilities, asked.sure),
                names=patient.names,
                split=patient.splits,
                spacing_mm=patient.spacing_mm,
                contiguous=patient.contiguous,
                person=patient.person,
            )
            patients(number, len(dataset.patients))


if __name__ == "__main__":
    main()
