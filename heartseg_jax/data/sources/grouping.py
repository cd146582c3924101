"""Which patient a file is of, by its name; and what speaks against that grouping. Pictures are compared, not kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from heartseg_jax.data.audit.near_duplicates import correlation
from heartseg_jax.data.sources.listing import natural_key
from heartseg_jax.errors import UserError

TABLE_FIXES = "give patient identities with --patients=table.csv"
ONE_SLICE_SHARE, FEWEST = 0.8, 4
"""With at least this many patients, this share of them with a single slice is doubtful."""
MOST_COMPARED = 40
SLICE_WORD = re.compile(r"(?:frame|im|image|img|sl|slice|z)\W*\d+", re.IGNORECASE)
"""What a slice is called, and no patient."""
MOST_VOLUMES = 4
"""Of one patient, on average; more that share the first part of their names are a site's or a collection's."""
ONE_PATIENT, CLEARLY = 0.85, 0.1
"""Slices of one patient that follow each other correlate by more than the first, which two patients' hardly reach
(see `near_duplicates.LEAST_CORRELATION`), and by more than the second above those of two patients."""


Key = TypeVar("Key", str, tuple[str, ...])


def by_prefix(names: Sequence[str]) -> dict[str, str]:
    """Return {name: patient}, the part before the first `_`. Raises UserError for a name without."""
    patients = {}
    for name in names:
        patient, separator, _ = name.partition("_")
        if not separator or not patient:
            raise UserError(
                f"{name} does not state its patient (the part before `_`): rename the files, or {TABLE_FIXES}, which "
                "has the columns file,patient"
            )
        patients[name] = patient
    return patients


def grouped(patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Return {patient: names}, both in natural order; composed and decomposed letters count as the same."""
    groups = _inverted(
        {name: unicodedata.normalize("NFC", patients[name]) for name in sorted(patients, key=natural_key)}
    )
    return {patient: groups[patient] for patient in sorted(groups, key=natural_key)}


def alike_names(called: Mapping[str, str]) -> list[str]:
    """Return warnings of patients whose names differ only by blanks, case or leading zeros; `called` is {name: id}."""
    letters = {name: re.sub(r"[\s._-]+", "", unicodedata.normalize("NFKC", name)).casefold() for name in called}
    plain = _inverted({name: re.sub(r"(?<!\d)0+(?=\d)", "", word) for name, word in letters.items()})
    return [
        f"{' and '.join(called[name] for name in same)} have names that differ only by blanks, case or leading zeros: "
        f"if they are one patient, {TABLE_FIXES}"
        for same in plain.values()
        if len(same) > 1
    ]


def doubts(groups: Mapping[str, Sequence[str]], thumbnail: Callable[[str], np.ndarray]) -> list[str]:
    """Return warnings of what speaks against a grouping of slices by a part of their names.

    Either almost all patients have one slice or are called like slices, the slices of the only patient have numbers
    that occur twice, or slices that share another part of their names are more alike than those that share the patient
    and not that part. `groups` is {patient: names of the slices}; `thumbnail` returns a small picture of a slice.
    """
    single = sum(len(names) == 1 for names in groups.values())
    if len(groups) >= FEWEST and single >= ONE_SLICE_SHARE * len(groups):
        return [f"{single} of {len(groups)} patients have a single slice: if several are one patient, {TABLE_FIXES}"]
    patients = {name: patient for patient, names in groups.items() for name in names}
    tokens = {name: _tokens(name) for name in patients}
    numbers = [[part for part in tokens[name] if part.isdecimal()][-1:] for name in patients]
    if sum(SLICE_WORD.fullmatch(patient) is not None for patient in groups) >= ONE_SLICE_SHARE * len(groups):
        return [f"patients are called like slices: if another part of the names is the patient, {TABLE_FIXES}"]
    if len(groups) == 1 and len({*map(tuple, numbers)}) <= len(numbers) / 2:
        return [f"slices of the only patient have the same numbers: if several patients are in it, {TABLE_FIXES}"]
    lengths = {len(parts) for parts in tokens.values()}
    for place in range(max(lengths) if len(lengths) == 1 else 0):
        together = _neighbours({name: (tokens[name][place],) for name in patients})
        others = {name: (patients[name], *tokens[name][:place], *tokens[name][place + 1 :]) for name in patients}
        apart = [(a, b) for a, b in _neighbours(others) if tokens[a][place] != tokens[b][place]]
        if min(len(together), len(apart)) < FEWEST:
            continue
        alike = _correlation(together, thumbnail)
        if alike > ONE_PATIENT and alike > _correlation(apart, thumbnail) + CLEARLY:
            # By its place, not its words: this is kept with the dataset, and must not name anyone.
            return [
                f"slices that share part {place + 1} of their files' names (numbers and words count as parts) are more "
                f"alike than slices of one patient: if that part is the patient, {TABLE_FIXES}"
            ]
    return []


def volume_doubts(called: Mapping[str, str]) -> list[str]:
    """Return warnings where volumes that count as patients share all but the last part of their names.

    `called` is {name: id}: `1001_pre` and `1001_post` are hardly two patients, `case_001` and `case_002` may be.
    """
    groups = _inverted({name: tuple(_tokens(name)[:-1]) for name in called})
    shared = [same for key, same in groups.items() if len(same) > 1 and any(part.isdecimal() for part in key)]
    if len(groups) < 2 or not shared or sum(map(len, shared)) > MOST_VOLUMES * len(shared):
        return []
    return [
        f"{' and '.join(called[name] for name in shared[0])} share all but the last part of their names"
        + (f", and so do {len(shared) - 1} more groups of volumes" if len(shared) > 1 else "")
        + f": if they are of one patient, {TABLE_FIXES}"
    ]


def _tokens(name: str) -> list[str]:
    """Return the numbers and words of a name."""
    return re.findall(r"\d+|[^\W\d_]+", unicodedata.normalize("NFC", name))


def _inverted(keys: Mapping[str, Key]) -> dict[Key, list[str]]:
    """Return {key: names}, in the order of `keys`."""
    groups: dict[Key, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return groups


def _neighbours(keys: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return pairs of names that have one key and follow each other in natural order, evenly chosen."""
    ordered = {name: keys[name] for name in sorted(keys, key=natural_key)}
    pairs = [pair for names in _inverted(ordered).values() for pair in pairwise(names)]
    return pairs[:: max(1, len(pairs) // MOST_COMPARED)]


def _correlation(pairs: Sequence[tuple[str, str]], thumbnail: Callable[[str], np.ndarray]) -> float:
    """Return the median correlation of the thumbnails of pairs."""
    return float(np.median([correlation(thumbnail(a), thumbnail(b)) for a, b in pairs]))
