"""How far to average a volume's slices with their neighbours (`data.across_mm`): Dice on phantom patients, by width.

python benchmarks/across_slices.py [--model=heart_v1] [--count=5] [--step=1.5,3] [--widths=0,1,2,3,4.5]
    [--structure=IMAGE,MASK,NAME]

Each phantom patient, of slices 1.5 and 3 mm apart, is predicted once, and its probabilities are averaged by each width.
A row is a width; a cell the mean Dice of a structure over the patients, before postprocessing. With --structure the
rows of a real volume follow, of which a mask (not 0) shows one structure.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.evaluation.report import number
from heartseg_jax.imaging.intake import Intake, of_volume
from heartseg_jax.imaging.intake_reading import read_intake
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.inference.across import smoothed, weights_by_distance
from heartseg_jax.inference.predictor import Predictor
from heartseg_jax.inference.slices import predict_slices
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.verbs.models import load_models

SEED = 7
FIELD_MM, PIXEL_MM = (150.0, 240.0, 240.0), 1.0


def labels_by_width(
    predictor: Predictor, contract: Contract, intake: Intake, widths: list[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield each width and the patient-axial labels `[Z, Y, X]` by it."""
    axial, _ = patient_axial(intake.volume)
    images, spacing = axial.voxels, axial.spacing_mm
    spec, _ = dataclasses.replace(contract.input, across_mm=0.0).for_intensity("HU")
    parts = predict_slices(predictor, spec, images, range(len(images)), spacing, True)
    found = [each.astype(np.float16) for part in parts for each in part]
    for width in widths:
        weights = weights_by_distance(width, spacing[0])
        means = smoothed(([one.astype(np.float32)] for one in found), range(len(found)), weights)
        yield width, np.stack([mean.argmax(axis=-1) for (mean,) in means])


def main(argv: list[str]) -> None:
    """Predict the patients, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("heart_v1"))
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--step", default="1.5,3")
    parser.add_argument("--widths", default="0,1,2,3,4.5")
    parser.add_argument("--structure")
    asked = parser.parse_args(argv)
    predictor, contract, _ = load_models([asked.model])
    structures, widths = contract.label_set.foreground, [float(width) for width in asked.widths.split(",")]
    print(f"| slices | mm | {' | '.join(s.short for s in structures)} | mean Dice |")
    print(f"|---|---|{'---|' * len(structures)}---|", flush=True)
    for step in map(float, asked.step.split(",")):
        scores: dict[float, list[list[float]]] = {width: [] for width in widths}
        shape = tuple(round(mm / each) for mm, each in zip(FIELD_MM, (step, PIXEL_MM, PIXEL_MM), strict=True))
        for index in range(asked.count):
            made = generate(SEED, index, PhantomSpec(shape, (step, PIXEL_MM, PIXEL_MM)))
            for width, labels in labels_by_width(predictor, contract, of_volume(made.volume), widths):
                scored = made.labels != IGNORED
                found, truth = labels[scored], made.labels[scored]
                scores[width].append([dice(found == s.label, truth == s.label) for s in structures])
        for width in widths:
            cells = np.mean(scores[width], axis=0)
            row = " | ".join(number(cell, 3) for cell in cells)
            print(f"| phantoms, {step:g} mm apart | {width:g} | {row} | {cells.mean():.3f} |", flush=True)
    if asked.structure:
        image, mask, name = asked.structure.split(",")
        [structure] = [s for s in structures if s.name == name]
        intake, truth = read_intake(Path(image)), patient_axial(read_labels(Path(mask)))[0].voxels > 0
        for width, labels in labels_by_width(predictor, contract, intake, widths):
            cells = [number(dice(labels == s.label, truth), 3) if s is structure else "" for s in structures]
            print(f"| {Path(image).name} | {width:g} | {' | '.join(cells)} | |", flush=True)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice of two masks of which one has a voxel."""
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


if __name__ == "__main__":
    main(sys.argv[1:])
