"""The verb `prepare`: from its flags to a dataset folder and a report of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl.flags import (
    DEFINE_boolean,
    DEFINE_enum,
    DEFINE_float,
    DEFINE_integer,
    DEFINE_list,
    DEFINE_string,
    FlagValues,
)

from heartseg_jax import progress
from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.config.flags import define_config, given
from heartseg_jax.data.dataset.describe import describe
from heartseg_jax.data.dataset.write import Dataset, check_output
from heartseg_jax.data.sources.collections import mmwhs, totalsegmentator
from heartseg_jax.data.sources.dicom import dicom_studies
from heartseg_jax.data.sources.export_png import export_png
from heartseg_jax.data.sources.image_mask_zip import BLOCK, prepare_image_mask
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.data.sources.nifti_pairs import nifti_pairs
from heartseg_jax.data.sources.phantom import make_phantoms
from heartseg_jax.data.sources.png_pairs import prepare_png_pairs
from heartseg_jax.data.sources.studies import choose_all, find_places
from heartseg_jax.data.sources.study_masks import Reading
from heartseg_jax.data.sources.write_cases import Source, write_volumes
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import read_label_map
from heartseg_jax.imaging.masks.palette import read_palette
from heartseg_jax.privacy import keep_table

INPUTS = {
    "dicom": "DIR, a folder with images/ (a study each) and masks/, or one study",
    "png_pairs": "DIR, a folder with images/ and masks/",
    "nifti_pairs": "DIR, a folder with images/ and labels/",
    "mmwhs": "DIR, the folder of NAME_image.nii.gz and NAME_label.nii.gz",
    "totalsegmentator": "DIR, the folder of SUBJECT/ct.nii.gz",
    "image_mask_zip": "FILE.zip, or a folder with images/ and masks/",
}
SOURCES = (*INPUTS, "phantom")
TAKEN: dict[str, tuple[str, ...]] = {
    "dicom": ("masks", "series", "colours", "labels", "repair", "max_off_palette", "patients", "merge", "keep_table"),
    "png_pairs": (
        *("colours", "repair", "max_off_palette", "patients", "merge", "orientation"),
        *("names", "keep_table"),
    ),
    "nifti_pairs": ("labels", "merge", "patients", "names", "keep_table"),
    "mmwhs": ("names", "keep_table"),
    "totalsegmentator": ("join", "names", "keep_table"),
    "image_mask_zip": ("block",),
    "phantom": (),
}
"""The flags that only some sources read: given to another, they are refused, not passed over in silence."""
EXPORT = ("source", "input", "export_png", "series", "patients", "keep_table", "config")
"""The flags that an export of pictures reads."""
ONLY_SOME = frozenset(flag for flags in TAKEN.values() for flag in flags)


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    for name, meaning in {
        "input": "the source: a folder, or a zip of images and masks (image_mask_zip)",
        "output": "the dataset folder to write",
        "masks": "masks of a single study: PNGs, a label NIfTI, a segmentation, or painted pictures of --export_png",
        "series": "which series: its number in the list, its UID, or best (dicom)",
        "export_png": "write the slices as PNGs to this folder instead, for annotation (dicom)",
        "labels": "JSON file {value: structure}: what the values of label maps mean (dicom, nifti_pairs)",
        "colours": "JSON file {colour: structure} that replaces the project's palette (dicom, png_pairs)",
        "orientation": "how slices are stored, such as standard, flip-rows or rot90 (png_pairs)",
        "patients": "CSV table `file,patient`; default: the header, or the part of the file name before _",
        "names": "auto, keep or key: what patients are called (docs/data.md)",
    }.items():
        DEFINE_string(name, None, meaning, flag_values=values)
    DEFINE_enum("source", None, SOURCES, "kind of source (docs/data.md)", required=True, flag_values=values)
    DEFINE_list("join", None, "more folders of the same subjects: the results of another task", flag_values=values)
    DEFINE_list(
        "merge", None, "nine labels: what each counts as where masks lack some (docs/data.md)", flag_values=values
    )
    DEFINE_list(
        "splits", ["0.7", "0.15", "0.15"], "shares of patients for training, validation, test", flag_values=values
    )
    DEFINE_boolean("repair", False, "repair masks damaged by JPEG or antialiasing", flag_values=values)
    DEFINE_float(
        "max_off_palette",
        0.0,
        "share of a mask's pixels that may be off the palette",
        lower_bound=0,
        upper_bound=0.999,
        flag_values=values,
    )
    DEFINE_boolean(
        "keep_table", False, "keep a table of who is who in your own configuration folder", flag_values=values
    )
    DEFINE_integer("block", BLOCK, "slices per block (image_mask_zip)", lower_bound=1, flag_values=values)
    DEFINE_integer("seed", 0, "seed of the split", lower_bound=0, flag_values=values)
    DEFINE_boolean("overwrite", False, "replace an existing dataset", flag_values=values)
    define_config(values, argv, "whose data.phantom to make (phantom), or data.window_hu (--export_png)")


def run(values: FlagValues, argv: list[str]) -> None:
    """Write the dataset, or the pictures."""
    flags = given(values)
    if not {"output", "export_png"} & set(flags):
        raise UserError("prepare needs --output=DATASET, or --export_png=DIR")
    prepare(flags, load.config_of(values)[1] if "config" in flags else None)


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    return "no dataset was written; the same command starts from the beginning"


def prepare(flags: Mapping[str, Any], config: Any | None = None) -> Dataset | None:
    """Make the dataset that `flags` (those that were typed, with their values) ask for, print it, and return it.

    `config` is the one whose `data.phantom` describes the patients of the source `phantom`, or whose
    `data.window_hu` is that of `--export_png`, which writes pictures and returns None.

    Raises:
      UserError: an unknown source, a missing flag, a value that cannot be meant, or a source that is not fit.
    """
    kind = flags["source"]
    if kind in INPUTS and "input" not in flags:
        raise UserError(f"prepare --source={kind} needs --input={INPUTS[kind]}")
    strange = sorted(ONLY_SOME & set(flags) - set(TAKEN[kind]))
    if strange:
        raise UserError(f"--source={kind} has no use for --{strange[0]}: leave it out")
    if "export_png" in flags:
        _export(flags, config)
        return None
    naming = Naming(flags.get("names", "auto"))
    dataset = _make(kind, flags, config, naming)
    _tell(naming, "keep_table" in flags, Path(flags["output"]).name)
    print(describe(dataset))
    return dataset


def _make(kind: str, flags: Mapping[str, Any], config: Any | None, naming: Naming) -> Dataset:
    output = Path(flags["output"])
    seed, shares = flags.get("seed", 0), _shares(flags.get("splits", ["0.7", "0.15", "0.15"]))
    common: dict[str, Any] = {"fractions": shares, "overwrite": "overwrite" in flags}
    if kind == "phantom":
        if config is None:
            raise UserError("prepare --source=phantom needs --config=FILE, whose data.phantom says which patients")
        return make_phantoms(config.data.phantom, output, overwrite="overwrite" in flags)
    source = Path(flags["input"])
    if kind == "image_mask_zip":
        block = flags.get("block", BLOCK)
        return prepare_image_mask(source, output, block=block, progress=progress.bar("slices"), **common)
    common["seed"] = seed
    if kind == "png_pairs":
        return prepare_png_pairs(
            source,
            output,
            naming=naming,
            patients_table=flags.get("patients"),
            colours=flags.get("colours"),
            orientation=flags.get("orientation", "standard"),
            repair="repair" in flags,
            max_off_palette=flags.get("max_off_palette", 0.0),
            merge=_merge(flags),
            progress=progress.bar("slices"),
            **common,
        )
    check_output(output, common["overwrite"])  # before anything long is read
    volumes = _volumes(kind, source, flags, naming)
    return write_volumes(output, volumes, progress=progress.bar("patients"), **common)


def _volumes(kind: str, source: Path, flags: Mapping[str, Any], naming: Naming) -> Source:
    if kind == "dicom":
        return dicom_studies(
            source,
            masks=flags.get("masks"),
            series=flags.get("series", ""),
            how=_reading(flags),
            patients_table=flags.get("patients"),
            merge=_merge(flags),
            naming=naming,
            progress=progress.bar("files"),
        )
    if kind == "nifti_pairs":
        return nifti_pairs(source, flags.get("labels"), _merge(flags), naming, flags.get("patients"))
    if kind == "mmwhs":
        return mmwhs(source, naming)
    return totalsegmentator(source, [Path(word) for word in flags.get("join", []) if word], naming)


def _shares(words: list[str]) -> tuple[float, ...]:
    """Return three shares, or three whole numbers of patients where all are written so."""
    kind = int if all(word.isdecimal() for word in words) else float
    try:
        numbers = tuple(kind(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UserError(f"--splits needs three numbers such as 0.7,0.15,0.15, not '{','.join(words)}'")
    return numbers


def _merge(flags: Mapping[str, Any]) -> tuple[int, ...] | None:
    if "merge" not in flags:
        return None
    try:
        return HEART.check_merge([int(word) for word in flags["merge"]])
    except ValueError as error:
        raise UserError(f"--merge: {error}") from None


def _reading(flags: Mapping[str, Any]) -> Reading:
    return Reading(
        read_palette(flags["colours"]) if "colours" in flags else None,
        read_label_map(flags["labels"]) if "labels" in flags else None,
        "repair" in flags,
        flags.get("max_off_palette", 0.0),
    )


def _export(flags: Mapping[str, Any], config: Any | None) -> None:
    """Write the pictures of DICOM studies, and say what to do with them."""
    if flags["source"] != "dicom":
        raise UserError("--export_png makes pictures of DICOM studies: give --source=dicom")
    strange = sorted(set(flags) - set(EXPORT))
    if strange:
        raise UserError(f"--export_png has no use for --{strange[0]}: leave it out")
    naming, folder = Naming(), Path(flags["export_png"])
    places = find_places(Path(flags["input"]))
    chosen, doubts = choose_all(places, flags.get("series", ""), naming, flags.get("patients"), progress.bar("files"))
    window = tuple((load.base() if config is None else config).data.window_hu)
    told = export_png(chosen, folder, window, progress.bar("studies"))
    naming.notes += doubts
    _tell(naming, "keep_table" in flags, folder.name)
    print(f"pictures   {folder / 'images'}, HU {window[0]:g} to {window[1]:g} as 0 to 255")
    for study in told:
        how = study["orientation"]
        stand = "axial in the project's standing" if how == "standard" else f"for png_pairs: --orientation={how}"
        print(f"{study['first']} and on: {study['slices']} slices, {stand if how else 'not axial'}")


def _tell(naming: Naming, keep: bool, name: str) -> None:
    """Print what was decided about names, and keep the table of who is who where that was asked for."""
    for note in naming.notes:
        print(f"note       {note}")
    if keep and naming.table:
        print(f"who is who {keep_table(name, naming.table)}: keep it to yourself")
