"""What DICOM objects say alike: which structures they hold, their codes and colours, and who made them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from heartseg_jax import __version__
from heartseg_jax.anatomy import Structure
from heartseg_jax.export.statement import PROGRAM, RESEARCH_USE
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import MEASURED, Measurements

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
REGION = Code("309825002", "SCT", "Spatial and Relational Concept")
QUOTING = ("highdicom", "pydicom", "dicomweb_client", "retrying", "urllib3")
"""Libraries whose messages may quote what they read or send."""
PRIVATE_SCHEME = "99HEARTSEG"
"""Coding scheme of structures that have no SNOMED CT code: their names in their label set."""


MORE = "and {} more lines, which are in measurements.json"


class Segment(NamedTuple):
    """A structure that is written: `number` counts from 1, `note` says what holds for it beside its name, or ''."""

    number: int
    structure: Structure
    note: str


def written_segments(prediction: Prediction, measurements: Measurements) -> list[Segment]:
    """Return the structures that have a voxel and are not withheld, in the label set's order."""
    found: list[Segment] = []
    for structure in prediction.contract.label_set.foreground:
        row = measurements.of(structure.name)
        if not row.withheld and (prediction.labels == structure.label).any():
            note = "" if row.status == MEASURED else f"{row.status}: {row.reason}".rstrip(": ")
            found.append(Segment(len(found) + 1, structure, note))
    return found


def segment_numbers(prediction: Prediction, segments: Sequence[Segment]) -> np.ndarray:
    """Return the labels `[Z, Y, X]` uint8 as numbers of segments; what is not written is 0."""
    table = np.zeros(256, np.uint8)
    for segment in segments:
        table[segment.structure.label] = segment.number
    return table.take(prediction.labels)


def category_of(structure: Structure) -> Code:
    """Return the kind of thing that a structure is."""
    return ANATOMY if structure.snomed else REGION


def code_of(structure: Structure) -> Code:
    """Return a structure's SNOMED CT code, or its name as a private code."""
    meaning = title(structure)
    return (
        Code(structure.snomed, "SCT", meaning) if structure.snomed else Code(structure.short, PRIVATE_SCHEME, meaning)
    )


def title(structure: Structure) -> str:
    """Return a structure's name as people write it."""
    return structure.name.replace("_", " ").capitalize()


class Maker(NamedTuple):
    """The equipment that made an object, as DICOM names it; each fits its attribute's 64 characters."""

    manufacturer: str
    model: str
    version: str
    serial: str


def maker_of(prediction: Prediction) -> Maker:
    """Return the program as the equipment; its serial number is the digest of the model, or of all of them."""
    digests = [model.package_sha256 or model.checkpoint_sha256 for model in prediction.models]
    one = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    serial = one[:16] if digests and all(digests) else "not recorded"
    return Maker(PROGRAM, f"{PROGRAM} {prediction.contract.label_set.name} U-Net", __version__, serial)


def series_description(kind: str) -> str:
    """Return the description of an object's series: what it holds, and what it may not be used for."""
    return f"{PROGRAM} {kind}: {RESEARCH_USE}"


def fitted(lines: Sequence[str], limits: Sequence[int]) -> list[str]:
    """Return lines as one text per limit, in characters, no line divided; the last counts those that find no place."""
    texts: list[str] = []
    waiting = list(lines)
    for place, limit in enumerate(limits):
        count = _how_many(waiting, limit)
        own, waiting = waiting[:count], waiting[count:]
        if waiting and place == len(limits) - 1:
            while own and len("\n".join([*own, MORE.format(len(waiting))])) > limit:
                waiting.append(own.pop())
            own.append(MORE.format(len(waiting)))
        texts.append("\n".join(own))
    return texts


def _how_many(lines: Sequence[str], limit: int) -> int:
    """Return how many of the first lines have room in `limit` characters, line breaks counted."""
    ends = np.cumsum([len(line) + 1 for line in lines]) - 1
    return int((ends <= limit).sum())


def new_uid() -> str:
    """Return a random UID of the root 2.25, which needs no registration."""
    return generate_uid(prefix=None)


def decimal(value: float) -> str:
    """Return a number as a decimal string: at most 16 characters, the nearest number that has so few."""
    return format_number_as_ds(float(value))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the libraries: what they dislike of a header they quote, and it may be the patient's name."""
    loggers = [logging.getLogger(name) for name in QUOTING]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
