"""Colour masks <-> labels, exactly, and the check for colours without a meaning.

Masks that JPEG or antialiasing damaged are repaired in `repair`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import WORDS, meaning_of
from heartseg_jax.imaging.masks.repair import colour_codes, repair
from heartseg_jax.imaging.pictures import on_black, open_picture, png_bits

Colour = tuple[int, int, int]
Palette = Mapping[Colour, int]

IGNORED_RGB: Colour = (255, 0, 255)
"""Mask colour of label 255. Magenta is no mixture of the structures' colours, so no rim can show it."""

LAST = HEART.foreground[-1].label
STANDARD: dict[Colour, int] = {**{s.mask_rgb: s.label for s in HEART.structures}, IGNORED_RGB: IGNORED}
"""The project's palette."""

MAX_UNDECIDED = 0.05
"""A repair that leaves a larger part of the foreground undecided has failed."""


class Mask(NamedTuple):
    """A mask file: `labels [H, W]` uint8 (255 where off), `off [H, W]` bool, `rgb [H, W, 3]` uint8.

    `off` marks colours that are not in the palette. `rgb` is None for a file that holds label numbers.
    """

    labels: np.ndarray
    off: np.ndarray
    rgb: np.ndarray | None


class Audit(NamedTuple):
    """Counts of one file: pixels that are not black, those off the palette, and their colours."""

    name: str
    foreground: int
    off: int
    colours: dict[Colour, int]

    @property
    def fraction(self) -> float:
        """Share of the pixels off background that are off the palette."""
        return self.off / self.foreground if self.foreground else 0.0


def labels_to_rgb(labels: np.ndarray) -> np.ndarray:
    """Return uint8 `[..., 3]`, the mask colours of `labels [...]` (0..8 or 255). Raises ValueError for others."""
    table = np.zeros((256, 3), np.uint8)
    for colour, label in STANDARD.items():
        table[label] = colour
    if not np.isin(labels, list(STANDARD.values())).all():
        raise ValueError(f"labels must be 0 to {LAST} or {IGNORED}, not {np.unique(labels)[:20]}")
    return table[labels]


def rgb_to_labels(rgb: np.ndarray, palette: Palette = STANDARD) -> tuple[np.ndarray, np.ndarray]:
    """Return `(labels, off)` of uint8 `rgb [..., 3]`: a colour counts exactly, or `off` is True and it is 255."""
    colours = np.array(sorted(palette))
    codes, known = colour_codes(rgb), colour_codes(colours)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    off = known[place] != codes
    labels = np.array([palette[colour] for colour in sorted(palette)], np.uint8)[place]
    labels[off] = IGNORED
    return labels, off


def read_mask(path: str | Path, palette: Palette | None = None) -> Mask:
    """Read a mask: colours (RGB, RGBA, indexed), or label numbers in grey (0..8 and 255, 8 or 16 bits).

    With a `palette` of the user's, grey counts as a colour too. What is transparent is black.

    Raises:
      UserError: for an unreadable file, or grey values that are neither.
    """
    path = Path(path)
    image = open_picture(path)
    if image.mode in ("L", "1", "LA") and palette is None and "transparency" not in image.info:
        return _from_numbers(path, np.asarray(image.convert("L")))
    if image.mode.startswith("I") or image.mode == "F":
        numbers = np.asarray(image)
        if palette is None or numbers.max() > 255 or numbers.min() < 0:
            return _from_numbers(path, numbers)
        image = Image.fromarray(numbers.astype(np.uint8))
    rgb = on_black(image)
    if png_bits(path) == 16 and not rgb.any():
        # 16-bit colour comes as its high bytes: black may be empty, or numbers that were never scaled up.
        raise UserError(f"{path} holds 16-bit colours, all below 256 or none at all: save it with 8 bits per channel")
    labels, off = rgb_to_labels(rgb, STANDARD if palette is None else palette)
    return Mask(labels, off, rgb)


def _from_numbers(path: Path, numbers: np.ndarray) -> Mask:
    found = [v.item() for v in np.unique(numbers)]
    wrong = [v for v in found if v not in HEART.all_known and v != IGNORED]
    if wrong:
        raise UserError(
            f"{path} is grey with values {', '.join(f'{v:g}' for v in wrong[:6])}: a grey mask holds label numbers"
            f" 0 to {LAST} and {IGNORED}; say what its greys mean with --colours=map.json"
        )
    if found in ([0, IGNORED], [IGNORED]):
        raise UserError(
            f"{path} is black and white: that may be one structure or a zone to ignore; say which with"
            ' --colours=map.json, such as {"0,0,0": "background", "255,255,255": "left_atrium"}'
        )
    return Mask(numbers.astype(np.uint8), np.zeros(numbers.shape, bool), None)


def audit(name: str, mask: Mask) -> Audit:
    """Return how many pixels of `mask` are off the palette, and in which colours."""
    foreground = int((mask.labels != 0).sum())
    colours: dict[Colour, int] = {}
    if mask.rgb is not None and mask.off.any():
        found, counts = np.unique(mask.rgb[mask.off], axis=0, return_counts=True)
        colours = {(r, g, b): n for (r, g, b), n in zip(found.tolist(), counts.tolist(), strict=True)}
    return Audit(name, foreground, int(mask.off.sum()), colours)


def check_audits(audits: Sequence[Audit], max_off_palette: float = 0.0, palette: Palette | None = None) -> None:
    """Raise UserError where a file's `fraction` is above `max_off_palette`: worst files, commonest colours, the fix."""
    refused = sorted((a for a in audits if a.fraction > max_off_palette), key=lambda a: (-a.fraction, a.name))
    if not refused:
        return
    colours: Counter[Colour] = Counter()
    for one in refused:
        colours.update(one.colours)
    worst = ", ".join(f"{a.name} ({a.off} of {a.foreground} pixels, {a.fraction:.1%})" for a in refused[:3])
    common = sorted(colours.items(), key=lambda item: (-item[1], item[0]))[:4]
    shown = ", ".join(f"#{r:02x}{g:02x}{b:02x} ({count})" for (r, g, b), count in common)
    other = "say what they mean with --colours=map.json"
    damage = "if JPEG or antialiasing damaged the masks, repair them with --repair"
    # A painter's palette has a handful of colours, damage has dozens.
    fix = f"{other}; {damage}" if len(colours) <= 12 else f"{damage}; if they are another palette, {other}"
    replaced = [rgb for rgb, _ in common if palette is not None and STANDARD.get(rgb)]
    if replaced:
        r, g, b = replaced[0]
        fix = f"--colours replaces the standard palette, which has #{r:02x}{g:02x}{b:02x}: name that too; {fix}"
    raise UserError(
        f"{len(refused)} of {len(audits)} masks hold {len(colours)} colours without a meaning; worst:"
        f" {worst}; commonest colours: {shown}. {fix[0].upper()}{fix[1:]}"
    )


def repair_mask(name: str, mask: Mask, palette: Palette | None = None) -> np.ndarray:
    """Return the labels `[H, W]` of a damaged mask; an intact one is returned as it is.

    Raises:
      UserError: where too much stays undecided: another palette, or damage beyond repair.
    """
    if mask.rgb is None or not mask.off.any():
        return mask.labels
    known = list((STANDARD if palette is None else palette).items())
    colours = np.array([colour for colour, _ in known], np.uint8)
    labels = repair(mask.rgb, colours, np.array([label for _, label in known], np.uint8))
    undecided = int(((labels == IGNORED) & mask.off).sum())
    foreground = int((labels != 0).sum())
    if undecided > MAX_UNDECIDED * foreground:
        raise UserError(
            f"{name} cannot be repaired: {undecided} of {foreground} pixels are not near any region of a known"
            " colour; if it has another palette, give --colours=map.json, otherwise export it again or remove it"
        )
    return labels


def read_palette(path: str | Path) -> dict[Colour, int]:
    """Read a palette of the user's: JSON `{colour: structure}`.

    A colour is "#rrggbb", "r,g,b" or "[r, g, b]"; a structure is a name of `label_maps.WORDS`, a label 0..8, or
    255; "aorta" means both its parts (`label_maps.AORTA`). A list of `[[r, g, b], structure]` is read as well.
    Black is background unless the map says otherwise.

    Raises:
      UserError: for anything else, naming the entry.
    """
    try:
        content = json.loads(Path(path).read_bytes(), object_pairs_hook=list)  # with a byte-order mark or not
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the colour map {path} cannot be read ({error})") from error
    if not isinstance(content, list) or not content or not all(_is_pair(entry) for entry in content):
        raise UserError(f'the colour map {path} must be an object such as {{"#ff0000": "left_atrium"}}')
    palette: dict[Colour, int] = {}
    for key, value in content:
        colour, label = _parse_colour(key, path), _parse_label(value, path)
        if palette.setdefault(colour, label) != label:
            raise UserError(f"the colour map {path} gives the colour {key} two meanings")
    palette.setdefault((0, 0, 0), 0)
    return palette


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2


def _parse_colour(key: Any, path: str | Path) -> Colour:
    text = ",".join(map(str, key)) if isinstance(key, list) else str(key).strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))
    numbers = re.fullmatch(r"[\[(]?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[\])]?", text)
    if numbers and max(map(int, numbers.groups())) <= 255:
        return (int(numbers[1]), int(numbers[2]), int(numbers[3]))
    raise UserError(f'the colour map {path}: {key!r} is no colour; write "#rrggbb" or "r,g,b" with 0 to 255')


def _parse_label(value: Any, path: str | Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and (0 <= value <= LAST or value == IGNORED):
        return value
    if isinstance(value, str):
        meaning = meaning_of(value)
        if meaning is not None:
            return meaning
        close = difflib.get_close_matches(value.strip().lower().replace(" ", "_"), WORDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(HEART.names)} and ignored"
        raise UserError(f"the colour map {path}: no structure {value!r}; {hint}")
    raise UserError(f"the colour map {path}: {value!r} is no label; use 0 to {LAST}, {IGNORED} or a name")
