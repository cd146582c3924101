"""The verb `check`: whether a study or a dataset is fit for use, or what a config amounts to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from absl.flags import FlagValues

from heartseg_jax.config import load
from heartseg_jax.config.flags import define_config, given, switches, texts
from heartseg_jax.errors import UserError


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    define_config(values, argv, "what to summarise")
    texts(
        values,
        input="a dataset folder, or a folder, zip or file of DICOM",
        output="of a dataset: its picture (default: DATASET/audit.png)",
        series="of a study: which series, by its number in the list or UID",
    )
    switches(values, json="print JSON")


PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI = (".nii", ".nii.gz", ".nii.bz2")
BESIDE = (".csv", ".json", ".txt", ".md", ".xlsx", ".db", ".ini", ".ds_store")
"""Endings of files that say nothing about the kind of source."""
MOST_FILES = 20_000


def run(values: FlagValues, argv: list[str]) -> None:
    """Check a dataset, a study or a config, whichever is named.

    Raises:
      UserError: none or two of them are named, a flag belongs to another kind of input, or the input is not fit.
    """
    flags = given(values)
    if ("config" in flags) == ("input" in flags):
        raise UserError("check needs either --config=FILE or --input=STUDY, a study or a dataset")
    is_dataset = "input" in flags and (Path(values.input) / "dataset.json").is_file()
    if is_dataset and (Path(values.input) / "imagesTr").is_dir():
        is_dataset = False  # nnU-Net and the Decathlon call theirs by the same name
    if "output" in flags and not is_dataset:
        raise UserError("check --output is only used with a dataset; remove it")
    if "series" in flags and ("config" in flags or is_dataset):
        raise UserError("check --series is only used with a study; remove it")
    if is_dataset:
        from heartseg_jax.verbs.check_dataset import check_dataset

        check_dataset(Path(values.input), Path(values.output) if values.output else None, as_json=values.json)
    elif "input" in flags:
        if source := other_source(Path(values.input)):
            raise UserError(
                f"{values.input} holds no DICOM: check the dataset that `python main.py prepare --source={source} "
                f"--input={values.input} --output=DATASET` makes of it"
            )
        if (studies := Path(values.input) / "images").is_dir() and (Path(values.input) / "masks").is_dir():
            raise UserError(
                f"{values.input} holds studies and their masks: check one, such as {next(studies.iterdir(), studies)}, "
                f"or the dataset that `python main.py prepare --source=dicom --input={values.input} --output=DATASET` "
                "makes of all"
            )
        from heartseg_jax.verbs.check_study import check_study

        check_study(Path(values.input), values.series or "", as_json=values.json)
    else:
        name, config = load.config_of(values)
        from heartseg_jax.verbs.check_config import check_config

        check_config(name, config, as_json=values.json)


def other_source(path: Path) -> str | None:
    """Return the --source of volumes or pictures that `prepare` reads, or None where there may be DICOM."""
    if (path / "dataset.json").is_file() and (path / "imagesTr").is_dir():
        numbered = any(re.search(r"_\d{4}\.", file.name) for file in (path / "imagesTr").iterdir())
        return "nnunet" if numbered else "decathlon"
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter([path])
    names = [file.name.lower() for file in islice(files, MOST_FILES)]
    names = [name for name in names if not name.endswith(BESIDE) and not name.startswith(".")]
    if names and all(name.endswith(PICTURES) for name in names):
        return "png_pairs"
    if not names or not all(name.endswith((*NIFTI, *PICTURES, ".nrrd")) for name in names):
        return None
    if any(name.startswith("ct.nii") for name in names):
        from heartseg_jax.data.sources.totalsegmentator import FILES

        named = any(name.partition(".")[0] in FILES for name in names)
        return "totalsegmentator" if named else "totalsegmentator_ml"
    return "mmwhs" if any("_image.nii" in name for name in names) else "nifti_pairs"
