"""Predicts an unlabelled volume: what exporters and measurements take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartseg_jax.findings import WARN, Finding, raise_refused
from heartseg_jax.imaging.block_checks import in_hu
from heartseg_jax.imaging.hu_checks import of_pixels
from heartseg_jax.imaging.orientation import oblique, patient_axial
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.predictor import ModelIdentity, Predictor, merged, predict_slices
from heartseg_jax.preprocess.contract import Contract


@dataclass(frozen=True)
class Prediction:
    """The labels of a volume, on its own grid and in its own frame order.

    Attributes:
      labels: `[Z, Y, X]` uint8, of the contract's label set.
      probabilities: `[Z, Y, X, K]` float16, or None where they were not asked for.
      volume: what was given, as it was given.
      contract: how its input was made.
      models: which models were used; several where their mean was taken.
      findings: of its unit, values, extent, spacing and orientation; none refuses.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    volume: Volume
    contract: Contract
    models: tuple[ModelIdentity, ...]
    findings: tuple[Finding, ...]


def predict_volume(
    predictor: Predictor,
    volume: Volume,
    contract: Contract,
    *,
    spacing_known: bool = True,
    keep_probabilities: bool = False,
) -> Prediction:
    """Return the labels of a volume with axes in any order and direction.

    uint8 voxels are 8-bit images of unknown window, all others HU. Slices are taken along the axis nearest to the
    patient's; where `spacing_known` is False (pictures), they are scaled to fill the network's image.

    Raises:
      UserError: the volume does not meet the contract: another unit than a fixed window's, values that are not HU,
        lost pixels.
    """
    axial, order = patient_axial(volume)
    if volume.voxels.dtype == np.uint8:
        intensity, images, found = "uint8", axial.voxels, of_pixels(axial.voxels, "uint8")
    else:
        in_units, found = in_hu(axial)
        intensity, images = "HU", in_units.voxels
    spec, unit = contract.input.for_intensity(intensity)
    found = [*unit, *found, *oblique(order.oblique_degrees)]
    if spec.mm_per_pixel > 0 and not spacing_known:
        text = f"the model sees {spec.mm_per_pixel:g} mm per pixel and the spacing is unknown: slices fill its image"
        found.append(Finding(WARN, "spacing", text, fix="give images with their spacing, such as the DICOM series"))
    raise_refused("the input does not fit the model", found)

    classes = contract.label_set.num_classes
    labels = np.empty(axial.voxels.shape, np.uint8)
    kept = np.empty((*labels.shape, classes), np.float16) if keep_probabilities else None
    spacing, start = axial.spacing_mm if spacing_known else None, 0
    for found_here in predict_slices(predictor, spec, images, range(len(images)), spacing, contiguous=True):
        part = merged(found_here, contract.label_set.all_known)  # channels without a structure are background
        labels[start : start + len(part)] = part.argmax(axis=-1)
        if kept is not None:
            kept[start : start + len(part)] = part
        start += len(part)
    if kept is not None:
        kept = np.stack([order.back(kept[..., k]) for k in range(classes)], axis=-1)
    return Prediction(order.back(labels), kept, volume, contract, predictor.models, tuple(found))
