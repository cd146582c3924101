"""A folder of slice images and colour masks -> a dataset folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.data.dataset.splits import assign_splits, block_splits
from heartseg_jax.data.dataset.write import Dataset, DatasetWriter, check_output, read_dataset, verify
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.data.sources.patient_table import SUFFIXES, natural_key, read_table
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks import palette as colour_masks
from heartseg_jax.imaging.masks.label_maps import merge_for, settle
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
"""What brings a slice to rows towards Posterior, columns towards Left; turns are anticlockwise."""

AIR_8BIT = 0


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    mask: Path


def prepare_png_pairs(
    input: str | Path,
    output: str | Path,
    *,
    patients_table: str | Path | None = None,
    colours: str | Path | None = None,
    orientation: str = "standard",
    repair: bool = False,
    max_off_palette: float = 0.0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    merge: Sequence[int] | None = None,
    naming: Naming | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a dataset of `input/images/NAME.png` and `input/masks/NAME.png`.

    Args:
      input: the folder with `images` (8-bit grey) and `masks` (colours).
      output: the dataset folder.
      patients_table: CSV with the columns file, patient; by default the patient is the part of the
        file's name before the first `_`.
      colours: another palette, see `palette.read_palette`.
      orientation: one of `ORIENTATIONS`, what must be done to the slices to stand as the project's do.
      repair: mend masks damaged by JPEG or antialiasing.
      max_off_palette: without `repair`, the share of a mask's pixels off background that may have a
        colour without a meaning; they become 255 (ignored).
      fractions: shares of patients (train, validation, test), or numbers of them.
      seed: of the split.
      merge: see `LabelSet.check_merge`; by default what a palette of the user's does not name is unknown.
      naming: what patients are called in the dataset.
      overwrite: replace an existing dataset.
      progress: called with (slices done, slices in all).

    Slices of different sizes are padded to the largest, around the middle, with air and background.

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming files and the mend.
    """
    check_output(output, overwrite)
    turn = _orientation(orientation)
    if not 0 <= max_off_palette < 1:
        raise UserError(f"the share of colours off the palette must lie from 0 to below 1, not {max_off_palette}")
    palette = colour_masks.read_palette(colours) if colours else None
    if merge is None:
        merge = HEART.all_known if palette is None else merge_for(set(palette.values()))
    merge = checked_merge(merge)
    warnings: list[str] = []
    pairs = find_pairs(Path(input), warnings)
    patients = group_by_patient(pairs, patients_table)
    sizes = _check_sizes(pairs)
    if not repair:
        audits = [colour_masks.audit(p.mask.name, colour_masks.read_mask(p.mask, palette)) for p in pairs]
        colour_masks.check_audits(audits, max_off_palette)
        off = sum(a.off for a in audits)
        if off:
            warnings.append(f"{off} pixels of colours without a meaning are ignored (255)")
    turned = [turn(np.empty(size, np.bool_)).shape for size in sizes.values()]
    height, width = max(h for h, _ in turned), max(w for _, w in turned)
    if len(set(turned)) > 1:
        warnings.append(f"slices of {len(set(turned))} sizes were padded to {height} x {width}")

    naming = naming or Naming()
    called = naming.called(list(patients), [pair.image.stem for pair in pairs])
    # Where patients are called by keys, their slices' files are likely to be called after them.
    shown = {
        pair: pair.image.name if called[identity] == identity else f"{called[identity]}_{index:04d}"
        for identity, members in patients.items()
        for index, pair in enumerate(members)
    }
    alone = len(patients) == 1
    splits = assign_splits(list(called.values()), fractions, seed)
    source = {
        "kind": "png_pairs",
        "orientation": orientation,
        "palette": {_hex(colour): label for colour, label in (palette or colour_masks.STANDARD).items()},
        "repair": repair,
        "max_off_palette": max_off_palette,
        "seed": seed,
        "fractions": list(fractions),
        "sizes": {shown[p]: list(sizes[p]) for p in pairs} if len(set(turned)) > 1 else {},
        "warnings": warnings,
    }
    mended: list[tuple[int, int]] = []
    coloured: list[str] = []
    with DatasetWriter(
        output,
        intensity="uint8",
        height=height,
        width=width,
        label_set=HEART,
        source=source,
        split_kind="block" if alone else "patient",
        overwrite=overwrite,
    ) as writer:
        done = 0
        for identity, members in patients.items():
            images = np.full((len(members), height, width), AIR_8BIT, np.uint8)
            labels = np.zeros((len(members), height, width), np.uint8)
            for index, pair in enumerate(members):
                image, was_coloured = read_grey(pair.image)
                coloured += [shown[pair]] * was_coloured
                mask = colour_masks.read_mask(pair.mask, palette)
                plane = mask.labels
                if repair:
                    plane = colour_masks.repair_mask(pair.mask.name, mask, palette)
                    mended.append((int(mask.off.sum()), int((plane[mask.off] == IGNORED).sum())))
                put_in_middle(images[index], turn(image))
                put_in_middle(labels[index], turn(plane))
                done += 1
                if progress:
                    progress(done, len(pairs))
            whole = settle(labels, None, merge)
            writer.add(
                called[identity],
                images,
                whole.labels,
                names=[shown[pair] for pair in members],
                split=block_splits(len(members), fractions) if alone else splits[called[identity]],
                merge=whole.merge,
            )
        if coloured:
            some = ", ".join(coloured[:3]) + (" ..." if len(coloured) > 3 else "")
            warnings.append(f"{len(coloured)} images are coloured, their brightness was taken: {some}")
        if sum(off for off, _ in mended):
            warnings.append(
                f"{sum(off for off, _ in mended)} mask pixels in {sum(off > 0 for off, _ in mended)} files were"
                f" repaired; {sum(left for _, left in mended)} of them stay undecided and are ignored (255)"
            )
    dataset = read_dataset(output)
    verify(dataset)
    return dataset


def checked_merge(merge: Sequence[int]) -> tuple[int, ...]:
    """Return a `merge` that can be meant, or raise a UserError."""
    try:
        return HEART.check_merge(tuple(merge))
    except ValueError as error:
        raise UserError(str(error)) from error


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _orientation(name: str) -> Callable[[np.ndarray], np.ndarray]:
    if name not in ORIENTATIONS:
        raise UserError(f"no orientation {name!r}: choose {', '.join(ORIENTATIONS)}")
    return ORIENTATIONS[name]


def find_pairs(folder: Path, warnings: list[str]) -> list[Pair]:
    """Return the pairs of `folder`, in natural order of their names; what is passed over joins `warnings`.

    Raises:
      UserError: for a missing folder, an image without a mask, a mask without an image.
    """
    found: list[dict[str, Path]] = []
    for kind in ("images", "masks"):
        place = folder / kind
        if not place.is_dir():
            raise UserError(f"no folder {place}: the input of png_pairs holds `images` and `masks`")
        files: dict[str, Path] = {}
        strange = 0
        for path in sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                strange += 1
            elif path.stem in files:
                raise UserError(f"{files[path.stem]} and {path} have the same name: remove one")
            else:
                files[path.stem] = path
        found.append(files)
        if strange:
            warnings.append(f"{strange} files of {kind}/ are no images and were passed over")
    images, masks = found
    for lacking, mate in (
        ([p for stem, p in images.items() if stem not in masks], "mask"),
        ([p for stem, p in masks.items() if stem not in images], "image"),
    ):
        if lacking:
            shown = ", ".join(f"{p.parent.name}/{p.name}" for p in lacking[:5])
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            raise UserError(f"no {mate} of the same name for {shown}{more} in {folder}: add it, or remove these")
    if not images:
        raise UserError(f"{folder / 'images'} holds no image")
    return [Pair(images[stem], masks[stem]) for stem in sorted(images, key=natural_key)]


def group_by_patient(pairs: Sequence[Pair], table: str | Path | None) -> dict[str, list[Pair]]:
    """Return `{patient: pairs}`, patients and pairs in natural order. UserError for a file of nobody's."""
    if table is None:
        owners = {}
        for pair in pairs:
            owner, separator, _ = pair.image.stem.partition("_")
            if not separator or not owner:
                raise UserError(
                    f"{pair.image.name} does not tell its patient (the part before `_`): rename the files, or"
                    " give --patients=table.csv with the columns file,patient"
                )
            owners[pair.image.stem] = owner
    else:
        owners = read_table(Path(table))
        stems = {pair.image.stem for pair in pairs}
        for names, wrong in ((stems - set(owners), "misses"), (set(owners) - stems, "names without an image")):
            if names:
                shown = ", ".join(sorted(names, key=natural_key)[:5])
                raise UserError(f"the table {table} {wrong} {len(names)} of the files: {shown}")
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        # One name may be written in two ways (composed letters or not), by two systems that made the files.
        grouped.setdefault(unicodedata.normalize("NFC", owners[pair.image.stem]), []).append(pair)
    return {patient: grouped[patient] for patient in sorted(grouped, key=natural_key)}


def _check_sizes(pairs: Sequence[Pair]) -> dict[Pair, tuple[int, int]]:
    sizes, wrong = {}, []
    for pair in pairs:
        image, mask = (colour_masks.image_size(path) for path in pair)
        sizes[pair] = image
        if image != mask:
            wrong.append(f"{pair.image.name} ({image[0]} x {image[1]}, mask {mask[0]} x {mask[1]})")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"image and mask differ in size: {', '.join(wrong[:3])}{more}; export them again together")
    return sizes


def read_grey(path: Path) -> tuple[np.ndarray, bool]:
    """Return `(image [H, W] uint8, whether it was coloured)`; the brightness of a coloured one.

    Raises:
      UserError: for an unreadable file, or more than 8 bits a pixel: an unknown scale is not guessed.
    """
    image = colour_masks.open_image(path)
    deep = colour_masks.png_bits(path) == 16 or image.mode.startswith("I") or image.mode == "F"
    if deep:
        numbers = np.asarray(image)
        fits = numbers.ndim == 2 and image.mode != "F" and numbers.min() >= 0 and numbers.max() <= 255
        if not fits:
            raise UserError(
                f"{path} has more than 8 bits a pixel and no known scale: bring CT in HU as DICOM or NIfTI, or"
                " export 8-bit images, all with the same window"
            )
        return numbers.astype(np.uint8), False
    if image.mode == "L":
        return np.asarray(image), False
    rgb = colour_masks.on_black(image)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return rgb[..., 0], False
    # ITU-R BT.601, as Pillow and most viewers have it.
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8), True
