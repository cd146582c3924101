"""The verb `evaluate`: scores a run on patients, its own or those of another dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl.flags import DEFINE_enum, FlagValues

from heartseg_jax.config.flags import define_cache, define_step, texts
from heartseg_jax.data.dataset.join import paths_of, read_datasets
from heartseg_jax.data.dataset.records import SPLITS, Dataset, Patient
from heartseg_jax.data.dataset.verify import check_arrays
from heartseg_jax.data.examples import misfits
from heartseg_jax.data.learned import learned_from, memorised
from heartseg_jax.data.run_dataset import dataset_for, dataset_identity, resplit
from heartseg_jax.errors import UserError
from heartseg_jax.files import check_writable
from heartseg_jax.findings import raise_refused
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.progress import bar


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        required="workdir",
        workdir="the run's folder, or a package's (with --data and --output)",
        data="another dataset than the run's own (or several: A,B); all of its patients are scored",
        output="where to write (default: evaluation... in the run's folder)",
    )
    define_step("step", "which checkpoint: a step, or best (default: the last)", values)
    define_cache(values)
    DEFINE_enum("split", None, (*SPLITS, "all"), "which patients (default: test; with --data: all)", flag_values=values)


def run(values: FlagValues, argv: list[str]) -> None:
    """Write summary.json, cases.csv and figures, and print the table.

    Raises:
      UserError: no run, no such step, data of another intensity unit than the model was trained on, or a dataset that
        has changed since.
    """
    path = Path(values.workdir)
    # JAX and Orbax take seconds to import: only once the flags are known to be good.
    from heartseg_jax.compilation_cache import open_cache
    from heartseg_jax.evaluation import report
    from heartseg_jax.evaluation.score_split import score_split
    from heartseg_jax.inference.predictor import make_predictor
    from heartseg_jax.native.library import turn_on
    from heartseg_jax.native.switch import remember
    from heartseg_jax.training import control
    from heartseg_jax.training.saved import BEST
    from heartseg_jax.verbs.models import load_model

    open_cache(values.compilation_cache)
    remember(values.native_kernels)
    turn_on()
    loaded = load_model(path, values.step)
    config, contract, number = loaded.config, loaded.contract, loaded.identity.step
    network = loaded.network
    checkpoint, is_last = network.checkpoint, network.is_last
    is_package = bool(loaded.identity.package)
    if is_package and not (values.data and values.output):
        raise UserError(f"{path} is a package, which has no patients and is not written to: give --data and --output")
    patients = _patients(path, config, contract, values.data, values.split)
    found = []
    for part in patients.dataset.parts:
        _, findings = contract.input.for_intensity(part.intensity)
        raise_refused(str(part.path), findings)
        found += [finding for finding in findings if finding not in found]
    is_best = values.step == BEST
    which = "best" if is_best else "" if is_last else f"step{number}"
    data = values.data and "+".join(place.name for place in paths_of(values.data))
    words = (data, values.split, which)
    output = Path(values.output or path / "-".join(["evaluation", *filter(None, words)]))
    check_writable(output)  # before every patient is predicted
    predictor = make_predictor(loaded.model, network.members, config.data.batch_size, network.identities)
    del loaded, network  # their arrays are on the device
    summary = score_split(
        predictor,
        patients.dataset,
        patients.split,
        contract.input,
        output=output,
        step=number,
        checkpoint=str(checkpoint),
        scored="best" if is_best else "last" if is_last else "asked",
        colours=config.log.colours,
        as_split=patients.called,
        own_split=not values.data,
        warnings=(*(finding.seen for finding in found), *patients.warnings),
    )
    if not values.data and (beside := control.scores(path, summary["split"], number)):
        summary = report.with_controls(summary, beside)
        report.write_summary(output / "summary.json", summary)
    print(report.table(summary, contract.label_set))


class _Patients(NamedTuple):
    """Whom to score: a dataset, a split of it, what the report calls that split, and what must be said of it."""

    dataset: Dataset
    split: str
    called: str
    warnings: tuple[str, ...]


def _patients(path: Path, config: Any, contract: Contract, data: str | None, split: str | None) -> _Patients:
    """Return the patients to score; raise a UserError where there are none, or they are labelled for another task."""
    dataset = read_datasets(data) if data else _own_dataset(contract, config, path)
    check_arrays(dataset, bar("patients compared with their digests"))
    if dataset.label_set != contract.label_set:
        raise UserError(
            f"the model in {path} was trained on the task '{contract.task}', {dataset.path} is of the task "
            f"'{dataset.label_set.name}'; give --data=DATASET of the task '{contract.task}'"
        )
    called = split or ("all" if data else "test")
    scored = [p for p in dataset.patients if called == "all" or called in p.splits]
    warnings = misfits(contract.input, scored)
    warnings += _memorised(scored, dataset, contract, config, called=called, foreign=bool(data))
    if called == "all":
        # All patients are tested; none is left for a baseline to learn from.
        everybody = tuple(dataclasses.replace(p, splits=("test",) * p.num_slices) for p in dataset.patients)
        dataset = dataclasses.replace(dataset, patients=everybody)
    found = _Patients(dataset, "test" if called == "all" else called, called, warnings)
    if not dataset.examples(found.split):
        raise UserError(f"{dataset.path} has no {found.split} patients; choose another --split")
    return found


def _own_dataset(contract: Contract, config: Any, path: Path) -> Dataset:
    """Return the dataset that the run was trained on; refuse one that has changed: its split may differ."""
    dataset = _trained_on(contract, config) or dataset_for(config, path)
    if dataset_identity(dataset) != contract.dataset_identity:
        raise UserError(
            f"{dataset.path} has changed since {path} was trained on it, so it is unknown which patients were trained "
            "on; name the patients to score with --data=DATASET"
        )
    return dataset


def _trained_on(contract: Contract, config: Any) -> Dataset | None:
    """Return what lies where the run's data were, split as the config says, or None where they are gone."""
    if not all(place.is_dir() for place in paths_of(contract.dataset)):
        return None
    return resplit(read_datasets(contract.dataset), config)


def _memorised(
    scored: list[Patient], dataset: Dataset, contract: Contract, config: Any, *, called: str, foreign: bool
) -> tuple[str, ...]:
    """Warn of patients that were trained on, also by the model whose weights this one began from.

    Of a run's own test patients only the latter can be; that its training patients are, the report says.
    """
    records = contract.learned_from
    if called != "all" and not foreign:
        return memorised(scored, [one for one in records if one.inherited]) if called != "train" else ()
    if records:
        return memorised(scored, records)
    if foreign:  # the model does not say what it learned from, as those of earlier versions
        own = _trained_on(contract, config)
        if own is None:
            return (f"whether these patients were trained on is unknown: {contract.dataset} is gone",)
        dataset = own
    return memorised(scored, learned_from(dataset))
