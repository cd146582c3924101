"""Draw where a model fails on scans that it has not seen, as docs/heart_model.md shows it.

python benchmarks/failure_figure.py --output=FILE.png [--model=PACKAGE] [--labelled=DATASET]
    [--structure=CT.nii.gz,MASK.nii.gz,NAME] [--study=STUDY] [--study=STUDY]

--structure draws the slice in which most of a structure's reference mask is called something else, --study the slice of
a study with the most labels, also those that `predict` withholds, and --labelled the three patients of a dataset's test
split with the lowest mean Dice. Dashed white lines are references. What a model was trained on is refused. Prints what
each picture shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from heartseg_jax.anatomy import IGNORED, LabelSet, merge_labels
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.evaluation.metrics import score_patient, summarise
from heartseg_jax.figures import drawing
from heartseg_jax.files import writing
from heartseg_jax.imaging.intake_reading import read_intake
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.inference.dataset import predict_split
from heartseg_jax.inference.postprocess import postprocess, settings_of
from heartseg_jax.inference.study import Prediction, predict_volume
from heartseg_jax.interop.package import SHIPPED
from heartseg_jax.measure.results import REFUSED, Measurements, StructureMeasurement
from heartseg_jax.measure.volumes import measure
from heartseg_jax.preprocess.learned import trained_on
from heartseg_jax.verbs.models import load_models

WINDOW_HU = (-200.0, 600.0)
WORST, COLUMNS, SIDE_IN = 3, 3, 2.6
MARGIN = 0.15
"""Of a slice's longer side, shown around what is labelled."""
COLOURS = 256
"""Of the picture, which keeps it small."""


class Picture(NamedTuple):
    """One slice: `image [H, W]` from 0 to 1, the model's labels, reference labels or None, and its title."""

    image: np.ndarray
    labels: np.ndarray
    reference: np.ndarray | None
    title: str


class Model(NamedTuple):
    """What predicts."""

    predictor: Any
    contract: Any
    config: Any

    @property
    def labels(self) -> LabelSet:
        """Its label set."""
        found: LabelSet = self.contract.label_set
        return found


def predicted(model: Model, path: Path) -> tuple[Prediction, Measurements]:
    """Return what `predict` makes of a study, its labels not withheld; a study that was trained on ends the script."""
    prediction = predict_volume(model.predictor, read_intake(path), model.contract)
    if any(found.check == "memorised" for found in prediction.findings):
        raise SystemExit(f"the model was trained on {path}")
    prediction = postprocess(prediction, settings_of(model.config, model.labels))
    return prediction, measure(prediction)


def of_structure(model: Model, asked: str) -> Picture:
    """Return the slice in which most of one structure's reference is called something else."""
    scan, mask, name = asked.split(",")
    structure = next(s for s in model.labels.foreground if s.name == name)
    prediction, measured = predicted(model, Path(scan))
    images, labels = _axial(prediction)
    truth = _mask(prediction, mask)
    called = np.where(truth & (labels != structure.label), labels, 0)
    counts = np.array([np.bincount(plane[plane > 0], minlength=model.labels.num_classes) for plane in called])
    z, other = np.unravel_index(counts.argmax(), counts.shape)
    own = labels == structure.label
    dice = 2 * (own & truth).sum() / (own.sum() + truth.sum())
    into = model.labels.structures[other]
    row = measured.of(into.name)
    print(f"{Path(scan).parent.name}: {name} Dice {dice:.3f}; {counts[:, other].sum()} of {truth.sum()} of its voxels")
    print(f"  are called {into.name} ({_sure(row)}); drawn slice {z}")
    for warning in measured.warnings:
        print(f"  {warning}")
    title = f"{structure.short} called {into.short}"
    return Picture(_scaled(images[z]), labels[z], np.where(truth[z], structure.label, 0), title)


def of_study(model: Model, path: Path) -> Picture:
    """Return the slice of a study with the most labels."""
    prediction, measured = predicted(model, path)
    images, labels = _axial(prediction)
    z = int((labels > 0).sum(axis=(1, 2)).argmax())
    print(f"{path.name}: drawn slice {z} of {len(labels)}")
    for row in measured.structures:
        said = f"{row.status}{' (labels withheld)' * row.withheld} {row.reason}"
        print(f"  {row.name}: {row.voxels} voxels ({_sure(row)}); {said}")
    for warning in measured.warnings:
        print(f"  {warning}")
    refused = sum(row.status == REFUSED for row in measured.structures)
    withheld = sum(row.withheld for row in measured.structures)
    title = f"{refused} of {len(measured.structures)} refused, {withheld} withheld"
    return Picture(_scaled(images[z]), labels[z], None, title)


def of_labelled(model: Model, path: str) -> Iterator[Picture]:
    """Yield a slice of each of the worst patients of a dataset's test split."""
    dataset = read_dataset(path)
    seen = trained_on(model.contract.learned_from)
    if known := [p.id for p in dataset.patients if p.sha256["images"] in seen and "test" in p.splits]:
        raise SystemExit(f"the model was trained on {len(known)} of the test patients of {path}")
    spec, _ = model.contract.input.for_intensity(dataset.intensity)
    found = []
    for one in predict_split(model.predictor, dataset, "test", spec):
        patient = dataset.patients[one.patient]
        truth = np.asarray(dataset.labels(patient)[one.slices])
        score = score_patient(truth, one.labels, dataset.label_set, patient.merge, None, False)
        found.append((summarise({patient.id: score}, dataset.label_set)["mean_dice"], patient, one, truth))
    found.sort(key=lambda row: row[0])
    print(f"{path}: mean Dice {np.mean([row[0] for row in found]):.3f} of {len(found)} patients")
    for dice, patient, one, truth in found[:WORST]:
        image = dataset.images(patient)[one.slices[0]].astype(np.float32)
        low, high = np.percentile(image[image > 0], (1, 99))
        own, reference = (merge_labels(x[0], patient.merge) for x in (one.labels, np.where(truth == IGNORED, 0, truth)))
        parts = {s.short: _dice(own == s.label, reference == s.label) for s in model.labels.foreground}
        told = ", ".join(f"{short} {value:.2f}" for short, value in parts.items() if value is not None)
        print(f"  {patient.id}: mean {dice:.3f}; {told}")
        yield Picture((image - low) / (high - low), own, reference, f"patient {patient.id}\n{told}")


def _sure(row: StructureMeasurement) -> str:
    told = {"confidence": row.confidence, "agreement": row.agreement}
    return ", ".join(f"{name} {'none' if value is None else f'{value:.2f}'}" for name, value in told.items())


def _dice(own: np.ndarray, reference: np.ndarray) -> float | None:
    either = own.sum() + reference.sum()
    return float(2 * (own & reference).sum() / either) if either else None


def _axial(prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and the labels, patient-axial."""
    images, order = patient_axial(prediction.volume)
    return images.voxels, order.forth(prediction.labels)


def _mask(prediction: Prediction, path: str) -> np.ndarray:
    """Return a mask file on the prediction's grid, patient-axial."""
    mask = patient_axial(read_labels(Path(path)))[0]
    axial = patient_axial(prediction.volume)[0]
    if mask.voxels.shape != axial.voxels.shape or not np.allclose(mask.origin_mm, axial.origin_mm, atol=0.1):
        raise SystemExit(f"{path} is not on the grid of the scan")
    return mask.voxels > 0


def _scaled(image: np.ndarray) -> np.ndarray:
    low, high = WINDOW_HU
    return (image.astype(np.float32) - low) / (high - low)


def _cropped(picture: Picture) -> Picture:
    """Return a square around what is labelled, within the image; all of it where nothing is."""
    shape = picture.labels.shape
    where = np.nonzero(picture.labels if picture.reference is None else picture.labels + picture.reference)
    if len(where[0]) == 0:
        return picture
    margin = round(MARGIN * max(shape))
    side = max(int(np.ptp(i)) for i in where) + 1 + 2 * margin
    starts = [int(i.min() + i.max() + 1 - side) // 2 for i in where]
    near = tuple(
        slice(max(min(start, length - side), 0), max(min(start, length - side), 0) + side)
        for start, length in zip(starts, shape, strict=True)
    )
    return picture._replace(
        image=picture.image[near],
        labels=picture.labels[near],
        reference=None if picture.reference is None else picture.reference[near],
    )


def draw(pictures: list[Picture], path: Path, labels: LabelSet) -> None:
    """Write the pictures, as many in a row as COLUMNS, with a legend."""
    palette = drawing.Palette(labels, "display")
    rows = -(-len(pictures) // COLUMNS)
    temporary = path.with_suffix(".large.png")
    with drawing.canvas(temporary, COLUMNS * SIDE_IN, rows * (SIDE_IN + 0.3) + 0.7) as figure:
        figure.get_layout_engine().set(rect=(0, 0, 1, 0.985))  # two lines of a title reach beyond
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for number, (one, picture) in enumerate(zip(axes, map(_cropped, pictures), strict=False)):
            drawing.show_image(one, np.clip(picture.image, 0, 1))
            drawing.show_labels(one, picture.labels, palette, fill=0.3)
            if picture.reference is not None:
                for structure in labels.foreground:
                    inside = picture.reference == structure.label
                    if inside.any():
                        one.contour(inside, levels=[0.5], colors="white", linewidths=0.9, linestyles="dashed")
            one.set_title(f"{'abcdefghi'[number]}  {picture.title}")
        for one in axes[len(pictures) :]:
            one.remove()
        handles = drawing.label_handles(palette, [], every=True)
        figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False)
    with Image.open(temporary) as large, writing(path) as partial:
        large.convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            partial, "PNG", optimize=True
        )
    temporary.unlink()


def main(argv: list[str]) -> None:
    """Predict, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=SHIPPED["heart_v1"])
    parser.add_argument("--structure", action="append", default=[], metavar="CT,MASK,NAME")
    parser.add_argument("--study", action="append", default=[], type=Path)
    parser.add_argument("--labelled")
    asked = parser.parse_args(argv)
    model = Model(*load_models([asked.model]))
    pictures = [of_structure(model, one) for one in asked.structure] + [of_study(model, one) for one in asked.study]
    pictures += of_labelled(model, asked.labelled) if asked.labelled else ()
    draw(pictures, asked.output, model.labels)


if __name__ == "__main__":
    main(sys.argv[1:])
