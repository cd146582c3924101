"""What was announced and did not come: images that a DICOMDIR lists, parts of one object, files behind links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from heartseg_jax.findings import REFUSE, WARN, Finding, counted
from heartseg_jax.imaging.dicom.directory import Directory
from heartseg_jax.imaging.dicom.files import Listing
from heartseg_jax.imaging.dicom.header import Header

WHOLE = "copy the whole series again"


def of_study(listing: Listing, directories: Sequence[Directory], headers: Sequence[Header]) -> list[Finding]:
    """Return what is absent and belongs to no series that came."""
    found = []
    here = {header.series_uid for header in headers}
    absent = {uid: images for one in directories for uid, images in one.items() if uid not in here}
    if absent:
        images = sum(map(len, absent.values()))
        text = f"the DICOMDIR lists {len(absent)} other series, of {images} images, of which no file is here"
        found.append(Finding(WARN, "missing_series", text, fix=WHOLE + ", if one of them is meant"))
    if listing.linked_folders:
        number = counted(len(listing.linked_folders), "link")
        fix, example = "if slices lie there, give the folder that holds them", listing.linked_folders[0]
        found.append(Finding(WARN, "linked_folders", f"{number} to folders not followed", fix=fix, example=example))
    if listing.dangling:
        text = f"{counted(len(listing.dangling), 'link')} to files that are not here"
        fix = "fetch the files that they mean, or remove the links"
        found.append(Finding(WARN, "dangling_links", text, fix=fix, example=listing.dangling[0]))
    return found


def of_series(
    uid: str, headers: Sequence[Header], listing: Listing, directories: Sequence[Directory], here: frozenset[str]
) -> list[Finding]:
    """Return what is absent of a series of which `headers` came; `here` are the instances of the whole study."""
    found = []
    listed = set[str]().union(*(one.get(uid, ()) for one in directories))
    if listed - here:
        text = f"the DICOMDIR lists {len(listed)} images of the series, of which {len(listed - here)} are not here"
        fix = f"give the folder of the DICOMDIR, {WHOLE}, or remove the DICOMDIR if this part is meant"
        found.append(Finding(REFUSE, "missing_files", text, fix=fix))
    parts: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for concatenation, number, total in filter(None, (header.concatenation for header in headers)):
        parts.setdefault(concatenation, set()).add(number)
        totals[concatenation] = max(totals.get(concatenation, 0), number, total)
    lacking = sum(totals[one] - len(numbers) for one, numbers in parts.items())
    if lacking > 0:
        text = f"{lacking} of the {sum(totals.values())} files that make up one object (a concatenation) are not here"
        found.append(Finding(REFUSE, "missing_parts", text, fix=WHOLE))
    folders = {PurePath(header.source.name).parent for header in headers}
    beside = [name for name in listing.dangling if PurePath(name).parent in folders]
    if beside:
        links = counted(len(beside), "link")
        text = f"{links} to files that are not here lie beside the series' files"
        fix = "fetch the files that they mean, or remove the links"
        found.append(Finding(REFUSE, "missing_files", text, fix=fix, example=beside[0]))
    return found
