"""nnU-Net's raw folder: `imagesTr/NAME_0000.nii.gz`, `labelsTr/NAME.nii.gz` and `dataset.json`, version 1 or 2."""

from __future__ import annotations

import re
from functools import partial

from heartseg_jax.data.sources.case import Options, Source
from heartseg_jax.data.sources.listing import GRIDS, FilePair, list_files, natural_key, not_read
from heartseg_jax.data.sources.task_json import read_task
from heartseg_jax.data.sources.volumes import read_by_value, volume_cases
from heartseg_jax.errors import UserError
from heartseg_jax.findings import some
from heartseg_jax.imaging.masks.label_maps import merge_for, read_label_map

CHANNEL = re.compile(r"(.+)_(\d{4})")
ENDING = ".nii.gz"
"""Of files where `dataset.json` states none, as in version 1."""


def nnunet(options: Options) -> Source:
    """Return the training cases of a folder such as `nnUNet_raw/Dataset001_Heart`; NAME is the patient.

    What values mean is read from `dataset.json`, see `read_task`. Cases without labels (`imagesTs`) are not read.

    Raises:
      UserError: for whatever is missing or contradictory, naming files and the fix.
    """
    folder = options.input
    task = read_task(folder, None if options.labels is None else read_label_map(options.labels))
    ending = str(task.fields.get("file_ending", ENDING)).lower()
    if ending not in GRIDS:
        raise UserError(f"{folder} has files of the kind {ending[:20]}; {', '.join(GRIDS)} are read: convert them")
    listed = {kind: list_files(folder / kind, (ending,)) for kind in ("imagesTr", "labelsTr")}
    labels = {path.name[: -len(ending)]: path for path in listed["labelsTr"].files}
    pairs: dict[str, FilePair] = {}
    for path in sorted(listed["imagesTr"].files, key=lambda path: natural_key(path.name)):
        match = CHANNEL.fullmatch(path.name[: -len(ending)])
        if match is None or match[2] != "0000":
            what = "is of another channel" if match else "has no channel in its name, such as NAME_0000"
            raise UserError(f"{path} {what}; one channel per case is read, CT")
        if match[1] not in labels:
            raise UserError(f"{path} has no {match[1]}{ending} in labelsTr: add it, or remove the image")
        pairs[match[1]] = FilePair(path, labels[match[1]])
    if lacking := sorted(set(labels) - set(pairs)):
        raise UserError(f"labelsTr of {folder} has no image in imagesTr for {some(lacking)}: add it, or remove these")
    if not pairs:
        raise UserError(f"{folder} holds no imagesTr/NAME_0000{ending}")
    merge = options.merge or merge_for(set(task.meanings.values()))
    cases, doubts = volume_cases(pairs, options, partial(read_by_value, meanings=task.meanings, merge=merge))
    warnings = [*task.warnings, *not_read(*listed.values()), *doubts]
    meant = {str(value): label for value, label in task.meanings.items()}
    return Source(cases, {"kind": "nnunet", "label_map": meant, "warnings": warnings})
