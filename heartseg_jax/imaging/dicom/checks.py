"""What the headers of a CT series say against its use: findings, none raises. No files here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heartseg_jax.findings import NOTE, REFUSE, WARN, Finding
from heartseg_jax.imaging.dicom.geometry import FrameRef
from heartseg_jax.imaging.dicom.header import Header
from heartseg_jax.imaging.dicom.marks import MAP, MONOENERGETIC, PROJECTION, REFORMATTED
from heartseg_jax.imaging.dicom.patient import SeriesText

ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
CT = ("1.2.840.10008.5.1.4.1.1.2", *ENHANCED_CT)
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
MARKED = {
    MAP: (REFUSE, "a map ({}), not HU", "choose the conventional reconstruction"),
    MONOENERGETIC: (
        WARN,
        "a monoenergetic reconstruction ({}): contrast is brighter or darker than usual",
        "prefer the conventional reconstruction",
    ),
    PROJECTION: (REFUSE, "a projection or rendering ({})", "choose the original slices"),
    REFORMATTED: (WARN, "a reformation ({}) of another", "prefer the original axial slices"),
}


def kind_of(header: Header) -> str:
    """Return 'segmentation', 'structure_set', 'localizer' (a scout view), 'image', or 'object', which has no image."""
    if header.sop_class in SEGMENTATION:
        return "segmentation"
    if header.sop_class == STRUCTURE_SET:
        return "structure_set"
    if "LOCALIZER" in header.image_type:
        return "localizer"
    return "image" if header.has_pixels or header.rows else "object"


def is_ct(header: Header) -> bool:
    """Return whether a file says that it is CT, by its modality and, where it is given, its SOP class."""
    return header.modality == "CT" and header.sop_class in ("", *CT)


def of_headers(frames: Sequence[FrameRef], words: SeriesText) -> list[Finding]:
    """Return what the headers of a series' frames, every one of them, and its words say of it."""
    found = []

    def some(holds: Callable[[FrameRef], bool]) -> str:
        """Return which frames these are, as the start of a sentence; '' where there is none."""
        count = sum(map(holds, frames))
        return "" if not count else "the series is" if count == len(frames) else f"{count} of {len(frames)} slices are"

    if which := some(lambda frame: not is_ct(frame.header)):
        kinds = sorted({frame.header.modality or "of no known modality" for frame in frames if not is_ct(frame.header)})
        found.append(Finding(REFUSE, "not_ct", f"{which} {', '.join(kinds)}, not CT", fix="choose a CT series"))
    marks = [frame.header.marks | frame.geometry.marks for frame in frames]
    for check, (level, text, fix) in MARKED.items():
        said = [next((word for mark, word in own if mark == check), "") for own in marks]
        if any(said):
            # In some slices only, it makes a series of two kinds.
            which = "the series is" if all(said) else f"{len(said) - said.count('')} of {len(said)} slices are"
            mixed = check == MONOENERGETIC and not all(said)
            text = f"{which} {text.format(next(filter(None, said)))}"
            found.append(Finding(REFUSE if mixed else level, check, text, fix=fix))
    if which := some(lambda frame: frame.header.photometric == "MONOCHROME1"):
        text = f"{which} MONOCHROME1: shown inverted by viewers; the values are read as HU all the same"
        found.append(Finding(WARN, "monochrome1", text, fix="compare a slice with your viewer"))
    if frames[0].header.sop_class in ENHANCED_CT:
        found.append(Finding(NOTE, "multi_frame", f"enhanced CT: {len(frames[0].header.frames)} frames in one file"))
    found += _of_storage(frames)
    if words.other_part:
        text = f"the header says that this is the {words.other_part}"
        cause = "another part of the body than the heart, or a header that was not filled in"
        found.append(Finding(WARN, "body_part", text, cause=cause, fix="look at a slice: does it show the heart?"))
    if words.cardiac_phase:
        found.append(Finding(NOTE, "cardiac_phase", f"the phase of the heart is stated: {words.cardiac_phase}"))
    return found


def _of_storage(frames: Sequence[FrameRef]) -> list[Finding]:
    """Return what speaks against the way from stored values to HU."""
    found = []
    headers = [frame.header for frame in frames]
    bare = [
        f for f in frames if (f.geometry.slope is None or f.geometry.intercept is None) and f.header.modality == "CT"
    ]
    if len(bare) == len(frames):
        text = "RescaleSlope or RescaleIntercept is missing: values are taken as HU as they are"
        found.append(Finding(WARN, "missing_rescale", text, fix="check the values: air is -1000 HU, blood 30 to 500"))
    elif bare:
        text = f"{len(bare)} of {len(frames)} slices lack RescaleSlope or RescaleIntercept"
        fix = "export the original series again"
        found.append(Finding(REFUSE, "missing_rescale", text, fix=fix, example=name_of(bare[0])))
    tables = [header for header in headers if header.has_lut]
    if tables:
        text = f"{len(tables)} of {len(frames)} slices have a ModalityLUTSequence"
        fix, cause = "export the series with RescaleSlope and RescaleIntercept", "their values are no linear HU"
        example = tables[0].source.name
        found.append(Finding(REFUSE, "modality_lut", text, cause=cause, fix=fix, example=example))
    inverted = sum((frame.geometry.slope or 1) < 0 for frame in frames)
    if inverted:
        text = f"RescaleSlope is negative in {inverted} of {len(frames)} slices: brighter is stored as less"
        found.append(Finding(WARN, "inverted_rescale", text, fix="check the values: air is -1000 HU, blood 30 to 500"))
    # Above the stored bits a shift gives the value, if the pixels are not compressed; below, nothing does.
    odd = [h for h in headers if h.bits_stored and h.has_pixels and h.high_bit != h.bits_stored - 1 and not h.plain]
    if odd:
        text = f"HighBit {odd[0].high_bit} does not go with {odd[0].bits_stored} bits stored"
        fix = "export the original series again"
        found.append(Finding(REFUSE, "high_bit", text, fix=fix, example=odd[0].source.name))
    guessed = [header for header in headers if header.syntax_is_guessed]
    if guessed:
        text = (
            f"{len(guessed)} of {len(frames)} slices do not state a transfer syntax; read as {guessed[0].syntax_name}"
        )
        found.append(Finding(NOTE, "guessed_syntax", text))
    return found


def name_of(frame: FrameRef) -> str:
    """Return a frame's file, and its number in there where there are several."""
    return frame.header.source.name + (f", frame {frame.number + 1}" if len(frame.header.frames) > 1 else "")
