"""Whether a model that an arm starts from has seen the patients that are left out: then their score is memory."""

from __future__ import annotations

from typing import Any

from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.data.learned import seen_before
from heartseg_jax.errors import GuardStop, UserError
from heartseg_jax.findings import some
from heartseg_jax.interop import package
from heartseg_jax.interop.encoder import SHIPPED
from heartseg_jax.lab.arms import HEART, arms_of, source_of
from heartseg_jax.preprocess.learned import UNRECORDED
from heartseg_jax.training.networks import is_network, read_contract, records_of
from heartseg_jax.workdir import Workdir, read_config


def check_unseen(config: Any, dataset: Dataset) -> list[str]:
    """Return warnings of models that do not say what they were trained on, once none is known to have seen a patient.

    Every patient of the dataset is left out in some fold, so none may be among those that a model has learned from.
    Images are compared bit for bit: the same patient prepared in another way is not recognised.

    Raises:
      GuardStop: a model was trained on a patient of the dataset.
      UserError: the heart model does not say what it was trained on: it may have seen all of them.
    """
    warnings = []
    sources: dict[str, list[str]] = {}
    for arm in arms_of(config):
        sources.setdefault(source_of(config, arm), []).append(arm)
    for source, arms in sources.items():
        if not source or source in SHIPPED or not is_network(source):  # a Keras file does not say
            continue
        contract, place = read_contract(source), package.located(source)
        records = contract.learned_from
        if not records and not package.is_package(place):
            records = records_of(contract, read_config(Workdir(place)))
        names = ", ".join(arms)
        seen = set(seen_before(dataset.patients, records))
        persons = list(dict.fromkeys(p.who for p in dataset.patients if p.id in seen))
        if persons:
            everybody = len({patient.who for patient in dataset.patients})
            raise GuardStop(
                f"unseen guard: {source}, from which {names} would start, was trained on {len(persons)} of the "
                f"{everybody} patients that are left out in turn ({some(persons, 6)})\n"
                "  likely cause: the model that is used on new patients was named, and it has seen these\n"
                "  what to try:  train it again without them, and name that run; or leave the arm out"
            )
        if not records or UNRECORDED in records:
            text = f"{source}, from which {names} would start, does not say all that it was trained on"
            if HEART in arms:
                raise UserError(
                    f"{text}: it may have seen the patients that are left out; train it again with this version"
                )
            warnings.append(f"{text}: whether it has seen the patients that are left out is unknown")
    return warnings
