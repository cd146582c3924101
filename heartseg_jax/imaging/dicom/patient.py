"""What a DICOM file says in words: the series' description, the heart's phase, and who the patient is.

Who the patient is leaves this module only by `read_person`, to be turned into a key.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.header import read_from

NO_NAMES = frozenset(["ct", "mr", "de", "la", "le", "el", "di", "da", "st", "dr"])
"""Words that occur in patients' names and in descriptions of series alike, and name nobody."""

PARTS_WITH_HEART = ("CHEST", "THORA", "HEART", "CARD", "CORON", "AORTA", "LUNG", "MEDIAST", "BODY", "TRUNK", "TSPINE")
OTHER_PARTS = (
    *("HEAD", "SKULL", "BRAIN", "SINUS", "ORBIT", "JAW", "NECK", "CSPINE", "LSPINE", "SPINE", "ABDOMEN", "LIVER"),
    *("KIDNEY", "PANCREAS", "COLON", "PELVIS", "HIP", "SHOULDER", "ARM", "ELBOW", "WRIST", "HAND", "LEG", "KNEE"),
    *("ANKLE", "FOOT", "EXTREMITY"),
)
"""Words in BodyPartExamined, spaces taken out: the first go before the second."""


class SeriesText(NamedTuple):
    """What a series is called, without the patient's name, and what it states of the heart's phase and the body part.

    `other_part` is the part of the body where it is stated and not the chest's, as one of `OTHER_PARTS`; else ''.
    """

    description: str
    cardiac_phase: str
    other_part: str = ""


def read_series_text(source: Source) -> SeriesText:
    """Return a file's own words on its series. They are read once per series: reading names is slow.

    Raises:
      Unreadable: the file is broken.
    """
    return read_from(
        source, lambda dataset: SeriesText(_description(dataset), _cardiac_phase(dataset), _other_part(dataset))
    )


def _cardiac_phase(dataset: Any) -> str:
    """Return the heart's phase where the file states it: percent of the cycle, or ms after the R wave."""
    percent = dataset.get("NominalPercentageOfCardiacPhase")
    if percent is not None:
        return f"{float(percent):g} %"
    if dataset.get("TriggerTime") is not None:
        return f"{float(dataset.TriggerTime):g} ms"
    found = re.search(r"(?<!\d)(\d{1,3})(?:\.\d+)?\s?%", str(dataset.get("SeriesDescription", "") or ""))
    return f"{found[1]} %" if found and int(found[1]) <= 100 else ""


def _other_part(dataset: Any) -> str:
    """Return the part of the body where it is stated and is not the chest's, as a word of our own."""
    text = re.sub(r"[\W_]", "", str(dataset.get("BodyPartExamined", "") or "").upper())
    if any(part in text for part in PARTS_WITH_HEART):
        return ""
    return next((part.lower() for part in OTHER_PARTS if part in text), "")


def _description(dataset: Any) -> str:
    """Return the series' description, unless it contains a part of what identifies the patient or the hospital."""
    text = str(dataset.get("SeriesDescription", "") or "")
    parts = set(
        _words(" ".join(str(dataset.get(name) or "") for name in ("PatientName", "PatientID", "AccessionNumber")))
    )
    hospital = str(dataset.get("InstitutionName") or "").casefold().strip()
    digits = re.sub(r"\D", "", text)
    year, month, day = (born := str(dataset.get("PatientBirthDate") or ""))[:4], born[4:6], born[6:8]
    dates = {year + month + day, day + month + year, month + day + year} if len(born) == 8 else set()
    if (
        parts & set(_words(text))
        # Within a longer word, too; some scripts part none.
        or any((len(part) >= 3 or not part.isascii()) and part in text.casefold() for part in parts)
        or (len(hospital) >= 3 and hospital in text.casefold())
        or any(date in digits for date in dates)
    ):
        return "(not shown: it names the patient)"
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]", " ", text)[:64]


def _words(text: str) -> list[str]:
    """Return the words of a text, but for those that stand in names and in descriptions alike."""
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word and word not in NO_NAMES]


class Person(NamedTuple):
    """Who a study is of. `secret` identifies the patient and never enters anything that is kept.

    `also` is name and date of birth, '' unless both are stated; `study` is the study's UID; `stated` is False where
    there was neither id nor name, so that the study counts as a patient.
    """

    secret: str
    also: str
    study: str
    stated: bool


def read_person(source: Source) -> Person:
    """Return who a file is of: by PatientID, else by name and date of birth, else by the study.

    The id's issuer is left out: some of a patient's studies state it and others do not, and one patient under two keys
    is worse than two under one, which is noticed.

    Raises:
      Unreadable: the file is broken, or holds none of them.
    """
    return read_from(source, _person)


def _person(dataset: Any) -> Person:
    def word(name: str) -> str:
        return str(dataset.get(name) or "").strip()

    # Some anonymisers take even the study's UID away.
    study = next(filter(None, map(word, ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"))), "")
    name, born = word("PatientName"), word("PatientBirthDate")
    also = f"name\n{name.casefold()}\n{born}" if name and born else ""
    if word("PatientID"):
        return Person(f"id\n{word('PatientID')}", also, study, True)
    if name:
        return Person(f"name\n{name}\n{born}", also, study, True)
    if not study:
        raise Unreadable("it has neither a PatientID nor any UID of its study: whose it is cannot be known")
    return Person(f"study\n{study}", "", study, False)
