"""What the headers of a CT series tell against its use: each look gives findings, none raises. No files here."""

from __future__ import annotations

import re

from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.dicom.patient import Words

ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
CT = ("1.2.840.10008.5.1.4.1.1.2", *ENHANCED_CT)
MAPS = re.compile(
    r"\b(IODINE|IODMAP|Z.?EFF|EFFECTIVE.?Z|RHO|ELECTRON.?DENSITY|PERFUSION|CALCIUM.?SUPPRESSED|SPECTRAL)\b"
)
MONOENERGETIC = re.compile(r"MONO.?E(NERGETIC)?|\bVMI\b|\b\d{2,3}\s?KEV\b")
DERIVED = re.compile(r"\b(MIP|MINIP|AVERAGE|PROJECTION IMAGE|VRT|VOLREN\w*)\b")
REFORMATTED = re.compile(r"\b(MPR|CURVED|REFORMATTED|RESAMPLED)\b")


SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


def is_localizer(header: Header) -> bool:
    """Tell whether a file is a scout view, which is part of most series' folders and of no volume."""
    return "LOCALIZER" in header.image_type


def is_segmentation(header: Header) -> bool:
    """Tell whether a file holds labels instead of an image."""
    return header.sop_class in SEGMENTATION


def is_apart(header: Header) -> bool:
    """Tell whether a file belongs to no series of slices, although it has pixels."""
    return is_localizer(header) or is_segmentation(header)


def of_header(header: Header, words: Words) -> list[Finding]:
    """Return what one file's header, and its words, tell of its whole series."""
    found = []
    if header.modality != "CT" or (header.sop_class and header.sop_class not in CT):
        kind = header.modality or "of no known modality"
        found.append(Finding(REFUSE, "not_ct", f"the series is {kind}, not CT", fix="choose a CT series"))
    said = " ".join([*header.image_type, words.description]).upper()
    if MAPS.search(said):
        text = f"the series is a map ({MAPS.search(said)[0].lower()}), not HU"  # type: ignore[index]
        found.append(Finding(REFUSE, "not_hu_map", text, fix="choose the conventional reconstruction"))
    elif MONOENERGETIC.search(said):
        text = "the series is a monoenergetic reconstruction: contrast is brighter or darker than usual"
        found.append(Finding(WARN, "monoenergetic", text, fix="prefer the conventional reconstruction"))
    if DERIVED.search(said):
        text = f"the series is a projection or rendering ({DERIVED.search(said)[0].lower()})"  # type: ignore[index]
        found.append(Finding(REFUSE, "projection", text, fix="choose the original slices"))
    elif REFORMATTED.search(said):
        text = "the series is a reformation (MPR) of another"
        found.append(Finding(WARN, "reformatted", text, fix="prefer the original axial slices"))
    if header.photometric == "MONOCHROME1":
        text = "MONOCHROME1: shown inverted by viewers; its values are read as HU all the same"
        found.append(Finding(WARN, "monochrome1", text, fix="compare a slice with your viewer"))
    if header.sop_class in ENHANCED_CT:
        found.append(Finding(NOTE, "multi_frame", f"enhanced CT: {len(header.places)} frames in one file"))
    if any(place.slope is None or place.intercept is None for place in header.places) and header.modality == "CT":
        text = "RescaleSlope or RescaleIntercept is missing: values are taken as HU as they are"
        found.append(Finding(WARN, "missing_rescale", text, fix="look at the values: air is -1000 HU, blood 30 to 500"))
    if words.cardiac_phase:
        found.append(Finding(NOTE, "cardiac_phase", f"the heart's phase is told: {words.cardiac_phase}"))
    return found
