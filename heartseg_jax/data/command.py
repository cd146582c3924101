"""The verb `prepare`: from the text of its flags to a dataset folder and a report of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from heartseg_jax import settings
from heartseg_jax.anatomy import ALL_KNOWN, check_merge
from heartseg_jax.data.prepare import describe, prepare_phantom
from heartseg_jax.data.sources_mask import BLOCK, prepare_image_mask
from heartseg_jax.data.sources_nifti import prepare_nifti_pairs
from heartseg_jax.data.sources_png import prepare_png_pairs
from heartseg_jax.data.store import Dataset
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom import PhantomSpec

SOURCES = ("png_pairs", "nifti_pairs", "image_mask_zip", "phantom")


def prepare(flags: Mapping[str, str], config: Any | None = None) -> Dataset:
    """Make the dataset that `flags` (the verb's, as typed) ask for, print what is in it, and return it.

    `config` is the one whose `data.phantom` describes the patients of the source `phantom`.

    Raises:
      UserError: an unknown source, a missing flag, a value that cannot be meant, or a source that is not fit.
    """
    kind, output = flags["source"], Path(flags["output"])
    seed = settings.parse_value("--seed", flags.get("seed", "0"), 0)
    if seed < 0:
        raise UserError(f"--seed must be at least 0, not {seed}")
    overwrite = "overwrite" in flags
    shares = settings.parse_value("--splits", flags.get("splits", "0.7,0.15,0.15"), (0.7, 0.15, 0.15))
    merge = settings.parse_value("--merge", flags["merge"], ALL_KNOWN) if "merge" in flags else ALL_KNOWN
    try:
        check_merge(merge)
    except ValueError as error:
        raise UserError(f"--merge: {error}") from None
    if kind == "png_pairs":
        if "input" not in flags:
            raise UserError("prepare --source=png_pairs needs --input=DIR, a folder with images/ and masks/")
        dataset = prepare_png_pairs(
            Path(flags["input"]),
            output,
            patients_table=flags.get("patients"),
            colours=flags.get("colours"),
            orientation=flags.get("orientation", "standard"),
            repair="repair" in flags,
            max_off_palette=settings.parse_value("--max_off_palette", flags.get("max_off_palette", "0"), 0.0),
            fractions=shares,
            seed=seed,
            merge=merge,
            overwrite=overwrite,
            progress=progress_bar("slices"),
        )
    elif kind == "nifti_pairs":
        if "input" not in flags:
            raise UserError("prepare --source=nifti_pairs needs --input=DIR, a folder with images/ and labels/")
        dataset = prepare_nifti_pairs(
            Path(flags["input"]),
            output,
            label_map=flags.get("labels"),
            fractions=shares,
            seed=seed,
            merge=merge,
            overwrite=overwrite,
            progress=progress_bar("patients"),
        )
    elif kind == "image_mask_zip":
        if "input" not in flags:
            raise UserError(
                "prepare --source=image_mask_zip needs --input=FILE.zip, or a folder with images/ and masks/"
            )
        dataset = prepare_image_mask(
            Path(flags["input"]),
            output,
            block=settings.parse_value("--block", flags.get("block", str(BLOCK)), BLOCK),
            fractions=shares,
            overwrite=overwrite,
            progress=progress_bar("slices"),
        )
    elif kind == "phantom":
        if config is None:
            raise UserError("prepare --source=phantom needs --config=FILE, whose data.phantom says which patients")
        dataset = make_phantoms(config.data.phantom, output, overwrite=overwrite)
    else:
        raise UserError(f"there is no source '{kind}'{settings.suggestion(kind, list(SOURCES))}")
    print(describe(dataset))
    return dataset


def make_phantoms(group: Any, output: Path, *, overwrite: bool = False) -> Dataset:
    """Make the phantom patients that `group` (a config's `data.phantom`) describes."""
    return prepare_phantom(
        output,
        counts=(group.train, group.validation, group.test),
        seed=group.seed,
        spec=PhantomSpec(tuple(group.shape), tuple(group.spacing_mm), group.randomised_contrast),
        overwrite=overwrite,
        progress=progress_bar("phantom patients"),
    )


def progress_bar(unit: str) -> Callable[[int, int], None]:
    """Return a `progress(done, total)` that draws a bar where stderr is a terminal."""
    bar: list[tqdm] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(tqdm(total=total, unit=f" {unit}", disable=None))
        bar[0].update(done - bar[0].n)
        if done == total:
            bar[0].close()

    return progress
