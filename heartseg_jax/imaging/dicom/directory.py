"""What a DICOMDIR lists. Whether it came is for `announced` to say."""

from __future__ import annotations

from typing import Any

import pydicom

from heartseg_jax.imaging.dicom.elements import text

Directory = dict[str, set[str]]
"""The UIDs of the images of each series."""


def directory_of(dataset: Any) -> Directory:
    """Return what a DICOMDIR lists, going from each series' record from image to image by their offsets in the file.

    Where the offsets lead to no image (programs change a DICOMDIR and leave them), the records' order counts.
    """
    records = {record.seq_item_tell: record for record in dataset.DirectoryRecordSequence}
    by_offset: Directory = {}
    by_order: Directory = {}

    def add(listed: Directory, series: Any, record: Any) -> None:
        uid = text(record, "ReferencedSOPInstanceUIDInFile")
        if text(record, "DirectoryRecordType") == "IMAGE" and record.get("RecordInUseFlag", 1) and uid:
            listed.setdefault(text(series, "SeriesInstanceUID"), set()).add(uid)

    last = pydicom.Dataset()
    for series in records.values():
        if text(series, "DirectoryRecordType") != "SERIES":
            add(by_order, last, series)
            continue
        last = series
        waiting = set(records)  # each record once: a damaged file's offsets may go in circles
        offset = series.get("OffsetOfReferencedLowerLevelDirectoryEntity")
        while offset in waiting:
            waiting.remove(offset)
            add(by_offset, series, records[offset])
            offset = records[offset].get("OffsetOfTheNextDirectoryRecord")
    return by_offset or by_order
