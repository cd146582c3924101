"""What a block of CT tells by its extent and its values, whatever it was read from: findings, none raises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding, refused
from heartseg_jax.imaging.volume import AIR_HU, Volume

FEW_SLICES = 20
SMALL_FIELD_MM, SHORT_MM = 130.0, 80.0
"""A heart with its great vessels needs about so much: across, and from top to bottom."""
CONTRAST_HU = (150, 600)
CONTRAST_SHARE = 0.02
"""Of the middle of the block: chambers full of contrast fill more; spine and calcium alone fill less."""
PADDED_MIDDLE = 0.01
"""Scanners pad the corners around a round field of view, which reach no pixel of the middle."""
LOWEST_HU = -1100
"""Air is -1000; noise reaches somewhat lower, and most scanners cut at -1024. Below lies padding."""


def of_extent(count: int, shape: tuple[int, int], spacing_mm: Sequence[float]) -> list[Finding]:
    """Return what follows from a block's size: `count` slices of `shape`, spacing (z, y, x) in mm."""
    found = []
    if count < 2:
        text = "one slice alone: no volume, no neighbours"
        return [Finding(REFUSE, "too_few_slices", text, fix="give the whole series")]
    if count < FEW_SLICES:
        text = f"{count} slices alone"
        found.append(Finding(WARN, "too_few_slices", text, fix="volumes and the valve's region need the whole heart"))
    fields = [shape[0] * spacing_mm[1], shape[1] * spacing_mm[2]]
    if min(fields) < SMALL_FIELD_MM:
        text = f"the field of view is {fields[0]:.0f} x {fields[1]:.0f} mm and may cut the heart"
        found.append(Finding(WARN, "small_field", text, fix="prefer a reconstruction of a larger field of view"))
    if count * spacing_mm[0] < SHORT_MM:
        text = f"the block is {count * spacing_mm[0]:.0f} mm from end to end and may cut the heart"
        found.append(
            Finding(WARN, "short_block", text, fix="prefer a series that covers the heart and the aortic arch")
        )
    return found


def of_pixels(images: np.ndarray, intensity: str) -> list[Finding]:
    """Find slices `[N, H, W]` that are constant, and values that cannot be HU where `intensity` is 'HU'."""
    found = []
    constant = [plane[0, 0] for plane in images if _is_constant(plane)]
    if constant:
        text = f"{len(constant)} of {len(images)} slices are constant (the first is all {constant[0]})"
        level = REFUSE if 2 * len(constant) > len(images) else WARN
        found.append(Finding(level, "constant", text, cause="their pixels were lost", fix="export the images again"))
    if intensity == "HU" and not refused(found):
        thin = images[:: max(len(images) // 32, 1), ::2, ::2]
        low, high = (float(value) for value in np.percentile(thin, (0.5, 99.5)))
        if low > -200 or low < -8192 or high > 8192 or high < -500:
            text = f"99 % of the values lie from {low:.0f} to {high:.0f}, which is not HU of a patient in air"
            cause = "RescaleSlope and RescaleIntercept were not applied, or this is a colour map, a mask or no CT"
            found.append(Finding(REFUSE, "not_hu", text, cause=cause, fix="choose a series in HU"))
    return found


def of_values(hu: np.ndarray, padded: int, contrast_agent: bool | None) -> list[Finding]:
    """Return what the values of a block show: `hu` int16 `[Z, Y, X]`, of which `padded` pixels were made air."""
    found = []
    middle = hu[tuple(slice(n // 4, max(n - n // 4, n // 4 + 1)) for n in hu.shape)]
    if padded:
        text = f"{100 * padded / hu.size:.1f} % of the pixels are padding and were set to air"
        within = float(np.mean(middle == AIR_HU))
        if within > PADDED_MIDDLE:
            text += f", {100 * within:.0f} % of the block's middle among them"
            fix = "look at a slice: is the patient there? PixelPaddingValue may name values of tissue"
            found.append(Finding(WARN, "padding", text, fix=fix))
        else:
            found.append(Finding(NOTE, "padding", text))
    found += of_pixels(hu, "HU")
    if refused(found):
        return found
    bright = float(np.mean((middle >= CONTRAST_HU[0]) & (middle <= CONTRAST_HU[1])))
    if bright < CONTRAST_SHARE:
        said = {True: "although a contrast agent is named", False: "and no contrast agent is named", None: ""}
        text = f"{100 * bright:.1f} % of the middle is as bright as contrast {said[contrast_agent]}".rstrip()
        fix = "chambers cannot be told from walls without contrast: choose a series with it"
        found.append(Finding(WARN, "no_contrast", text, fix=fix))
    return found


def _is_constant(plane: np.ndarray) -> bool:
    """Tell whether a slice has one value alone; a few pixels tell of most that it has not."""
    return bool((plane[::8, ::8] == plane[0, 0]).all() and (plane == plane[0, 0]).all())


def in_hu(volume: Volume) -> tuple[Volume, list[Finding]]:
    """Return a volume of any dtype as HU, int16, its padding as air, and all that this module's looks find."""
    hu = np.rint(np.clip(volume.voxels, -32768, 32767)).astype(np.int16)
    padding = hu < LOWEST_HU
    hu[padding] = AIR_HU
    found = of_extent(len(hu), (hu.shape[1], hu.shape[2]), volume.spacing_mm)
    found += of_values(hu, int(padding.sum()), None)
    return Volume(hu, volume.spacing_mm, volume.origin_mm, volume.direction, volume.frames), found
