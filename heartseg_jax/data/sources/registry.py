"""The formats that datasets are made from. To add one: a file with its read function, a line here, and its docs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from heartseg_jax.data.sources.case import Options, Source
from heartseg_jax.data.sources.dicom import dicom_studies
from heartseg_jax.data.sources.image_mask_zip import image_mask_zip
from heartseg_jax.data.sources.mmwhs import mmwhs
from heartseg_jax.data.sources.nifti_pairs import nifti_pairs
from heartseg_jax.data.sources.phantom import phantom
from heartseg_jax.data.sources.png_pairs import png_pairs
from heartseg_jax.data.sources.totalsegmentator import totalsegmentator


class Format(NamedTuple):
    """What `--input` names, the flags that this format reads and others may not, and what reads it."""

    input: str
    flags: tuple[str, ...]
    read: Callable[[Options], Source]


MASKS = ("colours", "repair", "max_off_palette", "patients", "merge")
NAMED = ("names", "keep_table")
READ = ("input", "splits", "seed")

FORMATS: dict[str, Format] = {
    "dicom": Format(
        "DIR, a folder with images/ (one study each) and masks/, or one study",
        ("masks", "series", "labels", *MASKS, *READ, "keep_table", "export_png"),
        dicom_studies,
    ),
    "png_pairs": Format("DIR, a folder with images/ and masks/", (*MASKS, "orientation", *NAMED, *READ), png_pairs),
    "nifti_pairs": Format(
        "DIR, a folder with images/ and labels/", ("labels", "merge", "patients", *NAMED, *READ), nifti_pairs
    ),
    "mmwhs": Format("DIR, the folder of NAME_image.nii.gz and NAME_label.nii.gz", (*NAMED, *READ), mmwhs),
    "totalsegmentator": Format("DIR, the folder of SUBJECT/ct.nii.gz", ("join", *NAMED, *READ), totalsegmentator),
    "image_mask_zip": Format(
        "FILE.zip, or a folder with images/ and masks/", ("input", "block", "splits"), image_mask_zip
    ),
    "phantom": Format("", (), phantom),
}
