"""A zip or a folder of numbered slice images and masks of one structure. Nothing is unpacked."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from heartseg_jax.anatomy import TUMOUR
from heartseg_jax.data.dataset.splits import GAP, block_splits
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.listing import is_system, list_files, not_read
from heartseg_jax.errors import UserError
from heartseg_jax.findings import WARN, Finding, counted, some
from heartseg_jax.imaging.pictures import on_black, open_picture, reason_of, turned_otherwise

FEWEST_BLOCKS = 5
ROUND = 16
"""Blocks per round. Files are often sorted by disease: in each round of blocks every split gets its share."""
ONE_STRUCTURE = TUMOUR.all_known
"""The `merge` of a source that knows background and label 1: the other channels count as background."""

SUFFIXES = {"images": (".jpg", ".jpeg", ".png"), "masks": (".png",)}
SIDE = (8, 4096)
"""Pixels: a slice is not smaller or larger."""
MOST_BYTES = 64 * 2**20
MOST_FILES = 400_000
BROKEN = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What zipfile raises over files that are damaged or packed in an unknown way."""

Read = Callable[[], bytes]


class Pair(NamedTuple):
    """Slice `number`: the names of its two files, and what reads them."""

    number: int
    image: str
    mask: str
    read_image: Read
    read_mask: Read


def image_mask_zip(options: Options) -> Source:
    """Return the blocks of `images/NUMBER.jpg` (or png) and `masks/NUMBER.png`, in a zip or a folder.

    The files do not say which patient a slice is of, only that neighbouring numbers are one patient's: blocks of
    consecutive slices replace patients, splits are runs of blocks, and the block at each border between two splits is
    left out of the dataset. Every pixel of a mask that is not 0 is label 1. A zip is read in place.

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming the file and the fix.
    """
    block = options.block
    files, warnings = _files(options.input)
    pairs = find_pairs(files, str(options.input))
    blocks = into_blocks(pairs, block)
    if len(blocks) < FEWEST_BLOCKS:
        raise UserError(
            f"{len(pairs)} slices make {len(blocks)} blocks of {block}, too few to part training from test "
            f"({FEWEST_BLOCKS} at least): give --block={max(1, len(pairs) // (2 * FEWEST_BLOCKS))}, or more slices"
        )
    splits = {
        _identity(members): split
        for members, split in zip(blocks, runs_of_blocks(len(blocks), options.splits), strict=True)
    }
    left_out = [identity for identity, split in splits.items() if split == GAP]
    caveat = (
        f"blocks of {block} consecutive slices replace patients, whom the files do not name: a patient may "
        "lie in two blocks of one split, and 'patients' are blocks wherever they are counted"
    )
    about = {
        "kind": "image_mask_zip",
        "block": block,
        "fractions": list(options.splits),
        "left_out": left_out,
        "caveats": [caveat],
        "warnings": [
            caveat,
            f"{counted(len(left_out), 'block')} at the borders between splits left out, so that no patient of up to "
            f"{block} consecutive slices is in two splits: {', '.join(left_out) or '-'}",
            *warnings,
        ],
    }
    first = _open(pairs[0].image, pairs[0].read_image)
    size = (first.height, first.width)
    cases = [
        Case(identity, identity, identity, lambda: size, partial(_read_block, members, size))
        for members in blocks
        if splits[identity := _identity(members)] != GAP
    ]
    return Source(cases, about, "uint8", TUMOUR, splits, unit="blocks")


def into_blocks(pairs: Sequence[Pair], block: int) -> list[list[Pair]]:
    """Return `pairs` in runs of `block`; a remainder of less than half a block joins the last."""
    blocks = [list(pairs[start : start + block]) for start in range(0, len(pairs), block)]
    if len(blocks) > 1 and 2 * len(blocks[-1]) < block:
        rest = blocks.pop()
        blocks[-1] += rest
    return blocks


def runs_of_blocks(count: int, fractions: Sequence[float]) -> tuple[str, ...]:
    """Return the split of each of `count` blocks; a block between two splits is in none.

    Every second round runs backwards, train to test, then test to train, so that rounds meet within a split.
    """
    splits: list[str] = []
    for number, members in enumerate(np.array_split(np.arange(count), max(1, count // ROUND))):
        turn = block_splits(len(members), fractions, gap=1)
        splits += turn[::-1] if number % 2 else turn
    return tuple(splits)


def _identity(members: Sequence[Pair]) -> str:
    return f"slices_{members[0].number:04d}-{members[-1].number:04d}"


def _read_block(members: Sequence[Pair], size: tuple[int, int]) -> Labelled:
    images, labels = np.empty((2, len(members), *size), np.uint8)
    turned = 0
    for index, pair in enumerate(members):
        pictures = _open(pair.image, pair.read_image), _open(pair.mask, pair.read_mask)
        image, mask = _grey(pictures[0], pair.image), _not_black(pictures[1])
        turned += pictures[0].info["orientation"] != pictures[1].info["orientation"]
        if image.shape != mask.shape:
            raise UserError(
                f"{pair.image} is {image.shape[0]} x {image.shape[1]} and {pair.mask} {mask.shape[0]} x "
                f"{mask.shape[1]} pixels: export them again together"
            )
        if image.shape != size:
            raise UserError(
                f"{pair.image} is {image.shape[0]} x {image.shape[1]} pixels, the first image {size[0]} x {size[1]}: "
                "bring all slices to one size"
            )
        images[index], labels[index] = image, mask
    if labels.all():
        raise UserError(f"no pixel of {members[0].mask} and the masks after it is 0, the background; export them again")
    found = tuple(Finding(WARN, "exif_orientation", text) for text in turned_otherwise(turned))
    return Labelled(images, labels, ONE_STRUCTURE, names=[pair.image for pair in members], found=found)


def _open(name: str, read: Read) -> Image.Image:
    try:
        content = read()
    except BROKEN as error:
        raise UserError(f"{name} cannot be read as an image ({reason_of(error)}): replace it") from error
    return open_picture(io.BytesIO(content), name, formats=("PNG", "JPEG"), sides=SIDE)


def _grey(picture: Image.Image, name: str) -> np.ndarray:
    """Return an 8-bit grey picture; raise UserError for one of more bits, coloured or transparent."""
    if picture.mode.startswith("I"):
        raise UserError(f"{name} has more than 8 bits per pixel and no known scale: export 8-bit grey images")
    pixels = np.asarray(picture.convert("RGBA"))
    if (pixels[..., :3] != pixels[..., :1]).any() or (pixels[..., 3] != 255).any():
        raise UserError(f"{name} is coloured or transparent: export 8-bit grey images")
    return pixels[..., 0]


def _not_black(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)[..., None] if picture.mode.startswith("I") else on_black(picture)
    return np.any(pixels, axis=-1)


def find_pairs(files: Mapping[str, Read], where: str) -> list[Pair]:
    """Return the pairs among `files` (path inside the source -> reader), by number.

    What lies outside of `images/` and `masks/` is passed over; a file inside that does not belong is refused.

    Raises:
      UserError: an image without a mask or the reverse, two files of one number, other names, or no pair at all.
    """
    found: dict[str, dict[int, str]] = {"images": {}, "masks": {}}
    for name in files:
        kind, _, rest = name.partition("/")
        if kind not in found or is_system(rest):
            continue
        stem, _, suffix = rest.rpartition(".")
        if not (stem.isascii() and stem.isdecimal() and len(stem) <= 9) or f".{suffix.lower()}" not in SUFFIXES[kind]:
            kinds = " or ".join(SUFFIXES[kind])
            raise UserError(f"{name} in {where}: files of {kind}/ are called by a number and end in {kinds}")
        first = found[kind].setdefault(int(stem), name)
        if first != name:
            raise UserError(f"{first} and {name} in {where} have the same number: remove one")
    images, masks = found["images"], found["masks"]
    for have, lack, mate in ((images, masks, "mask"), (masks, images, "image")):
        alone = [have[number] for number in sorted(set(have) - set(lack))]
        if alone and lack:
            raise UserError(f"no {mate} for {some(alone)} in {where}: add it, or remove these")
    if not images or not masks:
        raise UserError(
            f"{where} holds no pairs images/NUMBER.jpg (or .png) and masks/NUMBER.png at its top: "
            f"{len(images)} images, {len(masks)} masks"
        )
    return [Pair(n, images[n], masks[n], files[images[n]], files[masks[n]]) for n in sorted(images)]


def _files(source: Path) -> tuple[dict[str, Read], list[str]]:
    """Return path inside the source -> reader of its bytes, of a folder or a zip; and warnings of what is not read."""
    if source.is_dir():
        listed = [list_files(source / kind, ("",)) for kind in SUFFIXES]
        paths = [path for one in listed for path in one.files]
        return {
            f"{path.parent.name}/{path.name}": partial(_limited, partial(path.open, "rb")) for path in paths
        }, not_read(*listed)
    if not source.is_file():
        raise UserError(f"no zip or folder at {source}; correct --input")
    try:
        archive = zipfile.ZipFile(source)  # open as long as a member may be read
    except BROKEN as error:
        raise UserError(f"{source} cannot be read as a zip ({reason_of(error)}): get it again") from error
    files = _members(archive, source)
    others = sum(name.split("/")[0] not in SUFFIXES and not any(map(is_system, name.split("/"))) for name in files)
    return files, [f"{counted(others, 'file')} outside of images/ and masks/ not read"] if others else []


def _members(archive: zipfile.ZipFile, source: Path) -> dict[str, Read]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST_FILES:
        raise UserError(f"{source} holds {len(entries)} files; {MOST_FILES} are the most")
    files: dict[str, Read] = {}
    for entry in entries:
        name = entry.filename.replace("\\", "/")  # as some Windows programs write them
        parts = entry.orig_filename.replace("\\", "/").split("/")
        # Nothing is unpacked, so nothing could be overwritten: but a zip with such names was not made for this.
        if ".." in parts or parts[0] == "" or ":" in parts[0] or stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(f"{source} holds {name!r}, a path that leads out of it: make the zip again")
        if entry.flag_bits & 1:
            raise UserError(f"{source} is encrypted ({name}): make it again without a password")
        if name in files:
            raise UserError(f"{source} holds {name} twice: make the zip again")
        files[name] = partial(_limited, partial(archive.open, entry))
    return files


def _limited(opened: Callable[[], Any]) -> bytes:
    # Not by the size that a zip states: a bomb states what it likes.
    with opened() as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES // 2**20} MiB")
    return content
