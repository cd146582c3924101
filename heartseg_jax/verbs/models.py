"""The trained networks that a verb is given: one run's, one checkpoint's, or an ensemble's, as one predictor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from heartseg_jax.errors import UserError
from heartseg_jax.inference.predictor import ModelIdentity, Predictor, make_predictor
from heartseg_jax.models.registry import build_model
from heartseg_jax.models.tree import mismatches
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.training.averaging import weights_of
from heartseg_jax.training.checkpoints import BEST, Checkpoints, Step
from heartseg_jax.workdir import Workdir, read_config


class Loaded(NamedTuple):
    """One trained network: its run's config, weights (params, batch_stats), contract and checkpoint's folder.

    The weights are the averaged ones where the run has them.
    """

    config: Any
    model: UNet
    weights: tuple[Any, Any]
    contract: Contract
    identity: ModelIdentity
    checkpoint: Path
    is_last: bool


def load_model(path: Path, step: Step | None = None) -> Loaded:
    """Return the network of the run in `path`: that of `step` or 'best', by default of the last step.

    Raises:
      UserError: no run there, no such checkpoint, or a damaged one.
    """
    folder = Workdir(path)
    config = read_config(folder)
    with closing(Checkpoints(folder.checkpoints)) as store:
        last, chosen = store.choose(), store.choose(step)
        number, _, content = store.read(chosen)
        contract = Contract.from_json(content, f"the checkpoint of step {number} in {path}")
        arrays = store.restore_arrays(chosen)
        identity = ModelIdentity(str(path), number, store.digest(chosen), _digest(folder.config))
    weights = weights_of(arrays)
    model = build_model(config.model, contract.label_set)
    size, channels = contract.input.size, len(contract.input.channels)
    drawn = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, channels)), train=False))
    wrong = mismatches(weights, (drawn["params"], drawn.get("batch_stats", {})))
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(
            f"{folder.config} describes another network than its checkpoint holds: {'; '.join(wrong[:3])}{more}; "
            "restore the config.json of this run"
        )
    return Loaded(config, model, weights, contract, identity, store.folder(chosen), number == last)


def load_models(
    runs: Sequence[Path], checkpoint: Path | None = None, step: Step | None = None, *, views: bool = False
) -> tuple[Predictor, Contract, Any]:
    """Return the predictor of one run or several, their contract, and the config of the first.

    Args:
      runs: the runs' folders; the probabilities of several are averaged.
      checkpoint: instead of runs, the folder of one checkpoint.
      step: of every run: a step, or 'best'; by default its last.
      views: test-time augmentation, see `inference.views`.

    Raises:
      UserError: as `load_model`; a run is named twice; or the runs differ in their network or in what it sees.
    """
    if checkpoint is not None:
        run, step = run_of(checkpoint)
        runs = [run]
    resolved = [path.resolve() for path in runs]
    if again := [path for path, own in zip(runs, resolved, strict=True) if resolved.count(own) > 1]:
        raise UserError(f"--workdir names {again[0]} twice: in the mean it would count twice; name each run once")
    loaded = [load_model(path, step) for path in runs]
    digests = [one.identity.checkpoint_sha256 for one in loaded]
    if copies := [path for path, own in zip(runs, digests, strict=True) if digests.count(own) > 1]:
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
    members = [one.weights for one in loaded]
    identities = tuple(one.identity for one in loaded)
    predictor = make_predictor(first.model, members, first.config.data.batch_size, identities, views=views)
    return predictor, first.contract, first.config


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


def _digest(config: Path) -> str:
    """Return the SHA-256 of a config's content, whatever its layout."""
    content = json.loads(config.read_text(encoding="utf-8-sig"))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
