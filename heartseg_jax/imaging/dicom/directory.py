"""What a DICOMDIR lists. Whether it came is for `announced` to say."""

from __future__ import annotations

from typing import Any, NamedTuple

from heartseg_jax.imaging.dicom.elements import text


class Directory(NamedTuple):
    """What a DICOMDIR lists: the UIDs of the images of each series."""

    name: str
    listed: dict[str, frozenset[str]]


def directory_of(name: str, dataset: Any) -> Directory:
    """Return what a DICOMDIR lists, going from each series' record from image to image by their offsets in the file."""
    records = {record.seq_item_tell: record for record in dataset.DirectoryRecordSequence}
    listed: dict[str, set[str]] = {}
    for series in records.values():
        if text(series, "DirectoryRecordType") != "SERIES":
            continue
        waiting = dict.fromkeys(records)  # each record once: a damaged file's offsets may go in circles
        offset = series.get("OffsetOfReferencedLowerLevelDirectoryEntity")
        while offset in waiting:
            record = records[offset]
            del waiting[offset]
            uid = text(record, "ReferencedSOPInstanceUIDInFile")
            if text(record, "DirectoryRecordType") == "IMAGE" and record.get("RecordInUseFlag", 1) and uid:
                listed.setdefault(text(series, "SeriesInstanceUID"), set()).add(uid)
            offset = record.get("OffsetOfTheNextDirectoryRecord")
    return Directory(name, {uid: frozenset(instances) for uid, instances in listed.items()})
