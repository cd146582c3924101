"""Whether pixels can be HU, wherever they were read from: the one place where that is asked."""

from __future__ import annotations

import numpy as np

from heartseg_jax.findings import REFUSE, WARN, Finding, refused
from heartseg_jax.imaging.tissues import TISSUES

LOWEST_HU = -1100
"""Air is -1000; noise reaches somewhat lower, and most scanners cut at -1024. Below lies padding."""


FEWEST_GREYS = 24
"""A mask has fewer values than this, also with a structure per label; a picture of a patient has many more."""


def of_grey(images: np.ndarray) -> list[Finding]:
    """Find in 8-bit slices `[N, H, W]` what `of_pixels` does, and masks that were taken for pictures."""
    found = of_pixels(images, "uint8")
    values = np.count_nonzero(np.bincount(images.ravel(), minlength=256))
    if values < FEWEST_GREYS and not refused(found):
        text = f"8-bit images of {values} different values: a mask or a label map, not pictures of a patient"
        found.append(Finding(REFUSE, "few_values", text, fix="give the images that it was drawn on"))
    return found


def of_pixels(images: np.ndarray, intensity: str) -> list[Finding]:
    """Find slices `[N, H, W]` that are constant, and values that cannot be HU where `intensity` is 'HU'.

    Of tissue maps ('tissue') find codes that no tissue has; a slice of one tissue is possible.
    """
    found = []
    if intensity == "tissue":
        values = np.flatnonzero(np.bincount(images.ravel(), minlength=256))
        if wrong := sorted(set(values.tolist()) - {tissue.code for tissue in TISSUES}):
            text = f"codes {', '.join(map(str, wrong[:5]))} are no tissue's"
            found.append(
                Finding(REFUSE, "codes", text, cause="this is an image, or a label map", fix="give tissue maps")
            )
        return found
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


def _is_constant(plane: np.ndarray) -> bool:
    """Return whether a slice has a single value; in most, a few pixels show that it has not."""
    return bool((plane[::8, ::8] == plane[0, 0]).all() and (plane == plane[0, 0]).all())
