"""One study, from its files to the folder of its outputs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heartseg_jax import __version__, progress
from heartseg_jax.errors import UserError, suggestion
from heartseg_jax.export.registry import EXPORTERS, Options, default_exporters, exporters_for
from heartseg_jax.files import check_writable, new_folder, read_json, write_json
from heartseg_jax.findings import counted, raise_refused, some
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.intake_reading import read_intake
from heartseg_jax.inference.postprocess import Settings, postprocess
from heartseg_jax.inference.predictor import Predictor
from heartseg_jax.inference.study import Prediction, predict_volume
from heartseg_jax.measure.json_form import PROGRAM, to_json
from heartseg_jax.measure.results import Measurements
from heartseg_jax.measure.volumes import measure, released
from heartseg_jax.preprocess.contract import Contract

VERSION = 1
"""Of the form of `report.json`."""
MEASUREMENTS, REPORT, STORED = "measurements.json", "report.json", "stored.json"
OUR_OWN = (REPORT, STORED)
"""Files that say something of the outputs and are none."""
MASKS = "masks/"
"""Its files may be called after the patient, as pictures are: only their number and one digest of all is kept."""
KEPT = "the labels of refused structures were written, since --keep_refused was given: {}; do not rely on them"


@dataclass(frozen=True)
class Job:
    """What is done with every study.

    Attributes:
      predictor, contract: the model.
      settings: of postprocessing; None where it is off.
      views: whether the predictor uses test-time augmentation.
      series: which of a DICOM study; empty for its only fit one.
      exporters: names of the outputs to write; empty for all that the input allows.
      keep_refused: write the labels of refused structures too.
      options: of the exporters.
    """

    predictor: Predictor
    contract: Contract
    settings: Settings | None
    views: bool = False
    series: str = ""
    exporters: tuple[str, ...] = ()
    keep_refused: bool = False
    options: Options = field(default_factory=Options)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the outputs but the input, for JSON. A series' UID states dates: its digest."""
        return {
            "program": PROGRAM,
            "program_version": __version__,
            "members": [one.digests for one in self.predictor.models],
            "tta": self.views,
            "postprocess": None
            if self.settings is None
            else self.settings._asdict() | {"leave": list(self.settings.leave)},
            "series": self.series if len(self.series) < 7 else hashlib.sha256(self.series.encode()).hexdigest()[:16],
            "export": list(self.exporters),
            "keep_refused": self.keep_refused,
            **self.options._asdict(),
        }


def check_exporters(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the order in which they run. Raises UserError for one that is unknown."""
    for name in names:
        if name not in EXPORTERS:
            raise UserError(f"--export={name} is unknown{suggestion(name, list(EXPORTERS))}")
    return tuple(name for name in EXPORTERS if name in names)


def predict_study(
    job: Job, path: Path, output: Path, study: str, input_sha256: str, *, overwrite: bool = False
) -> tuple[Prediction, Measurements]:
    """Write the outputs of one study into the folder `output`, which appears as a whole.

    `study` is what the outputs call it. An existing folder is replaced with `overwrite`.

    Raises:
      UserError: the study cannot be read or does not fit the model, or an output cannot be made of it.
    """
    clock = _Clock()
    check_writable(output)  # minutes before it is written
    intake = read_intake(path, job.series, progress.bar("files"))
    raise_refused(str(path), intake.findings)
    exporters = _exporters(job, intake)
    for name in exporters:
        EXPORTERS[name].check(intake)
    clock.lap("read_s")
    prediction = predict_volume(job.predictor, intake, job.contract, progress=progress.bar("slices"))
    clock.lap("infer_s")
    if job.settings is not None:
        with progress.unless_said("looking for islands and holes in the labels"):
            prediction = postprocess(prediction, job.settings)
    clock.lap("postprocess_s")
    with progress.unless_said("measuring"):
        measurements = measure(prediction)
    if job.keep_refused:
        measurements = _kept(measurements)
    prediction = released(prediction, measurements)
    clock.lap("measure_s")
    with new_folder(output, overwrite=overwrite) as folder:
        write_json(folder / MEASUREMENTS, to_json(prediction, measurements))
        for name in exporters:
            with progress.unless_said(f"writing {EXPORTERS[name].writes}"):
                EXPORTERS[name].write(prediction, measurements, folder, job.options)
            clock.lap(f"{name}_s")
        written = _files(folder)
        write_json(
            folder / REPORT,
            {
                "version": VERSION,
                "study": study,
                "status": "done",
                "made_by": job.identity(),
                "input_sha256": input_sha256,
                "outputs": _digests(written),
                "masks": sum(name.startswith(MASKS) for name in written),
                "exporters": exporters,
                "seconds": clock.laps,
            },
        )
        if overwrite and (now := finished(output)) is not None:  # minutes have passed since it was looked at
            refuse_added_or_changed(output, now)
    return prediction, measurements


def finished(output: Path) -> dict[str, Any] | None:
    """Return the report of the outputs in a folder; None where it is absent or empty.

    Raises:
      UserError: there is something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    report = read_json(output / REPORT, fix=f"remove {output}") if (output / REPORT).is_file() else {}
    if not isinstance(report.get("outputs"), dict) or not isinstance(report.get("made_by"), dict):
        raise UserError(f"{output} holds other files than a prediction's: they stay as they are; name another folder")
    return report


def refuse_added_or_changed(output: Path, report: dict[str, Any]) -> None:
    """Raise a UserError where files in a folder are not as they were written, such as labels corrected by hand."""
    if own := added_or_changed(output, report):
        raise UserError(
            f"{output} holds files that were added or changed after it was written ({some(own)}): move them to another "
            "folder, then --overwrite replaces it",
            kept=f"{counted(len(own), 'file')} of its outputs were added or changed after they were written: move them "
            "to another folder, then --overwrite replaces the outputs",
        )


def added_or_changed(output: Path, report: dict[str, Any]) -> list[str]:
    """Return the files in a folder that are not as they were written; of the masks, 'masks/'."""
    written = report["outputs"]
    found = _digests(_files(output))
    return [name for name, digest in found.items() if written.get(name) != digest and name not in OUR_OWN]


def differences(report: dict[str, Any], job: Job, input_sha256: str, output: Path) -> list[str]:
    """Return what differs between finished outputs and what is asked for now, in words."""
    made, now = report["made_by"], job.identity()
    found = [name for name in now if made.get(name) != now[name]]
    words = {"members": "the model", "program_version": "the version of this program"}
    named = [words.get(name, f"--{name}") for name in found]
    if report.get("input_sha256") != input_sha256:
        named.append("the study's files")
    if lost := missing(report, output):
        named.append(f"{counted(lost, 'file')} of the outputs missing")
    return named


def missing(report: dict[str, Any], output: Path) -> int:
    """Return how many of the files that were written are no longer in a folder."""
    masks = len(list((output / MASKS).glob("*.png")))
    others = sum(not (output / name).is_file() for name in report["outputs"] if name != MASKS)
    return others + max(0, int(report.get("masks") or 0) - masks)


def _files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _digests(files: dict[str, str]) -> dict[str, str]:
    """Return the files' digests, with one for all masks and their names."""
    masks = "".join(f"{name} {digest}\n" for name, digest in files.items() if name.startswith(MASKS))
    found = {name: digest for name, digest in files.items() if not name.startswith(MASKS)}
    return found | ({MASKS: hashlib.sha256(masks.encode()).hexdigest()} if masks else {})


def _exporters(job: Job, intake: Intake) -> list[str]:
    """Return the exporters to run. Raises UserError for one that was asked for and cannot be made of this input."""
    allowed = exporters_for(intake.kind, intake.spacing_known)
    if not job.exporters:
        usual = default_exporters(intake.kind, intake.spacing_known)
        if any(finding.check == "same_instance" for finding in intake.findings):  # every output has the warning
            progress.say("no DICOM objects are written: the slices' instances have no UID that they could refer to")
            return [name for name in usual if EXPORTERS[name].kinds != ("dicom",)]
        return usual
    if impossible := [name for name in job.exporters if name not in allowed]:
        raise UserError(
            f"--export={impossible[0]} cannot be made of {intake.kind}; of it can be made: {', '.join(allowed)}"
        )
    return list(job.exporters)


def _kept(measurements: Measurements) -> Measurements:
    """Return the measurements with nothing withheld, and a warning where something would have been."""
    names = [row.name for row in measurements.structures if row.withheld and row.voxels]
    rows = tuple(replace(row, withheld=False) for row in measurements.structures)
    warnings = (*measurements.warnings, KEPT.format(some(names, 8))) if names else measurements.warnings
    return replace(measurements, structures=rows, warnings=warnings)


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
