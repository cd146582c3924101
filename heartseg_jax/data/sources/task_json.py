"""The `dataset.json` of nnU-Net and of the Medical Segmentation Decathlon: which value is which structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.sources.totalsegmentator import FILES
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.findings import counted
from heartseg_jax.imaging.masks.label_maps import meaning_of

NAME = "dataset.json"
IGNORE = "ignore"
"""What nnU-Net calls the label of what is not annotated."""


class Task(NamedTuple):
    """What a `dataset.json` says: its own fields, the label of each value, and what was seen."""

    fields: Mapping[str, Any]
    meanings: dict[int, int]
    warnings: list[str]


def read_task(folder: Path, own: Mapping[str, int] | None) -> Task:
    """Return the description of a folder's data, of either version of nnU-Net or the Decathlon.

    Labels are `{"1": "left_atrium"}` or `{"left_atrium": 1}`. A value's structure is given by `own` (value or name ->
    label), else by its name, as this project or TotalSegmentator writes it; others are background.

    Raises:
      UserError: it is missing or damaged, says that there are several channels, or names no structure of the heart.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"there is no {path}, which states what the labels mean; give the folder that holds it")
    fields = read_json(path, fix="export it again")
    warnings = []
    channels = fields.get("channel_names", fields.get("modality", {"0": "CT"}))
    if not isinstance(channels, dict) or len(channels) != 1:
        raise UserError(f"{path} states other than one channel per image; only CT alone is read")
    channel = str(next(iter(channels.values())))
    if "ct" not in channel.lower():
        warnings.append(f"the channel is called '{channel[:20]}', not CT: it is read as HU")
    names = _names(fields.get("labels"), path)
    meanings: dict[int, int] = {0: 0}
    strange = 0
    for value, name in names.items():
        meaning = None if own is None else own.get(str(value), own.get(name))
        if meaning is None:
            word = name.strip().lower().replace(" ", "_")
            meaning = IGNORED if word == IGNORE else meaning_of(name)
            meaning = FILES.get(word) if meaning is None else meaning
        strange += meaning is None
        meanings[value] = meaning or 0
    if not set(meanings.values()) - {0, IGNORED}:
        raise UserError(
            f"none of the {len(names)} labels of {path} is a structure of the heart that is known here; say what each "
            'is by --labels=map.json, such as {"1": "left_ventricle"}'
        )
    if strange:
        warnings.append(f"{counted(strange, 'label')} of other anatomy: background")
    return Task(fields, meanings, warnings)


def _names(labels: Any, path: Path) -> dict[int, str]:
    """Return value -> name of the labels of either form. Raises UserError where there is none, or a value has two."""
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path} states no labels; export it again")
    by_value = all(str(key).strip().isdecimal() for key in labels)
    found: dict[int, str] = {}
    together: set[int] = set()
    for key, content in labels.items():
        values, name = ([key], content) if by_value else (content if isinstance(content, list) else [content], key)
        try:
            numbers = [int(value) for value in values]
        except (TypeError, ValueError):
            raise UserError(f"{path} gives the label '{str(name)[:40]}' a value that is no whole number") from None
        if len(numbers) > 1:  # a region of several labels, for training; its parts may have names of their own
            together |= set(numbers)
            continue
        for number in numbers:
            if found.setdefault(number, str(name)) != str(name):
                raise UserError(f"{path} gives the value {number} two names")
    return {**{number: "" for number in together}, **found}
