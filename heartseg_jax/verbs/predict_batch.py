"""Studies one after another: finished ones are skipped, and one that is refused or fails does not stop the rest."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from heartseg_jax.errors import GuardStop, UserError
from heartseg_jax.export.registry import EXPORTERS
from heartseg_jax.files import is_full_disk, read_json, write_json
from heartseg_jax.findings import counted, some
from heartseg_jax.measure.report import table
from heartseg_jax.measure.results import STATUSES, Measurements
from heartseg_jax.progress import bar, say
from heartseg_jax.verbs.predict_places import Place, fingerprint, shard_of
from heartseg_jax.verbs.predict_reasons import kept_reason
from heartseg_jax.verbs.predict_report import (
    DONE,
    FAILED,
    NOT_STORED,
    REFUSED,
    WAITING,
    BatchReport,
    Outcome,
    refuse_foreign,
)
from heartseg_jax.verbs.predict_study import (
    STORED,
    Job,
    added_or_changed,
    differences,
    finished,
    predict_study,
    refuse_added_or_changed,
)

NO_OBJECTS = "not applicable: DICOM objects are made of DICOM studies only"


def predict_one(job: Job, place: Place, output: Path, *, overwrite: bool, store: str = "") -> None:
    """Predict a single study into `output` and print its measurements.

    Raises:
      UserError: as `predict_study`; or `output` holds outputs that were made otherwise, or anything else; or the
        outputs are complete and could not be stored.
    """
    _check_store(job, store)
    measurements = _made(job, place, output, overwrite=overwrite)
    if measurements is None:
        print(f"{output} is complete: the same model, options and files; nothing to do")
    else:
        print(table(measurements))
        print(f"written to {output}")
    if store and not _is_stored(store, output) and not _send(store, output):
        raise UserError(f"--store sends DICOM objects and {output} has none: they are made of DICOM studies only")


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
      UserError: at the end, where a study was refused, failed or could not be stored; or the disk is full, or
        `output` holds files of others.
      GuardStop: the model's probabilities are no numbers.
    """
    _check_store(job, store)
    refuse_foreign(output)
    output.mkdir(parents=True, exist_ok=True)
    report = BatchReport(output, [place.name for place in places], job.identity())
    mine, outcomes, shown = shard_of(places, shard), [], {}
    studies = bar("studies")
    try:
        for number, place in enumerate(mine, 1):
            say(f"{number} of {len(mine)}: {place.name}")
            outcome, why = _attempt(job, place, output / place.name, report, overwrite=overwrite, store=store)
            if outcome.failed(bool(store)):
                shown[place.name] = f"{_word(outcome)} {place.name}: {why}"
                say(shown[place.name])
            outcomes.append(outcome)
            report.note(outcome)
            studies(number, len(mine))
    except BaseException:  # Ctrl-C or a full disk: what is done must not be called waiting
        with suppress(UserError, OSError):
            report.write()
        raise
    everything = report.write()
    if shard[1] > 1:
        report.write_shard(shard, outcomes)
    counts = Counter(one.status for one in everything)
    said = ", ".join(f"{counts[status]} {status}" for status in (DONE, REFUSED, FAILED, WAITING) if counts[status])
    print(f"{len(everything)} studies in {output}: {said} (report.json, measurements.csv)")
    if others := [one.study for one in everything if one.made_by_other]:
        say(
            f"warning: {len(others)} of the studies that are done were made by another model or version, or with other "
            f"options, than this call's ({some(others)}); measurements.csv has them too, and report.json marks them"
        )
    names = {place.name for place in mine}
    if lost := [one for one in everything if one.study in names and one.failed(bool(store))]:
        for one in lost:
            say(shown.get(one.study, f"{_word(one)} {one.study}: {one.reason}"))
        raise UserError(
            f"{len(lost)} of {len(mine)} studies were refused, failed or not stored "
            f"({some([one.study for one in lost])}); {output / 'report.json'} has the reasons, and the same command "
            "tries them again"
        )


def _word(outcome: Outcome) -> str:
    return outcome.status if outcome.status != DONE else NOT_STORED.strip(": ")


def _check_store(job: Job, store: str) -> None:
    """Raise a UserError where nothing that --export names can be stored."""
    if store and job.exporters and not any(EXPORTERS[name].kinds == ("dicom",) for name in job.exporters):
        raise UserError("--store sends DICOM objects and --export names none: add dicom_seg, or remove one of the two")


def _attempt(
    job: Job, place: Place, output: Path, report: BatchReport, *, overwrite: bool, store: str
) -> tuple[Outcome, str]:
    """Return what became of a study, and why in all words, which are not kept.

    Only a full disk is raised, and a guard's stop: it is the model's fault, not the study's.
    """
    try:
        measurements = _made(job, place, output, overwrite=overwrite)
    except Exception as error:
        if is_full_disk(error) or isinstance(error, GuardStop):
            raise
        if isinstance(error, UserError):
            return Outcome(place.name, REFUSED, kept_reason(error)), _line(error)
        return Outcome(place.name, FAILED, why := _bug(error)), why
    if measurements is None:
        print(f"{place.name}: already done")
    else:
        statuses = Counter(row.status for row in measurements.structures)
        said = ", ".join(f"{statuses[status]} {status}" for status in STATUSES if statuses[status])
        print(f"{place.name}: {said}; {counted(len(measurements.warnings), 'warning')}")
    if not store:  # an earlier call's note holds while the outputs do
        noted = report.stored(place.name) if measurements is None else ""
        return Outcome(place.name, DONE, stored=noted), noted.removeprefix(NOT_STORED)
    try:
        stored = _is_stored(store, output) or _send(store, output)
    except Exception as error:
        if is_full_disk(error):
            raise
        why = _line(error) if isinstance(error, UserError) else _bug(error)
        kept = kept_reason(error) if isinstance(error, UserError) else why
        return Outcome(place.name, DONE, stored=NOT_STORED + kept), why
    if not stored:
        say(f"{place.name} has no DICOM objects to store: they are made of DICOM studies only")
    return Outcome(place.name, DONE, stored="stored" if stored else NO_OBJECTS), ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _bug(error: Exception) -> str:
    say("".join(traceback.format_exception(error)).rstrip())
    return f"a bug or a lack of memory ({type(error).__name__}): see the log"


def _made(job: Job, place: Place, output: Path, *, overwrite: bool) -> Measurements | None:
    """Predict a study unless its outputs are there; return its measurements, or None where it is skipped."""
    input_sha256 = fingerprint(place.path)
    report = finished(output)
    differing = [] if report is None else differences(report, job, input_sha256, output)
    if differing and not overwrite:
        what = f"outputs that were made otherwise (what differs: {', '.join(differing)}); --overwrite replaces them"
        raise UserError(f"{output} holds {what}, or name another --output", kept=f"its folder holds {what}")
    if report is not None and not differing:
        return None
    if report is not None:
        refuse_added_or_changed(output, report)
    return predict_study(job, place.path, output, place.name, input_sha256, overwrite=report is not None)[1]


def _is_stored(url: str, output: Path) -> bool:
    from heartseg_jax.export.store import checked

    return (output / STORED).exists() and read_json(output / STORED).get("archive") == checked(url)


def _send(url: str, output: Path) -> bool:
    """Send a study's DICOM objects to an archive; that it has them is kept beside them. False where it has none.

    Raises:
      UserError: not all were stored; or DICOM files were added or changed, and then none is sent.
    """
    report = finished(output) or {"outputs": {}}
    if others := [name for name in added_or_changed(output, report) if name.lower().endswith(".dcm")]:
        text = "were added or changed after the outputs were written, and --store sends only what this program wrote"
        raise UserError(
            f"{output}: {counted(len(others), 'DICOM file')} ({some(others)}) {text}; move them to another folder",
            kept=f"{counted(len(others), 'DICOM file')} {text}",
        )
    objects = [output / name for name in report["outputs"] if name.endswith(".dcm")]
    if not objects:
        return False
    from heartseg_jax.export.store import checked, send

    try:
        send(url, _in_order(objects), bar("objects sent"))
    except UserError as error:  # it names the archive and our own files
        raise UserError(str(error), kept=str(error).replace(str(output), "its folder")) from None
    write_json(output / STORED, {"archive": checked(url), "objects": len(objects)})
    return True


def _in_order(objects: Sequence[Path]) -> list[Path]:
    """Return a study's objects as they were written: later ones refer to earlier ones."""
    return sorted(objects, key=lambda path: (path.stat().st_mtime_ns, path.name))
