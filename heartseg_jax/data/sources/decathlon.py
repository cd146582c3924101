"""The Medical Segmentation Decathlon's form: `dataset.json` lists the images of `imagesTr` with their `labelsTr`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from heartseg_jax.data.sources.case import Options, Source
from heartseg_jax.data.sources.listing import GRIDS, FilePair, list_files, natural_key, not_read, stem
from heartseg_jax.data.sources.task_json import NAME, read_task
from heartseg_jax.data.sources.volumes import read_by_value, volume_cases
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import merge_for, read_label_map


def decathlon(options: Options) -> Source:
    """Return the training cases that `dataset.json` lists; an image's name is its patient.

    What values mean is read from there as well, see `read_task`. Images without labels (`imagesTs`) are not read.

    Raises:
      UserError: for whatever is missing or contradictory, naming files and the fix.
    """
    folder = options.input
    task = read_task(folder, None if options.labels is None else read_label_map(options.labels))
    entries = task.fields.get("training")
    if not isinstance(entries, list) or not entries:
        hint = "; for nnU-Net's folders, use --source=nnunet" if (folder / "imagesTr").is_dir() else ""
        raise UserError(f"{folder / NAME} lists no training cases{hint}")
    pairs: dict[str, FilePair] = {}
    for entry in entries:
        pair = _pair(entry, folder)
        name = stem(pair.image)
        if pairs.setdefault(name, pair) != pair:
            raise UserError(f"{folder / NAME} lists two images called {name}: remove one")
    pairs = {name: pairs[name] for name in sorted(pairs, key=natural_key)}
    listed = list_files(folder / "imagesTr", GRIDS)
    listed.others["that dataset.json does not list"] = len(set(map(stem, listed.files)) - set(pairs))
    merge = options.merge or merge_for(set(task.meanings.values()))
    cases, doubts = volume_cases(pairs, options, partial(read_by_value, meanings=task.meanings, merge=merge))
    warnings = [*task.warnings, *not_read(listed._replace(others=+listed.others)), *doubts]
    meant = {str(value): label for value, label in task.meanings.items()}
    return Source(cases, {"kind": "decathlon", "label_map": meant, "warnings": warnings})


def _pair(entry: Any, folder: Path) -> FilePair:
    """Return the files of an entry. Raises UserError where it is none, or they are not there."""
    if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        raise UserError(f"{folder / NAME} has a training case without an image and a label; export it again")
    files = [folder / entry[key] for key in ("image", "label")]
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder / NAME} lists {file}, which is outside of its folder; correct it")
        if not file.name.lower().endswith(GRIDS):
            raise UserError(f"{folder / NAME} lists {file.name}; {', '.join(GRIDS)} are read: convert it")
        if not file.is_file():
            raise UserError(f"there is no {file}, which {NAME} lists; add it, or remove the case from the list")
    return FilePair(*files)
