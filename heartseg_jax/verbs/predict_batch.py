"""Studies one after another: finished ones are skipped, and one that is refused or fails does not stop the rest."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heartseg_jax.errors import UserError
from heartseg_jax.files import is_full_disk, read_json, write_json
from heartseg_jax.findings import counted, some
from heartseg_jax.measure.report import table
from heartseg_jax.measure.results import STATUSES, Measurements
from heartseg_jax.progress import bar, say
from heartseg_jax.verbs.predict_places import Place, fingerprint, shard_of, without_names
from heartseg_jax.verbs.predict_report import DONE, FAILED, REFUSED, WAITING, BatchReport, Outcome
from heartseg_jax.verbs.predict_study import STORED, Job, added_or_changed, differences, finished, predict_study


def predict_one(job: Job, place: Place, output: Path, *, overwrite: bool, store: str = "") -> None:
    """Predict a single study into `output` and print its measurements.

    Raises:
      UserError: as `predict_study`; or `output` holds outputs that were made otherwise, or anything else.
    """
    measurements = _made(job, place, output, overwrite=overwrite, store=store)
    if measurements is None:
        print(f"{output} is complete: the same model, options and files; nothing to do")
    else:
        print(table(measurements))
        print(f"written to {output}")


def predict_batch(
    job: Job, places: Sequence[Place], output: Path, *, shard: tuple[int, int], overwrite: bool, store: str = ""
) -> None:
    """Predict every N-th of many studies, from the K-th on, each into a folder of its own in `output`.

    Args:
      job: what is done with each.
      places: all studies, those of other shards too.
      output: the folder of the batch, in which report and table are kept.
      shard: (K, N); (1, 1) for all studies.
      overwrite: replace outputs that were made by another model, with other options or of other files.
      store: URL of the archive that DICOM objects are sent to, or empty.

    Raises:
      UserError: at the end, where a study was refused or failed; or the disk is full.
    """
    output.mkdir(parents=True, exist_ok=True)
    report = BatchReport(output, [place.name for place in places], job.identity())
    mine, outcomes = shard_of(places, shard), []
    studies = bar("studies")
    for number, place in enumerate(mine, 1):
        say(f"{number} of {len(mine)}: {place.name}")
        outcome = _attempt(job, place, output / place.name, overwrite=overwrite, store=store)
        if outcome.status != DONE:
            say(f"{outcome.status} {place.name}: {outcome.reason}")
        outcomes.append(outcome)
        report.note(outcome)
        studies(number, len(mine))
    everything = report.write()
    if shard[1] > 1:
        report.write_shard(shard, outcomes)
    counts = Counter(one.status for one in everything)
    said = ", ".join(f"{counts[status]} {status}" for status in (DONE, REFUSED, FAILED, WAITING) if counts[status])
    print(f"{len(everything)} studies in {output}: {said} (report.json, measurements.csv)")
    if lost := [one for one in outcomes if one.status != DONE]:
        for one in lost:
            say(f"{one.status} {one.study}: {one.reason}")
        raise UserError(
            f"{len(lost)} of {len(mine)} studies were refused or failed ({some([one.study for one in lost])}); "
            f"{output / 'report.json'} has the reasons, and the same command tries them again"
        )


def _attempt(job: Job, place: Place, output: Path, *, overwrite: bool, store: str) -> Outcome:
    """Return what became of a study; only a full disk is raised, which stops the others too."""
    try:
        measurements = _made(job, place, output, overwrite=overwrite, store=store)
    except Exception as error:
        if is_full_disk(error):
            raise
        if isinstance(error, UserError):
            text = " ".join(str(error).split()).replace(str(output), "its folder")
            return Outcome(place.name, REFUSED, without_names(text, place))
        say("".join(traceback.format_exception(error)).rstrip())
        return Outcome(place.name, FAILED, f"a bug or a lack of memory ({type(error).__name__}): see the log")
    if measurements is None:
        print(f"{place.name}: already done")
    else:
        statuses = Counter(row.status for row in measurements.structures)
        said = ", ".join(f"{statuses[status]} {status}" for status in STATUSES if statuses[status])
        print(f"{place.name}: {said}; {counted(len(measurements.warnings), 'warning')}")
    return Outcome(place.name, DONE)


def _made(job: Job, place: Place, output: Path, *, overwrite: bool, store: str) -> Measurements | None:
    """Predict a study unless its outputs are there; return its measurements, or None where it is skipped."""
    input_sha256 = fingerprint(place.path)
    report = finished(output)
    measurements = None
    differing = [] if report is None else differences(report, job, input_sha256)
    if differing and not overwrite:
        raise UserError(
            f"{output} holds outputs that were made otherwise (what differs: {', '.join(differing)}); --overwrite "
            "replaces them, or name another --output"
        )
    if differing and (own := added_or_changed(output, report or {})):
        raise UserError(
            f"{output} holds files that were added or changed after it was written ({some(own)}): move them to another "
            "folder, then --overwrite replaces it"
        )
    if report is None or differing:
        _, measurements = predict_study(job, place.path, output, place.name, input_sha256, overwrite=report is not None)
    if store and not _is_stored(store, output):
        _send(store, output)
    return measurements


def _is_stored(url: str, output: Path) -> bool:
    from heartseg_jax.export.store import checked

    return (output / STORED).exists() and read_json(output / STORED).get("archive") == checked(url)


def _send(url: str, output: Path) -> None:
    """Send a study's DICOM objects to an archive; that it has them is kept beside them."""
    objects = sorted(output.rglob("*.dcm"))
    if not objects:
        raise UserError(f"--store sends DICOM objects and {output} has none: they are made of DICOM studies only")
    from heartseg_jax.export.store import checked, send

    send(url, _in_order(objects), bar("objects sent"))
    write_json(output / STORED, {"archive": checked(url), "objects": len(objects)})


def _in_order(objects: Sequence[Path]) -> list[Path]:
    """Return a study's objects as they were written: later ones refer to earlier ones."""
    return sorted(objects, key=lambda path: (path.stat().st_mtime_ns, path.name))
