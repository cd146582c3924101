"""Whether the arrays of a dataset are those that its index describes: by digests, remembered from start to start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from heartseg_jax.data.dataset.records import Dataset, count_classes, digest
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json
from heartseg_jax.progress import Progress

CHECKED = ".checked.json"
"""In the dataset folder: size, time stamps and digest of every array that was found to be as described."""


def verify(dataset: Dataset) -> None:
    """Read every array of a single dataset whole and compare digests and class counts with the index.

    Raises:
      UserError: naming the first array that differs.
    """
    check_arrays(dataset, again=True)
    for patient in dataset.patients:
        counts = count_classes(dataset.labels(patient), dataset.label_set.num_classes, f"patient {patient.id}")
        if counts != patient.class_counts:
            raise UserError(f"the class counts of patient {patient.id} in {dataset.path} are wrong: prepare it again")


def check_arrays(dataset: Dataset, progress: Progress | None = None, *, again: bool = False) -> None:
    """Compare the digest of every array with the index. What is as it was when it was last compared is not read again.

    An array counts as unchanged where its size and its time stamps (of content and of the file's entry, so that a copy
    is compared once more) are those that were remembered; `again` reads it all the same. A folder that cannot be
    written to is compared at every start. `progress` is called with (patients done, patients in all).

    Raises:
      UserError: naming the patient whose images or labels were changed after the dataset was made.
    """
    done = 0
    for part in dataset.parts:
        for _ in _check_part(part, again):
            done += 1
            if progress:
                progress(done, len(dataset.patients))


def _check_part(dataset: Dataset, again: bool) -> Iterator[None]:
    """Compare the patients of a single dataset, yielding after each; what was found is kept at the end."""
    file = dataset.path / CHECKED
    remembered: dict[str, Any] = {}
    with contextlib.suppress(UserError):
        remembered = read_json(file)
    found: dict[str, list[Any]] = {}
    for patient in dataset.patients:
        for kind in ("images", "labels"):
            path = dataset.array_path(patient, kind)
            stat = path.stat()
            stamp = [patient.sha256[kind], stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            unread = again or remembered.get(path.name) != stamp
            if unread and digest(dataset.open(patient, kind)) != patient.sha256[kind]:
                raise UserError(
                    f"the {kind} of patient {patient.id} in {dataset.path} were changed after the dataset was made; "
                    "prepare it again, or restore the file"
                )
            found[path.name] = stamp
        yield
    if found != remembered:
        with contextlib.suppress(OSError, UserError):
            write_json(file, found)
