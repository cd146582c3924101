"""Predicts an unlabelled volume: what exporters and measurements take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.records import digest
from heartseg_jax.findings import WARN, Finding, raise_refused
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.agreement import mean_pairwise_dice
from heartseg_jax.inference.confidence import mean_probability, sums_on_host
from heartseg_jax.inference.predictor import ModelIdentity, Predictor
from heartseg_jax.inference.slices import merged, predict_labels, predict_slices
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.preprocess.learned import trained_on


@dataclass(frozen=True)
class Prediction:
    """The labels of a volume, on its own grid and in its own frame order.

    Attributes:
      labels: `[Z, Y, X]` uint8, of the contract's label set.
      probabilities: `[Z, Y, X, K]` float16, or None where they were not asked for.
      intake: what was given, as it was given.
      contract: how its input was made.
      models: which models were used; several where their mean was taken.
      findings: of its unit, values, extent, spacing and orientation; none refuses.
      confidence: mean probability of each label `[K]` in the voxels that have it, before postprocessing, of the models'
        mean; NaN for background and for what has none. None where it was not measured.
      agreement: mean pairwise Dice of each label `[K]` between models, or one model's views, in the first look on the
        network's grid, before anything is averaged: NaN where no member finds it; None for a single model.
      by_model: `[M, Z, Y, X]` uint8, the labels that each of several models gives, before postprocessing; None for a
        single one, for other label sets than the heart's, and where probabilities were asked for.
      changed_voxels: by structure, how many voxels postprocessing removed and added; empty where it was off.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    intake: Intake
    contract: Contract
    models: tuple[ModelIdentity, ...]
    findings: tuple[Finding, ...]
    confidence: np.ndarray | None = None
    agreement: np.ndarray | None = None
    by_model: np.ndarray | None = None
    changed_voxels: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def volume(self) -> Volume:
        """What was given, with its geometry."""
        return self.intake.volume


def predict_volume(
    predictor: Predictor,
    intake: Intake,
    contract: Contract,
    *,
    keep_probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Return the labels of a volume with axes in any order and direction.

    Slices are taken along the axis nearest to the patient's; where the spacing is unknown (pictures), they are scaled
    to fill the network's image. `progress` is called with (slices done, slices in all).

    Raises:
      UserError: the volume does not meet the contract (another unit than a fixed window's), or a finding of its intake
        refuses it.
    """
    axial, order = patient_axial(intake.volume)
    intensity = "uint8" if axial.voxels.dtype == np.uint8 else "HU"
    images = axial.voxels
    spec, unit = contract.input.for_intensity(intensity)
    found = [*unit, *intake.findings, *oblique(order.oblique_degrees)]
    if spec.mm_per_pixel > 0 and not intake.spacing_known:
        text = f"the model sees {spec.mm_per_pixel:g} mm per pixel and the spacing is unknown: slices fill its image"
        found.append(Finding(WARN, "spacing", text, fix="give images with their spacing, such as the DICOM series"))
    if contract.learned_from and digest(images) in trained_on(contract.learned_from):
        text = "the model was trained on this very volume: it remembers it"
        found.append(Finding(WARN, "memorised", text, fix="do not judge the model by it"))
    raise_refused("the input does not fit the model", found)

    classes = contract.label_set.num_classes
    labels = np.empty(images.shape, np.uint8)
    kept = np.empty((*labels.shape, classes), np.float16) if keep_probabilities else None
    shared: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    spacing, start = axial.spacing_mm if intake.spacing_known else None, 0
    given = predictor, spec, images, range(len(images)), spacing, True
    merge = contract.merge  # channels without a structure are background
    # Valves are measured of each model's labels; nothing else asks for them.
    each: list[np.ndarray] | None = [] if contract.label_set is HEART else None
    parts = predict_slices(*given, shared) if keep_probabilities else predict_labels(*given, merge, shared, sums, each)
    for part in parts:
        end = start + len(part)
        if kept is not None:
            kept[start:end] = whole = merged(part, merge)
            part = whole.argmax(axis=-1)
            sums.append(sums_on_host(whole, part))
        labels[start:end] = part
        start = end
        if progress:
            progress(start, len(images))
    confidence = mean_probability(np.sum(sums, axis=0))
    agreement = mean_pairwise_dice(np.sum(shared, axis=0)) if shared else None
    if kept is not None:
        kept = np.stack([order.back(kept[..., k]) for k in range(classes)], axis=-1)
    return Prediction(
        order.back(labels),
        kept,
        intake,
        contract,
        predictor.models,
        tuple(found),
        confidence=confidence,
        agreement=agreement,
        by_model=np.stack([order.back(own) for own in np.concatenate(each, axis=1)]) if each else None,
    )
