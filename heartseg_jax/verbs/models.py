"""The trained networks that a verb is given (of runs, checkpoints or packages), and several as one predictor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from heartseg_jax.errors import UserError
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.inference.predictor import Predictor, make_predictor
from heartseg_jax.models.registry import build_model
from heartseg_jax.models.tree import mismatches
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.preprocess.learned import Learned
from heartseg_jax.training.networks import Network, read_network
from heartseg_jax.training.saved import BEST, Step


class Loaded(NamedTuple):
    """What a run or a package holds (`networks.Network`), and the network that its weights are of."""

    network: Network
    model: UNet

    @property
    def config(self) -> Any:
        """The config that it was trained with."""
        return self.network.config

    @property
    def contract(self) -> Contract:
        """What it sees."""
        return self.network.contract

    @property
    def identity(self) -> ModelIdentity:
        """Its identity; the first of several members'."""
        return self.network.identities[0]


def load_model(path: Path, step: Step | None = None) -> Loaded:
    """Return the network of the run in `path` (that of `step` or 'best', by default of the last step), or a package's.

    Raises:
      UserError: neither is there, no such checkpoint, or a damaged one.
    """
    found = read_network(path, step)
    model = build_model(found.config.model, found.contract.label_set)
    size, channels = found.contract.input.size, len(found.contract.input.channels)
    drawn = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False))
    for weights in found.members:
        wrong = mismatches(weights, (drawn["params"], drawn.get("batch_stats", {})))
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise UserError(
                f"the config in {found.path} describes another network than its weights are of: "
                f"{'; '.join(wrong[:3])}{more}; restore the config.json of this run"
            )
    return Loaded(found, model)


def load_all(runs: Sequence[Path], step: Step | None = None) -> list[Loaded]:
    """Return several runs or packages whose mean can be taken.

    Raises:
      UserError: as `load_model`; one is named twice, or they differ in their network or in what it sees.
    """
    resolved = [path.resolve() for path in runs]
    if again := [path for path, own in zip(runs, resolved, strict=True) if resolved.count(own) > 1]:
        raise UserError(f"--workdir names {again[0]} twice: in the mean it would count twice; name each run once")
    loaded = [load_model(path, step) for path in runs]
    digests = [identity.checkpoint_sha256 for one in loaded for identity in one.network.identities]
    owners = [path for path, one in zip(runs, loaded, strict=True) for _ in one.network.identities]
    if copies := [path for path, own in zip(owners, digests, strict=True) if digests.count(own) > 1]:
        raise UserError(
            f"{' and '.join(map(str, copies))} hold the same checkpoint: in the mean it would count twice, and agree "
            "with itself; name each once"
        )
    first = loaded[0]
    for path, other in zip(runs[1:], loaded[1:], strict=True):
        if differing := _differing(first, other):
            raise UserError(
                f"{runs[0]} and {path} differ in {', '.join(differing)}: only models of one network, which see the "
                "same, can be averaged; leave one out"
            )
    return loaded


def load_models(
    runs: Sequence[Path], checkpoint: Path | None = None, step: Step | None = None, *, views: bool = False
) -> tuple[Predictor, Contract, Any]:
    """Return the predictor of one run or package or several, their contract, and the config of the first.

    Args:
      runs: the folders; the probabilities of several are averaged.
      checkpoint: instead of runs, the folder of one checkpoint.
      step: of every run: a step, or 'best'; by default its last.
      views: test-time augmentation, see `inference.views`.

    Raises:
      UserError: as `load_all`.
    """
    if checkpoint is not None:
        run, step = run_of(checkpoint)
        runs = [run]
    loaded = load_all(runs, step)
    first = loaded[0]
    predictor = make_predictor(
        first.model,
        [weights for one in loaded for weights in one.network.members],
        first.config.data.batch_size,
        tuple(identity for one in loaded for identity in one.network.identities),
        views=views,
    )
    return predictor, joined(loaded), first.config


def joined(loaded: Sequence[Loaded]) -> Contract:
    """Return the contract of several models' mean: the first's, with all that any of them has learned from.

    Where it is not recorded of one, it is not known of the mean.
    """
    records = [one.contract.learned_from for one in loaded]
    every: list[Learned] = []
    for record in [record for own in records for record in own] if all(records) else []:
        if record not in every:
            every.append(record)
    return dataclasses.replace(loaded[0].contract, learned_from=tuple(every))


def run_of(checkpoint: Path) -> tuple[Path, Step]:
    """Return the run that a checkpoint's folder (`RUN/checkpoints/12`, `RUN/checkpoints/best/12`) is of, and its step.

    Raises:
      UserError: it is no such folder.
    """
    place = checkpoint.resolve()
    if not place.is_dir():
        raise UserError(f"there is no folder {checkpoint}; give --checkpoint=RUN/checkpoints/STEP")
    if place.parent.name == "checkpoints" and (place.name == BEST or place.name.isdecimal()):
        return place.parent.parent, BEST if place.name == BEST else int(place.name)
    if place.parent.name == BEST and place.parent.parent.name == "checkpoints":
        return place.parent.parent.parent, BEST
    if (place / "config.json").is_file():
        raise UserError(f"{checkpoint} is a run's folder, not a checkpoint's: give it by --workdir")
    raise UserError(
        f"{checkpoint} is not the folder of a run's checkpoint, RUN/checkpoints/STEP; a checkpoint needs the run's "
        "config.json, two folders above it"
    )


def _differing(one: Loaded, other: Loaded) -> list[str]:
    """Return what two models must have in common to be averaged, and have not."""
    alike = {
        "their network (the config's model group)": one.model == other.model,
        "what they see (their contract's input)": one.contract.input == other.contract.input,
        "their task": one.contract.task == other.contract.task,
    }
    return [name for name, same in alike.items() if not same]
