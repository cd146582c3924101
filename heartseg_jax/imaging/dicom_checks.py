"""What may be wrong with a CT series beyond its geometry: each look gives findings, none raises. No files here."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from heartseg_jax.imaging.dicom import Header, Words
from heartseg_jax.imaging.findings import NOTE, REFUSE, WARN, Finding

ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
CT = ("1.2.840.10008.5.1.4.1.1.2", *ENHANCED_CT)
FEW_SLICES = 20
SMALL_FIELD_MM, SHORT_MM = 130.0, 80.0
"""A heart with its great vessels needs about so much: across, and from top to bottom."""
MAPS = re.compile(
    r"\b(IODINE|IODMAP|Z.?EFF|EFFECTIVE.?Z|RHO|ELECTRON.?DENSITY|PERFUSION|CALCIUM.?SUPPRESSED|SPECTRAL)\b"
)
MONOENERGETIC = re.compile(r"MONO.?E(NERGETIC)?|\bVMI\b|\b\d{2,3}\s?KEV\b")
DERIVED = re.compile(r"\b(MIP|MINIP|AVERAGE|PROJECTION IMAGE|VRT|VOLREN\w*)\b")
REFORMATTED = re.compile(r"\b(MPR|CURVED|REFORMATTED|RESAMPLED)\b")
CONTRAST_HU = (150, 600)
CONTRAST_SHARE = 0.02
"""Of the middle of the block: chambers full of contrast fill more; spine and calcium alone fill less."""


def is_localizer(header: Header) -> bool:
    """Tell whether a file is a scout view, which is part of most series' folders and of no volume."""
    return "LOCALIZER" in header.image_type


def of_header(header: Header, words: Words) -> list[Finding]:
    """Return what one file's header, and its words, tell of its whole series."""
    found = []
    if header.modality != "CT" or (header.sop_class and header.sop_class not in CT):
        kind = header.modality or "of no known modality"
        found.append(Finding(REFUSE, "not_ct", f"the series is {kind}, not CT", "choose a CT series"))
    said = " ".join([*header.image_type, words.description]).upper()
    if MAPS.search(said):
        text = f"the series is a map ({MAPS.search(said)[0].lower()}), not HU"  # type: ignore[index]
        found.append(Finding(REFUSE, "not_hu_map", text, "choose the conventional reconstruction"))
    elif MONOENERGETIC.search(said):
        text = "the series is a monoenergetic reconstruction: contrast is brighter or darker than usual"
        found.append(Finding(WARN, "monoenergetic", text, "prefer the conventional reconstruction"))
    if DERIVED.search(said):
        text = f"the series is a projection or rendering ({DERIVED.search(said)[0].lower()})"  # type: ignore[index]
        found.append(Finding(REFUSE, "projection", text, "choose the original slices"))
    elif REFORMATTED.search(said):
        text = "the series is a reformation (MPR) of another"
        found.append(Finding(WARN, "reformatted", text, "prefer the original axial slices"))
    if header.photometric == "MONOCHROME1":
        text = "MONOCHROME1: shown inverted by viewers; its values are read as HU all the same"
        found.append(Finding(WARN, "monochrome1", text, "compare a slice with your viewer"))
    if header.sop_class in ENHANCED_CT:
        found.append(Finding(NOTE, "multi_frame", f"enhanced CT: {len(header.places)} frames in one file"))
    if any(place.slope is None or place.intercept is None for place in header.places) and header.modality == "CT":
        text = "RescaleSlope or RescaleIntercept is missing: values are taken as HU as they are"
        found.append(Finding(WARN, "missing_rescale", text, "look at the values: air is -1000 HU, blood 30 to 500"))
    if words.cardiac_phase:
        found.append(Finding(NOTE, "cardiac_phase", f"the heart's phase is told: {words.cardiac_phase}"))
    return found


def of_extent(count: int, shape: tuple[int, int], spacing_mm: Sequence[float]) -> list[Finding]:
    """Return what follows from a block's size: `count` slices of `shape`, spacing (z, y, x) in mm."""
    found = []
    if count < 2:
        text = "one slice alone: no volume, no neighbours"
        return [Finding(REFUSE, "too_few_slices", text, "give the whole series")]
    if count < FEW_SLICES:
        text = f"{count} slices alone"
        found.append(Finding(WARN, "too_few_slices", text, "volumes and the valve's region need the whole heart"))
    fields = [shape[0] * spacing_mm[1], shape[1] * spacing_mm[2]]
    if min(fields) < SMALL_FIELD_MM:
        text = f"the field of view is {fields[0]:.0f} x {fields[1]:.0f} mm and may cut the heart"
        found.append(Finding(WARN, "small_field", text, "prefer a reconstruction of a larger field of view"))
    if count * spacing_mm[0] < SHORT_MM:
        text = f"the block is {count * spacing_mm[0]:.0f} mm from end to end and may cut the heart"
        found.append(Finding(WARN, "short_block", text, "prefer a series that covers the heart and the aortic arch"))
    return found


def of_values(hu: np.ndarray, padded: int, contrast_agent: bool | None) -> list[Finding]:
    """Return what the values of a block tell: `hu` int16 `[Z, Y, X]`, of which `padded` pixels were made air."""
    found = []
    if padded:
        text = f"{100 * padded / hu.size:.1f} % of the pixels are padding and were set to air"
        found.append(Finding(NOTE, "padding", text))
    thin = hu[:: max(len(hu) // 32, 1), ::2, ::2]
    constant = int(np.sum(hu.reshape(len(hu), -1).min(axis=1) == hu.reshape(len(hu), -1).max(axis=1)))
    if 2 * constant > len(hu):
        text = f"{constant} of {len(hu)} slices are constant"
        return [*found, Finding(REFUSE, "constant", text, "the pixels were lost: export the series anew")]
    low, high = (float(value) for value in np.percentile(thin, (0.5, 99.5)))
    if low > -200 or low < -8192 or high > 8192 or high < -500:
        text = f"99 % of the values lie from {low:.0f} to {high:.0f}: no HU of a patient in air"
        mend = "choose a series in HU; a colour map, a mask or a lost rescale looks like this"
        return [*found, Finding(REFUSE, "not_hu", text, mend)]
    z, y, x = (slice(n // 4, max(n - n // 4, n // 4 + 1)) for n in hu.shape)
    middle = hu[z, y, x]
    bright = float(np.mean((middle >= CONTRAST_HU[0]) & (middle <= CONTRAST_HU[1])))
    if bright < CONTRAST_SHARE:
        said = {True: "although a contrast agent is named", False: "and no contrast agent is named", None: ""}
        text = f"{100 * bright:.1f} % of the middle is as bright as contrast {said[contrast_agent]}".rstrip()
        mend = "chambers cannot be told from walls without contrast: choose a series with it"
        found.append(Finding(WARN, "no_contrast", text, mend))
    return found
