"""Slices brought to the network's size on the host, batches of them, and probabilities back to theirs. No JAX."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.imaging import volume
from heartseg_jax.preprocess.contract import InputSpec

Spacing = tuple[float, float, float] | None
"""(z, y, x) in mm, or None where it is unknown."""


class Batch(NamedTuple):
    """Arrays of B examples, numpy on the host and jax.Array on the device.

    `preprocess.device` replaces image and label by what the network receives, so that a function that is given its
    result cannot see the labels from before augmentation.

    Attributes:
      image: `[B, S, S, P]` int16 HU, uint8 or tissue codes; one plane per channel, or one where all channels show the
        same slice. On the device: `[B, S, S, C]` float32 in 0..1.
      window: `[B, C, 2]` float32, the stored values that become 0 and 1; None once they have been applied.
      label: `[B, S, S]` uint8, 0 to K-1 or 255; int32 on the device. None where only prediction is asked for.
      merge: `[B, K]` int32, the label that each class counts as; None with `label`.
      mask: `[B]` float32, 1 for a real example, 0 for one that fills the batch.
      tissue: `[B]` bool, which images are tissue codes that an image is synthesised from; None where none is.
    """

    image: Any
    window: Any
    label: Any
    merge: Any
    mask: Any
    tissue: Any = None


def tissue_marks(spec: InputSpec, count: int) -> np.ndarray | None:
    """Return `Batch.tissue` of `count` slices that `spec` is of: `[count]` bool, or None where they are images."""
    return np.ones(count, bool) if spec.intensity == "tissue" else None


def windows_of(spec: InputSpec, images: np.ndarray) -> np.ndarray:
    """Return `[N, C, 2]` float32: for each slice of `[N, H, W]` and channel the stored values that become 0 and 1.

    Percentiles are taken over the pixels brighter than air: the share of air around a patient depends on the field of
    view, not on the patient. Tissue codes have no window: 0 and 1, which nothing reads.
    """
    windows = np.empty((len(images), len(spec.channels), 2), np.float32)
    if spec.intensity == "tissue":
        windows[:] = 0, 1
        return windows
    for row, image in zip(windows, images, strict=True):
        own = None
        for channel, (_, window) in enumerate(spec.channels):
            if window is None and own is None:
                body = image[image > spec.fill]
                low, high = np.percentile(body if body.size else image, spec.percentiles).astype(np.float32)
                own = low, np.maximum(high, low + 1)
            row[channel] = own if window is None else window
    return windows


def neighbours(spec: InputSpec, z: int, count: int, contiguous: bool) -> list[int]:
    """Return the slices (of `count`) that the planes of slice `z`'s image show.

    Beyond the ends of a volume it is the last slice; scattered slices have no neighbours and show themselves.
    """
    return [min(max(z + (offset if contiguous else 0), 0), count - 1) for offset in spec.offsets]


def to_network(spec: InputSpec, images: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Return `images [N, H, W]` as `[N, S, S]` of the same dtype; air where the slice has nothing.

    Tissue codes are resampled as labels are: between two tissues there is no third.
    """
    if spec.intensity == "tissue":
        return volume.resample_labels(images, spec.size, _scale(spec, images, spacing_mm))
    return volume.resample_slices(images, spec.size, _scale(spec, images, spacing_mm), spec.fill)


def labels_to_network(spec: InputSpec, labels: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Return `labels [N, H, W]` as `[N, S, S]`; 0 where the slice has nothing."""
    return volume.resample_labels(labels, spec.size, _scale(spec, labels, spacing_mm))


def to_source(spec: InputSpec, probabilities: np.ndarray, height: int, width: int, spacing_mm: Spacing) -> np.ndarray:
    """Return `probabilities [N, S, S, K]` on the slices they came from: `[N, height, width, K]`."""
    scale = volume.scale_for(height, width, spacing_mm, spec.size, spec.mm_per_pixel)
    return volume.resample_back(probabilities, height, width, scale)


def back_matrices(
    spec: InputSpec, height: int, width: int, spacing_mm: Spacing
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Return the matrices `[height, S]` and `[width, S]` that do as `to_source`; None where the grids are the same."""
    scale = volume.scale_for(height, width, spacing_mm, spec.size, spec.mm_per_pixel)
    if height == width == spec.size and scale == (1.0, 1.0):
        return None, None
    return volume.back_matrices(spec.size, height, width, scale)


def _scale(spec: InputSpec, slices: np.ndarray, spacing_mm: Spacing) -> tuple[float, float]:
    return volume.scale_for(slices.shape[1], slices.shape[2], spacing_mm, spec.size, spec.mm_per_pixel)
