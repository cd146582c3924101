"""The formats that datasets are made from. To add one: a file with its read function, a line here, and its docs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from heartseg_jax.data.sources.case import Options, Source


class Format(NamedTuple):
    """What `--input` names, the flags that this format reads and others may not, and the function that reads it."""

    input: str
    flags: tuple[str, ...]
    reader: str

    def read(self, options: Options) -> Source:
        """Read the cases. What reads files is imported only now: a misspelt flag does not wait for it."""
        module, name = self.reader.split(".")
        source: Source = getattr(importlib.import_module(f"heartseg_jax.data.sources.{module}"), name)(options)
        return source


MASKS = ("colours", "repair", "max_off_palette", "patients", "merge")
NAMED = ("names", "keep_table")
READ = ("input", "splits", "seed")

FORMATS: dict[str, Format] = {
    "dicom": Format(
        "DIR, a folder with images/ (one study each) and masks/, or one study",
        ("masks", "series", "labels", *MASKS, *READ, "keep_table", "export_png"),
        "dicom.dicom_studies",
    ),
    "png_pairs": Format(
        "DIR, a folder with images/ and masks/", (*MASKS, "orientation", *NAMED, *READ), "png_pairs.png_pairs"
    ),
    "nifti_pairs": Format(
        "DIR, a folder with images/ and labels/",
        ("labels", "merge", "patients", *NAMED, *READ),
        "nifti_pairs.nifti_pairs",
    ),
    "mmwhs": Format("DIR, the folder of NAME_image.nii.gz and NAME_label.nii.gz", (*NAMED, *READ), "mmwhs.mmwhs"),
    "totalsegmentator": Format(
        "DIR, the folder of SUBJECT/ct.nii.gz", ("join", *NAMED, *READ), "totalsegmentator.totalsegmentator"
    ),
    "totalsegmentator_ml": Format(
        "DIR, the folder of SUBJECT/ct.nii.gz",
        ("join", "labels", *NAMED, *READ),
        "totalsegmentator_ml.totalsegmentator_ml",
    ),
    "nnunet": Format(
        "DIR, a folder with imagesTr/, labelsTr/ and dataset.json",
        ("labels", "merge", "patients", *NAMED, *READ),
        "nnunet.nnunet",
    ),
    "decathlon": Format(
        "DIR, a folder with dataset.json, which lists its cases",
        ("labels", "merge", "patients", *NAMED, *READ),
        "decathlon.decathlon",
    ),
    "image_mask_zip": Format(
        "FILE.zip, or a folder with images/ and masks/", ("input", "block", "splits"), "image_mask_zip.image_mask_zip"
    ),
    "phantom": Format("", (), "phantom.phantom"),
    "anatomy": Format(
        "DIR, the folder of trunk/, toronto/ and kcl/", ("count", "slices", "size", *READ), "anatomy.anatomy"
    ),
}
