"""Pictures (PNG, JPEG, TIFF, BMP) as they are meant to be shown. The only module that opens them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted

ORIENTATION = ExifTags.Base.Orientation
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
PATH = re.compile(r"""\s*(?P<quote>['"])[^'"]*[/\\\\][^'"]*(?P=quote)""")
"""A quoted path in a library's message: the messages here name the file already, and cut off it could not be found."""
SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""


def open_picture(
    source: Path | BinaryIO,
    name: str = "",
    *,
    formats: tuple[str, ...] | None = None,
    sides: tuple[int, int] = (1, 2**16),
) -> Image.Image:
    """Open and decode a picture, turned and mirrored as its EXIF orientation says, which `info["orientation"]` keeps.

    Messages call it `name`, by default its path. `formats` are Pillow's names of those that are read, by default all;
    `sides` the least and largest number of pixels per side: a picture beyond is not decoded.

    Raises:
      UserError: it cannot be read, or holds several pictures.
    """
    name = name or str(source)
    try:
        # A file, not its path: Pillow 13 maps uncompressed TIFFs by their path, and garbles those turned by 90 degrees.
        with (
            open(source, "rb") if isinstance(source, Path) else source as file,
            Image.open(file, formats=formats) as image,
        ):
            # By its header only: what claims to be huge is never decoded.
            if not (sides[0] <= min(image.size) and max(image.size) <= sides[1]):
                raise UserError(
                    f"{name} is {image.height} x {image.width} pixels; slices have {sides[0]} to {sides[1]} per side"
                )
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{name} holds {frames} pictures: export one file per slice")
            orientation = stored_orientation(image)  # Pillow turns a TIFF while it loads it
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            image.info["orientation"] = orientation
            return image
    except UserError:
        raise
    except Exception as error:  # damaged files raise whatever Pillow's readers stumble over
        raise UserError(f"{name} cannot be read as an image ({reason_of(error)}): replace or remove it") from error


def reason_of(error: BaseException) -> str:
    """Return what an error says, on one line of at most 120 characters, without the path that libraries repeat."""
    text = PATH.sub("", str(error))
    return " ".join(text.split())[:120] or type(error).__name__


def stored_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture that is not yet turned; 1 where it has none that is known."""
    found: int = image.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def turned_otherwise(count: int) -> list[str]:
    """Return the warning that so many masks have another EXIF orientation than their images, if there are any."""
    if not count:
        return []
    who = f"{counted(count, 'mask')} with another EXIF orientation than the image"
    return [f"{who}: each picture was turned as its own says; check that the masks lie on the images"]


def picture_header(path: Path) -> tuple[tuple[int, int], int]:
    """Return `(height, width)` of a picture as it is shown, and its EXIF orientation; UserError if unreadable."""
    try:
        with Image.open(path) as image:
            orientation = stored_orientation(image)
            swapped = image.format != "TIFF" and orientation in SWAPPED
            return image.size if swapped else image.size[::-1], orientation
    except Exception as error:  # as above
        raise UserError(f"{path} cannot be read as an image ({reason_of(error)}): replace or remove it") from error


def png_bits(path: Path) -> int:
    """Return the bits per channel of a PNG, 8 for other files: Pillow cuts 16-bit colour to 8 without a word."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[24] if len(head) == 25 and head[:8] == b"\x89PNG\r\n\x1a\n" else 8


def on_black(image: Image.Image) -> np.ndarray:
    """Return uint8 `[H, W, 3]`: what is transparent shows black."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.asarray(image.convert("RGB"))


def read_grey(path: Path) -> tuple[np.ndarray, bool]:
    """Return `(image [H, W] uint8, whether it was coloured)`; the brightness of a coloured one.

    Raises:
      UserError: for an unreadable file, more than 8 bits per pixel (an unknown scale is not guessed), or pixels that
        are half transparent, whose brightness depends on what lies behind.
    """
    image = open_picture(path)
    if png_bits(path) == 16 or image.mode.startswith("I") or image.mode == "F":
        numbers = np.asarray(image)
        fits = numbers.ndim == 2 and image.mode != "F" and numbers.min() >= 0 and numbers.max() <= 255
        if not fits:
            raise UserError(
                f"{path} has more than 8 bits per pixel and no known scale: bring CT in HU as DICOM or NIfTI, or"
                " export 8-bit images, all with the same window"
            )
        return numbers.astype(np.uint8), False
    if image.mode == "L":
        return np.asarray(image), False
    if image.has_transparency_data and not np.isin(np.asarray(image.convert("RGBA"))[..., 3], (0, 255)).all():
        raise UserError(f"{path} is half transparent, so that its brightness is not known: export opaque images")
    rgb = on_black(image)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return rgb[..., 0], False
    # ITU-R BT.601, as Pillow and most viewers have it.
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8), True


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by value: slice_9 before slice_10."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def save_png(path: Path, pixels: np.ndarray, said: Mapping[str, str] | None = None) -> None:
    """Write uint8 `[H, W]` or `[H, W, 3]`; `said` are texts beside the picture, by keyword such as 'Comment'."""
    texts = PngImagePlugin.PngInfo()
    for keyword, text in (said or {}).items():
        texts.add_itxt(keyword, text)
    Image.fromarray(pixels).save(path, format="PNG", pnginfo=texts)
