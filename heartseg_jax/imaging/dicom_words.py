"""What a DICOM file says in words: the series' description, the heart's phase, and who the patient is.

Who the patient is leaves this module by `read_person` alone, to be turned into a key.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from heartseg_jax.imaging.dicom import guarded, parse
from heartseg_jax.imaging.dicom_files import Source
from heartseg_jax.imaging.dicom_values import Unreadable


class Words(NamedTuple):
    """What a series is called, without the patient's name, and the heart's phase where it is told."""

    description: str
    cardiac_phase: str


def read_words(source: Source) -> Words:
    """Return a file's own words on its series. They are asked for once a series: reading names is slow.

    Raises:
      Unreadable: the file is broken.
    """
    with source.open() as file:
        dataset = parse(file, stop_before_pixels=True)
    return guarded(lambda: Words(_description(dataset), _cardiac_phase(dataset)))


def _cardiac_phase(dataset: Any) -> str:
    """Return the heart's phase where the file tells it: percent of the cycle, or ms after the R wave."""
    percent = dataset.get("NominalPercentageOfCardiacPhase")
    if percent is not None:
        return f"{float(percent):g} %"
    if dataset.get("TriggerTime") is not None:
        return f"{float(dataset.TriggerTime):g} ms"
    found = re.search(r"(?<!\d)(\d{1,3})(?:\.\d+)?\s?%", str(dataset.get("SeriesDescription", "") or ""))
    return f"{found[1]} %" if found and int(found[1]) <= 100 else ""


def _description(dataset: Any) -> str:
    """Return the series' description, unless it has a part of the patient's name or id in it."""
    text = str(dataset.get("SeriesDescription", "") or "")
    secret = f"{dataset.get('PatientName', '')} {dataset.get('PatientID', '')} {dataset.get('AccessionNumber', '')}"
    parts = {part.casefold() for part in re.split(r"[\W_]+", secret) if len(part) >= 3}
    if any(part in text.casefold() for part in parts):
        return "(not shown: it names the patient)"
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]", " ", text)[:64]


class Person(NamedTuple):
    """Who a study is of. `secret` tells the patient from all others and never enters anything that is kept.

    `study` is the study's UID; `told` is False where neither id nor name was there and the study stands for a patient.
    """

    secret: str
    study: str
    told: bool


def read_person(source: Source) -> Person:
    """Return who a file is of: by PatientID with its issuer, else by name and birth date, else by the study.

    Raises:
      Unreadable: the file is broken, or holds none of them.
    """
    with source.open() as file:
        dataset = parse(file, stop_before_pixels=True)
    return guarded(lambda: _person(dataset))


def _person(dataset: Any) -> Person:
    def word(name: str) -> str:
        return str(dataset.get(name) or "").strip()

    study = word("StudyInstanceUID")
    if word("PatientID"):
        return Person("\n".join(["id", word("PatientID"), word("IssuerOfPatientID")]), study, True)
    if word("PatientName"):
        return Person("\n".join(["name", word("PatientName"), word("PatientBirthDate")]), study, True)
    if not study:
        raise Unreadable("it has neither a PatientID nor a StudyInstanceUID: nothing tells whose it is")
    return Person(f"study\n{study}", study, False)
