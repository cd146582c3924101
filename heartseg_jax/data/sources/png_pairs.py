"""A folder of slice images and colour masks, `images/NAME.png` and `masks/NAME.png`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax import progress
from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.data.audit.near_duplicates import brightness, prints_of
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.grouping import alike_names, by_prefix, doubts, grouped
from heartseg_jax.data.sources.listing import PICTURES, FilePair, pairs_in
from heartseg_jax.data.sources.patient_table import patients_of
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted, some
from heartseg_jax.imaging.masks import palette as colour_masks
from heartseg_jax.imaging.masks.label_maps import merge_for
from heartseg_jax.imaging.pictures import picture_header, read_grey, turned_otherwise
from heartseg_jax.imaging.volume import put_in_middle

ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "standard": lambda a: a,
    "flip-rows": lambda a: a[::-1],
    "flip-columns": lambda a: a[:, ::-1],
    "rot90": lambda a: np.rot90(a, 1),
    "rot180": lambda a: np.rot90(a, 2),
    "rot270": lambda a: np.rot90(a, 3),
    "transpose": lambda a: a.swapaxes(0, 1),
}
"""What brings a slice to rows towards Posterior, columns towards Left; rotations are anticlockwise."""


class Reading(NamedTuple):
    """How the pairs of all patients are read: `palette` is the user's or None, `size` that of every slice."""

    orient: Callable[[np.ndarray], np.ndarray]
    palette: colour_masks.Palette | None
    repair: bool
    merge: tuple[int, ...]
    size: tuple[int, int]


def png_pairs(options: Options) -> Source:
    """Return the patients of `images/NAME.png` (8-bit grey) and `masks/NAME.png` (colours).

    The patient is the part of NAME before the first `_`, or what a table says. Slices of different sizes are padded to
    the largest, around the middle, with air and background. `orientation` says what brings slices to the standard one.

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming files and the fix.
    """
    if options.orientation not in ORIENTATIONS:
        raise UserError(f"unknown orientation '{options.orientation}': choose {', '.join(ORIENTATIONS)}")
    orient = ORIENTATIONS[options.orientation]
    palette = colour_masks.read_palette(options.colours) if options.colours else None
    merge = options.merge or (HEART.all_known if palette is None else merge_for(set(palette.values())))
    pairs, warnings = pairs_in(options.input, ("images", "masks"), PICTURES)
    if options.patients is None:
        patients = grouped(by_prefix(list(pairs)))
        warnings += doubts(patients, cache(lambda name: _thumbnail(pairs[name].image)))
    else:
        patients = grouped(patients_of(list(pairs), options.patients, every_row=True))
    sizes, turned = _check_sizes(pairs)
    warnings += turned
    if not options.repair:
        off = _off_palette(list(pairs.values()), palette, options.max_off_palette)
        warnings += [f"{counted(off, 'pixel')} of colours without a meaning ignored (255)"] if off else []
    oriented = {orient(np.empty(size, np.bool_)).shape for size in sizes.values()}
    height, width = max(h for h, _ in oriented), max(w for _, w in oriented)
    if len(oriented) > 1:
        warnings.append(f"slices of {len(oriented)} sizes were padded to {height} x {width}")

    called = options.naming.called(list(patients), list(pairs))
    warnings += alike_names(called)
    how = Reading(orient, palette, options.repair, merge, (height, width))
    cases: list[Case] = []
    shown: dict[str, str] = {}
    for patient, names in patients.items():
        identity = called[patient]
        # Where patients are called by keys, their slices' files are likely to be called after them.
        own = [pairs[n].image.name if identity == patient else f"{identity}_{k:04d}" for k, n in enumerate(names)]
        shown |= dict(zip(names, own, strict=True))
        read = partial(_read, [pairs[name] for name in names], own, how)
        cases.append(Case(identity, identity, patient, lambda: how.size, read))
    about = {
        "kind": "png_pairs",
        "orientation": options.orientation,
        "palette": {
            "#{:02x}{:02x}{:02x}".format(*rgb): label for rgb, label in (palette or colour_masks.STANDARD).items()
        },
        "repair": options.repair,
        "max_off_palette": options.max_off_palette,
        "sizes": {shown[name]: list(size) for name, size in sizes.items()} if len(oriented) > 1 else {},
        "warnings": warnings,
    }
    return Source(cases, about, intensity="uint8")


def _read(pairs: Sequence[FilePair], names: Sequence[str], how: Reading) -> Labelled:
    images, labels = np.zeros((2, len(pairs), *how.size), np.uint8)  # padded with air and background, both 0
    coloured: list[str] = []
    off = undecided = files = 0
    for z, pair in enumerate(pairs):
        image, was_coloured = read_grey(pair.image)
        coloured += [names[z]] * was_coloured
        mask = colour_masks.read_mask(pair.labels, how.palette)
        plane = colour_masks.repair_mask(pair.labels.name, mask, how.palette) if how.repair else mask.labels
        off, files = off + int(mask.off.sum()), files + bool(mask.off.any())
        undecided += int((plane[mask.off] == IGNORED).sum())
        put_in_middle(images[z], how.orient(image))
        put_in_middle(labels[z], how.orient(plane))
    found = []
    if coloured:
        text = f"{counted(len(coloured), 'coloured image')}, of which the brightness was taken: {some(coloured)}"
        found.append(Finding(WARN, "coloured_images", text))
    if how.repair and off:
        text = (
            f"{counted(off, 'mask pixel')} in {counted(files, 'file')} repaired; {undecided} stay undecided and are "
            "ignored (255)"
        )
        found.append(Finding(WARN, "repaired_masks", text))
    return Labelled(images, labels, how.merge, names=names, found=tuple(found))


def _thumbnail(path: Path) -> np.ndarray:
    return prints_of(brightness(read_grey(path)[0][None], "uint8")).thumbnails[0].astype(np.float32)


def _off_palette(pairs: Sequence[FilePair], palette: colour_masks.Palette | None, most: float) -> int:
    """Return how many pixels of the masks have colours without a meaning. UserError where a mask has too many."""
    show = progress.bar("masks checked")
    audits = []
    for done, pair in enumerate(pairs, 1):
        audits.append(colour_masks.audit(pair.labels.name, colour_masks.read_mask(pair.labels, palette)))
        show(done, len(pairs))
    colour_masks.check_audits(audits, most, palette)
    return sum(one.off for one in audits)


def _check_sizes(pairs: dict[str, FilePair]) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Return the size of each pair, from the headers, and the warning of masks that are turned otherwise."""
    sizes, wrong, turned = {}, [], 0
    for name, pair in pairs.items():
        (image, orientation), (mask, masks_orientation) = (picture_header(path) for path in pair)
        sizes[name] = image
        turned += orientation != masks_orientation
        if image != mask:
            wrong.append(f"{pair.image.name} ({image[0]} x {image[1]}, mask {mask[0]} x {mask[1]})")
    if wrong:
        raise UserError(f"image and mask differ in size: {some(wrong)}; export them again together")
    return sizes, turned_otherwise(turned)
