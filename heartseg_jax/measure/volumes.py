"""Volumes, HU, extents and border contact of each structure of a prediction, and what they allow to say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from heartseg_jax.anatomy import HEART
from heartseg_jax.findings import WARN, Finding
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure import border, checks, status
from heartseg_jax.measure.normal_ranges import normal_range
from heartseg_jax.measure.results import MEASURED, PARTIAL, Measurements, StructureMeasurement
from heartseg_jax.measure.valves import measure_valves


def measure(prediction: Prediction) -> Measurements:
    """Return what is measured of every structure of the label set, each with a status, the valves and all warnings."""
    labels, intake, volume = prediction.labels, prediction.intake, prediction.volume
    structures = prediction.contract.label_set.foreground
    is_heart = prediction.contract.label_set is HEART
    surfaces = border.surfaces_of(prediction)
    boxes = _boxes(labels, len(structures))
    taught = prediction.contract.taught
    rows = []
    for structure, box in zip(structures, boxes, strict=True):
        found = _described(prediction, structure.label, box)
        total = surfaces.total(structure.label)
        share = surfaces.cut(structure.label) / total if total else None
        agreement = _known(prediction.agreement, structure.label)
        said = status.answer(
            found.voxels,
            found.mean_hu,
            share,
            agreement,
            prediction.findings,
            intake.spacing_known,
            is_heart,
            untaught=taught is not None and not taught[structure.name],
        )
        volume_ml = found.voxels * volume.voxel_ml if said.status in (MEASURED, PARTIAL) else None
        limits = normal_range(structure.name)
        removed, added = prediction.changed_voxels.get(structure.name, (0, 0))
        rows.append(
            StructureMeasurement(
                name=structure.name,
                label=structure.label,
                status=said.status,
                reason=said.reason,
                voxels=found.voxels,
                volume_ml=volume_ml,
                mean_hu=found.mean_hu,
                sd_hu=found.sd_hu,
                extent_mm=found.extent_mm,
                cut_face_share=share,
                normal_range_ml=limits,
                within_normal_range=_is_within(volume_ml, limits, said.status),
                confidence=_known(prediction.confidence, structure.label),
                agreement=agreement,
                removed_voxels=removed,
                added_voxels=added,
                withheld=said.withheld,
            )
        )
    doubts = checks.of_model(prediction.contract) + checks.of_any(rows)
    if is_heart:
        doubts += checks.of_heart(labels, volume, boxes, surfaces, rows)
    warnings = tuple(warnings_of([*prediction.findings, *doubts]))
    return Measurements(tuple(rows), warnings, *measure_valves(prediction, rows))


def released(prediction: Prediction, measurements: Measurements) -> Prediction:
    """Return the prediction as it may be written: without the labels of structures that are withheld.

    The same prediction where none is; its probabilities, where there are any, are left out otherwise.
    """
    withheld = [label for label in measurements.withheld if measurements.structures[label - 1].voxels]
    if not withheld:
        return prediction
    kept = np.arange(256, dtype=np.uint8)
    kept[withheld] = 0
    return replace(prediction, labels=kept[prediction.labels], probabilities=None)


def warnings_of(findings: Iterable[Finding]) -> list[str]:
    """Return the findings that warn as text, each once: the check, what was seen and what to do. No example."""
    texts = (f"{f.check}: {f.seen}" + (f"; {f.fix}" if f.fix else "") for f in findings if f.level == WARN)
    return list(dict.fromkeys(texts))


class _Described(NamedTuple):
    """What the voxels of a structure are, without judgement."""

    voxels: int = 0
    mean_hu: float | None = None
    sd_hu: float | None = None
    extent_mm: tuple[float, float, float] | None = None


def _described(prediction: Prediction, label: int, box: checks.Box | None) -> _Described:
    if box is None:
        return _Described()
    mask = prediction.labels[box] == label
    values = prediction.volume.voxels[box][mask]
    known = prediction.intake.spacing_known
    extent_mm = _extent_mm(mask, prediction.volume) if known else None
    if values.dtype == np.uint8:
        return _Described(len(values), extent_mm=extent_mm)
    mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return _Described(len(values), mean, sd, extent_mm)


def _extent_mm(mask: np.ndarray, volume: Volume) -> tuple[float, float, float]:
    """Return how far the voxels reach along x, y and z of the patient, from outer edge to outer edge."""
    assert volume.direction is not None
    steps = volume.direction * np.array(volume.spacing_mm)  # mm along x, y, z for a step along each voxel axis
    # A row of voxels reaches farthest at its ends.
    z, y = np.nonzero(mask.any(axis=2))
    rows = mask[z, y]
    first, last = rows.argmax(axis=1), mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    reach = []
    for along in steps:
        base = along[0] * z + along[1] * y
        ends = np.concatenate([base + along[2] * first, base + along[2] * last])
        reach.append(float(np.ptp(ends) + np.abs(along).sum()))
    return reach[0], reach[1], reach[2]


def _boxes(labels: np.ndarray, count: int) -> list[checks.Box | None]:
    """Return the box of each label from 1, or None."""
    slices = np.flatnonzero(labels.any(axis=(1, 2)))
    if not len(slices):
        return [None] * count
    start = int(slices[0])
    found = ndimage.find_objects(labels[start : slices[-1] + 1], max_label=count)
    return [box and (slice(box[0].start + start, box[0].stop + start), box[1], box[2]) for box in found]


def _known(of_labels: np.ndarray | None, label: int) -> float | None:
    """Return a label's own number; None where there is none."""
    return None if of_labels is None or math.isnan(of_labels[label]) else float(of_labels[label])


def _is_within(volume_ml: float | None, limits: tuple[float, float] | None, said: str) -> bool | None:
    """Return whether a volume lies in its range; a lower bound can only be known to lie above it."""
    if volume_ml is None or limits is None:
        return None
    if said == PARTIAL:
        return False if volume_ml > limits[1] else None
    return limits[0] <= volume_ml <= limits[1]
