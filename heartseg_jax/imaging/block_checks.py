"""What the extent and the values of a block of CT show, whatever it was read from, and what it is fit for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding, counted, refused
from heartseg_jax.imaging.blood import blood_cm2, least_cm2
from heartseg_jax.imaging.hu_checks import LOWEST_HU, of_pixels
from heartseg_jax.imaging.lung import LEAST, lung_share
from heartseg_jax.imaging.volume import AIR_HU, Volume

FEW_SLICES = 20
SMALL_FIELD_MM, SHORT_MM = 130.0, 80.0
"""What a heart with its great vessels needs: across, and from top to bottom."""
SMALLEST = 32
"""Pixels along a slice's shorter side, below which no chamber has a shape."""
COARSE_MM = 5.0
"""Slices and pixels beyond this have too few voxels in a chamber for its volume."""
VALVE_SLICE_MM, VALVE_PIXEL_MM = 2.0, 1.5
"""At slices of 3 mm the valve's area comes out wrong by up to 10 % (docs/mitral.md)."""
PADDED_MIDDLE = 0.01
"""Scanners pad the corners around a round field of view, which reach no pixel of the middle."""

USES = {"slices": "training slices", "volumes": "whole-heart volumes", "valve": "the mitral valve"}
"""What a block of CT may be fit for."""
EXCLUDES = {
    "too_few_slices": ("volumes", "valve"),
    "too_small": ("volumes", "valve"),
    "short_block": ("volumes",),
    "small_field": ("volumes",),
    "coarse_slices": ("volumes", "valve"),
    "coarse_pixels": ("volumes", "valve"),
    "coarse_for_valve": ("valve",),
    "no_contrast": ("volumes", "valve"),
    "no_lung": ("volumes", "valve"),
    "padding_inside": ("volumes", "valve"),
}
"""The uses that a check rules out, though it does not refuse the block."""


def fit_for(found: Sequence[Finding]) -> tuple[str, ...]:
    """Return the uses (keys of `USES`) that the findings on a block leave."""
    if refused(found):
        return ()
    excluded = {use for finding in found for use in EXCLUDES.get(finding.check, ())}
    return tuple(use for use in USES if use not in excluded)


def verdict(found: Sequence[Finding]) -> str:
    """Return what a block is fit for, such as 'fit for training slices only, with 2 warnings'."""
    uses = [USES[use] for use in fit_for(found)]
    if not uses:
        return "not fit for use"
    what = " and ".join(uses) if len(uses) < len(USES) else f"use: {', '.join(uses)}"
    warnings = sum(finding.level == WARN for finding in found)
    return f"fit for {what}{' only' if len(uses) == 1 else ''}" + (
        f"; {counted(warnings, 'warning')}" if warnings else ""
    )


def of_count(count: int) -> list[Finding]:
    """Return what follows from the number of slices, which is all that is known of the extent of pictures."""
    if count < 2:
        text = "a single slice: no volume, no neighbours"
        return [Finding(REFUSE, "too_few_slices", text, fix="give the whole series")]
    if count < FEW_SLICES:
        text = f"only {counted(count, 'slice')}"
        return [Finding(WARN, "too_few_slices", text, fix="volumes and the valve's region need the whole heart")]
    return []


def of_extent(count: int, shape: tuple[int, int], spacing_mm: Sequence[float]) -> list[Finding]:
    """Return what follows from a block's size: `count` slices of `shape`, spacing (z, y, x) in mm."""
    few = of_count(count)
    if refused(few):
        return few
    found = []
    if min(shape) < SMALLEST:
        text = f"slices of {shape[0]} x {shape[1]} pixels hardly show a chamber's shape"
        found.append(Finding(WARN, "too_small", text, fix="choose a series of full size"))
    found += few
    fields = [shape[0] * spacing_mm[1], shape[1] * spacing_mm[2]]
    if min(fields) < SMALL_FIELD_MM:
        text = f"the field of view is {fields[0]:.0f} x {fields[1]:.0f} mm and may cut the heart"
        found.append(Finding(WARN, "small_field", text, fix="prefer a reconstruction of a larger field of view"))
    if count * spacing_mm[0] < SHORT_MM:
        text = f"the block is {count * spacing_mm[0]:.0f} mm from end to end and may cut the heart"
        fix = "prefer a series that covers the heart and the aortic arch"
        found.append(Finding(WARN, "short_block", text, fix=fix))
    slices, pixel = spacing_mm[0], max(spacing_mm[1:])
    if slices > COARSE_MM:
        text = f"slices lie {slices:.3g} mm apart: too few cross a chamber for its volume"
        found.append(Finding(WARN, "coarse_slices", text, fix=f"prefer slices at most {COARSE_MM:g} mm apart"))
    if pixel > COARSE_MM:
        text = f"pixels are {pixel:.3g} mm wide: too few lie in a chamber for its volume"
        found.append(Finding(WARN, "coarse_pixels", text, fix=f"prefer pixels of at most {COARSE_MM:g} mm"))
    if (slices > VALVE_SLICE_MM or pixel > VALVE_PIXEL_MM) and max(slices, pixel) <= COARSE_MM:
        text = f"slices {slices:.3g} mm apart, of pixels of {pixel:.3g} mm, make the mitral valve's area inexact"
        fix = f"prefer slices at most {VALVE_SLICE_MM:g} mm apart and pixels of at most {VALVE_PIXEL_MM:g} mm"
        found.append(Finding(NOTE, "coarse_for_valve", text, fix=fix))
    return found


def of_values(
    hu: np.ndarray, spacing_mm: Sequence[float] | None, padded: int = 0, contrast_agent: bool | None = None
) -> list[Finding]:
    """Return what the values of a block show.

    Args:
      hu: int16 `[Z, Y, X]`.
      spacing_mm: (z, y, x), or None where it is unknown; contrast and lung are not looked for then.
      padded: how many pixels were padding and were set to air.
      contrast_agent: whether the source names one; None where it does not say.
    """
    found = []
    if padded:
        text = f"{100 * padded / hu.size:.1f} % of the pixels are padding and were set to air"
        found.append(Finding(NOTE, "padding", text))
        middle = hu[tuple(slice(n // 4, max(n - n // 4, n // 4 + 1)) for n in hu.shape)]
        within = float(np.mean(middle == AIR_HU))
        if within > PADDED_MIDDLE:
            text = f"{100 * within:.0f} % of the middle of the block was taken for padding and set to air"
            cause = "the padding's values (PixelPaddingValue, or below -1100 HU) are tissue's too"
            found.append(
                Finding(WARN, "padding_inside", text, cause=cause, fix="look at a slice: is the patient whole?")
            )
    found += of_pixels(hu, "HU")
    if refused(found) or spacing_mm is None:
        return found
    blood = blood_cm2(hu, spacing_mm)
    if blood is not None and blood < least_cm2(spacing_mm):
        said = {True: ", although a contrast agent is named", False: ", and no contrast agent is named", None: ""}
        text = (
            f"no chamber or vessel is bright with contrast{said[contrast_agent]} ({blood:.1f} cm2 of a slice at most)"
        )
        fix = "chambers and walls look alike without contrast: choose a series with it"
        found.append(Finding(WARN, "no_contrast", text, fix=fix))
    fields = [n * mm for n, mm in zip(hu.shape[1:], spacing_mm[1:], strict=True)]
    lung = lung_share(hu, spacing_mm) if min(fields) >= SMALL_FIELD_MM else None
    if lung is not None and lung < LEAST:
        text = f"no lung beside the other tissue ({100 * lung:.1f} % of its area at most)"
        cause = "the abdomen, the head or a limb instead of the heart"
        found.append(Finding(WARN, "no_lung", text, cause=cause, fix="choose a series of the heart"))
    return found


def in_hu(volume: Volume) -> tuple[Volume, list[Finding]]:
    """Return a volume of any dtype as HU, int16, its padding as air, and what was found."""
    hu = np.rint(np.clip(volume.voxels, -32768, 32767)).astype(np.int16)
    padding = hu < LOWEST_HU
    hu[padding] = AIR_HU
    found = of_extent(len(hu), (hu.shape[1], hu.shape[2]), volume.spacing_mm)
    found += of_values(hu, volume.spacing_mm, int(padding.sum()))
    return Volume(hu, volume.spacing_mm, volume.origin_mm, volume.direction, volume.frames), found
