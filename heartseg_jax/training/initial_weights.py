"""Pretrained weights, of a Keras file or a run, put into a fresh network before its optimizer is built.

BatchNorm's running statistics are recalibrated here where that is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.device import network_input
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training.networks import is_network, read_network

Batches = Callable[[int], Iterator[Batch]]


def start(
    config: Any, model: UNet, params: Any, batch_stats: Any, first_batches: Batches
) -> tuple[Any, Any, dict[str, Any]]:
    """Return (params, batch_stats, record) with the weights that `config.pretrained` names in their places.

    `params` and `batch_stats` are those of the freshly drawn network; `first_batches(n)` gives n training batches, to
    measure BatchNorm's statistics on.

    Raises:
      UserError: the weights cannot be read, or are of another network than the config's, naming both.
    """
    asked = config.pretrained
    record: dict[str, Any] = {"path": asked.path, "recalibrated_batches": asked.recalibrate_batches}
    if asked.path:
        if config.model.norm == "none":
            raise UserError(
                "the pretrained encoder has BatchNorm and model.norm is 'none'; give --config.model.norm=encoder"
            )
        found, source = _read(asked, config.data.task, params)
        params, batch_stats = (
            _put(tree, found[kind], f"{kind} of {asked.path}", config.model)
            for tree, kind in ((params, "params"), (batch_stats, "batch_stats"))
        )
        record |= source
    if asked.recalibrate_batches:
        batch_stats = recalibrate(model, params, batch_stats, first_batches(asked.recalibrate_batches))
    return params, batch_stats, record


def _read(asked: Any, task: str, params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays to put in, as {'params': tree, 'batch_stats': tree}, and what is known of their source."""
    path = Path(asked.path)
    if is_network(path):
        network = read_network(path)
        own = network.contract.task
        if asked.load == "all" and own != task:
            # The head would fit, and call a tumour an aorta.
            raise UserError(
                f"{asked.path} is a model of the task '{own}', this run's is '{task}': its head marks other "
                "structures; give --config.pretrained.load=encoder"
            )
        groups = list(params) if asked.load == "all" else ["encoder"]
        trees = dict(zip(("params", "batch_stats"), network.members[0], strict=True))
        found = {kind: {group: tree[group] for group in groups if group in tree} for kind, tree in trees.items()}
        first = network.identities[0]
        source: dict[str, Any] = {"kind": "package" if first.package else "run", "step": first.step, **first.digests}
        source |= {"averaged": network.averaged, "loaded": groups, "model": dict(network.config.model.items())}
        if len(network.members) > 1:
            source["member"] = f"the first of {len(network.members)}"
        return found, source
    if asked.load == "all":
        raise UserError(
            f"pretrained.load=all needs the folder of a run or a package, which {asked.path} is not; give "
            "pretrained.load=encoder"
        )
    from heartseg_jax.interop.encoder import load_encoder  # HDF5 is loaded only where a Keras file is read

    encoder = load_encoder(path, channels=int(params["encoder"]["stage1"]["conv1"]["kernel"].shape[2]))
    found = {"params": {"encoder": encoder.params}, "batch_stats": {"encoder": encoder.batch_stats}}
    report = encoder.report
    return found, {"kind": "keras", "loaded": ["encoder"], "sha256": report["sha256"], "format": report["format"]}


def _put(tree: Any, found: Mapping[str, Any], what: str, model: Any) -> Any:
    """Return `tree` with the leaves of `found` in their places; both must have the same paths."""
    groups = {group: tree[group] for group in found if group in tree}
    wanted, given = named_leaves(groups), named_leaves(found)
    size = lambda array: "x".join(map(str, array.shape)) or "a scalar"  # noqa: E731
    wrong = [
        f"{name} is {size(given[name])}, the network's {size(wanted[name])}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if wrong:
        fix = ""
        first = next((leaf for name, leaf in given.items() if name.endswith("stage1/conv1/kernel")), None)
        if first is not None and first.shape[-1] != model.width:
            fix = f"; give --config.model.width={first.shape[-1]}"
        raise UserError(f"the {what} do not fit: {wrong[0]} (and {len(wrong) - 1} more){fix}")
    absent, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if absent or extra:
        have, need = (len({name.split("/")[1] for name in names}) for names in (given, wanted))
        fix = f"; give --config.model.levels={have}" if have != need else ""
        lacks = f"{absent[0]} is missing" if absent else f"{extra[0]} has no place in the network"
        raise UserError(f"the {what} do not fit: {lacks} (and {len(absent) + len(extra) - 1} more){fix}")
    bad = [name for name, leaf in given.items() if not np.isfinite(leaf).all()]
    if bad:
        raise UserError(f"the {what} hold NaN or infinite values, first in {bad[0]}; use another file or checkpoint")
    placed = jax.tree.map(lambda old, new: jnp.asarray(np.asarray(new), old.dtype), groups, dict(found))
    return {**tree, **placed}


def recalibrate(model: UNet, params: Any, batch_stats: Any, batches: Iterable[Batch]) -> Any:
    """Return `batch_stats` replaced by the mean and variance of every BatchNorm's input over `batches`.

    Each batch goes through the network normalised by its own statistics, as in training, so that a deep layer is
    measured behind layers that already work. The variance is that of all pixels of all batches: the mean of the
    batches' variances plus the variance of their means.

    `batches`, at least one, are stored batches of equal shape; no augmentation is applied.
    """
    measure = _measurer(model)
    measured = [measure(params, batch_stats, batch) for batch in batches]

    averages = jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *measured)

    def spread(tree: Any, every: list[Any]) -> Any:
        if "mean" in tree and "var" in tree:
            means = jnp.stack([each["mean"] for each in every])
            return {"mean": tree["mean"], "var": tree["var"] + jnp.var(means, axis=0)}
        return {name: spread(tree[name], [each[name] for each in every]) for name in tree}

    return spread(averages, measured)


@functools.lru_cache(maxsize=16)
def _measurer(model: UNet) -> Any:
    # With a momentum of 0, the statistics after one pass are those of that batch.
    measuring = model.clone(batch_norm_momentum=0.0, dropout=0.0)

    @jax.jit
    def measure(params: Any, batch_stats: Any, batch: Batch) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        _, updates = measuring.apply(variables, network_input(batch), train=True, mutable=["batch_stats"])
        return updates["batch_stats"]

    return measure
