"""Trained networks by their place: a run's folder, or a package's (`interop.package`), read in one way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from heartseg_jax.data.dataset.join import paths_of, read_datasets
from heartseg_jax.data.learned import learned_from
from heartseg_jax.data.run_dataset import dataset_identity, resplit
from heartseg_jax.errors import UserError
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.interop import package
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.preprocess.learned import UNRECORDED, Learned, inherited
from heartseg_jax.training import averaging
from heartseg_jax.training.saved import Reader, Step
from heartseg_jax.workdir import Workdir, read_config


class Network(NamedTuple):
    """What a run or a package holds.

    Attributes:
      path: its folder, with the name of a shipped model replaced.
      config, contract: of its training.
      members: (params, batch_stats) of each network: one of a run, one or more of a package.
      identities: of each.
      checkpoint: the folder that the weights were read from.
      is_last: whether it is the run's last checkpoint.
      averaged: whether the weights are moving averages (`train.ema_decay`); those are meant where a run has them.
    """

    path: Path
    config: Any
    contract: Contract
    members: tuple[tuple[Any, Any], ...]
    identities: tuple[ModelIdentity, ...]
    checkpoint: Path
    is_last: bool
    averaged: bool


def is_network(path: str | Path) -> bool:
    """Whether there is a run or a package."""
    place = package.located(path)
    return package.is_package(place) or Workdir(place).config.is_file()


def read_network(path: str | Path, step: Step | None = None) -> Network:
    """Return the network in a run's folder (that of `step` or 'best', by default of the last step), or in a package.

    Raises:
      UserError: neither is there, the checkpoint or the package is damaged, or a package is asked for a step.
    """
    place = package.located(path)
    if package.is_package(place):
        return _of_package(place, step)
    folder = Workdir(place)
    config = read_config(folder)
    store = Reader(folder.checkpoints)
    last, chosen = store.choose(), store.choose(step)
    (number, _, content), arrays = store.read_weights(chosen)
    contract = Contract.from_json(content, f"the checkpoint of step {number} in {place}")
    identity = ModelIdentity(str(place), number, store.digest(chosen), _digest(folder.config))
    weights, averaged = averaging.weights_of(arrays), averaging.is_averaged(arrays)
    return Network(place, config, contract, (weights,), (identity,), store.folder(chosen), number == last, averaged)


def read_contract(path: str | Path) -> Contract:
    """Return the contract of a run's last checkpoint, or of a package, without its arrays.

    Raises:
      UserError: neither is there, or it is damaged.
    """
    place = package.located(path)
    if package.is_package(place):
        return package.contract_of(package.read_head(place), place)
    folder = Workdir(place)
    read_config(folder)
    store = Reader(folder.checkpoints)
    saved = store.read(store.choose())
    return Contract.from_json(saved.contract, f"the checkpoint of step {saved.step} in {place}")


def network_fields(path: str | Path) -> dict[str, Any]:
    """Return the fields of the config that decide the network of a run or a package: `model.*` and `data.channels`.

    Raises:
      UserError: neither is there, or it is damaged.
    """
    place = package.located(path)
    is_package = package.is_package(place)
    config = package.config_of(package.read_head(place), place) if is_package else read_config(Workdir(place))
    own = {f"model.{name}": value for name, value in config.model.items()}
    return own | {"data.channels": config.data.channels}


def records_of(contract: Contract, config: Any) -> tuple[Learned, ...]:
    """Return what a model learned from; for a checkpoint of an earlier version, from its dataset, if that is unchanged.

    `config` is the run's. Empty where it cannot be known.
    """
    if contract.learned_from or not all(place.is_dir() for place in paths_of(contract.dataset)):
        return contract.learned_from
    from heartseg_jax.interop.encoder import SHIPPED  # reads Keras files, which most callers do not

    dataset = resplit(read_datasets(contract.dataset), config)
    if dataset_identity(dataset) != contract.dataset_identity:
        return ()
    source = config.pretrained.path
    if not source or source in SHIPPED or Path(source).is_file():
        return learned_from(dataset)
    known = read_contract(source).learned_from if is_network(source) else ()
    return (*learned_from(dataset), *inherited(known or (UNRECORDED,), head=config.pretrained.load == "all"))


def _of_package(place: Path, step: Step | None) -> Network:
    if step is not None:
        raise UserError(f"{place} is a package, which holds the weights of one step; remove --step")
    found = package.read_package(place)
    named = {"package": found.head["name"], "version": found.head["version"], "package_sha256": found.sha256}
    averaged = any(one["averaged"] for one in found.head["sources"])
    identities = tuple(
        ModelIdentity(str(place), one["step"], one["checkpoint_sha256"], one["config_sha256"], **named)
        for one in found.head["sources"]
    )
    return Network(place, found.config, found.contract, found.members, identities, place, True, averaged)


def _digest(config: Path) -> str:
    """Return the SHA-256 of a config's content, whatever its layout."""
    content = json.loads(config.read_text(encoding="utf-8-sig"))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
