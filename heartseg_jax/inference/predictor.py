"""From batches to probabilities, by one model or several."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.allocator import give_back, least_memory
from heartseg_jax.errors import GuardStop
from heartseg_jax.inference.agreement import shared_pixels
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.inference.views import through_views
from heartseg_jax.models.registry import apply_model
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.device import network_input
from heartseg_jax.preprocess.host import Batch

WORKERS = 2
"""Batches worked on at once: one computes while labels are fetched, or while a layer leaves cores of a CPU idle."""


class Output(NamedTuple):
    """What a predictor makes of a batch.

    Attributes:
      probabilities: `[B, S, S, K]` float32, the mean of the members.
      shared: `[M, M, K]` int32, how many pixels of the real examples two of the members both give a label; on the
        diagonal, how many each gives it. None for a single member.
      models: what each of several models says, `[B, S, S, K]` float32; empty for a single one.
      finite: whether every probability is a number: of NaN the largest would be taken for background.
    """

    probabilities: jax.Array
    shared: jax.Array | None = None
    models: tuple[jax.Array, ...] = ()
    finite: jax.Array | bool = True

    def checked(self) -> Output:
        """Return it. Raises GuardStop where a probability is not a number."""
        if not self.finite:
            raise GuardStop(
                "non_finite guard: the network's probabilities are no numbers (NaN), of which no label can be made\n"
                "  likely cause: weights that have grown beyond all bounds in training\n"
                "  what to try:  an earlier checkpoint (--step), another run, or training at a lower learning rate"
            )
        return self


class Predictor(NamedTuple):
    """One model or several.

    Attributes:
      predict: from a batch (whose label and merge may be None) to its `Output`.
      batch_size: B; every batch has it, so that one program is compiled.
      models: the models whose mean this is.
    """

    predict: Callable[[Batch], Output]
    batch_size: int
    models: tuple[ModelIdentity, ...] = ()


def make_predictor(
    model: UNet,
    members: Sequence[tuple[Any, Any]],
    batch_size: int,
    models: tuple[ModelIdentity, ...] = (),
    *,
    views: bool = False,
) -> Predictor:
    """Return the predictor of networks of one architecture, `members` being their (params, batch_stats).

    The probabilities of several are averaged; they run in one program, their weights stacked on a leading axis. With
    `views`, each network also sees the image a little turned, scaled and shifted (`views.VIEWS`); a single network's
    views are then its members.
    """
    if len(members) == 1 and not views:
        weights, program = members[0], _one(model)
    else:
        # On the host: on the device a program would be compiled for every shape.
        weights, program = jax.tree.map(lambda *leaves: np.stack(leaves), *members), _mean(model, len(members), views)
    weights, calls = jax.device_put(weights), itertools.count()

    def predict(batch: Batch) -> Output:
        output: Output = program(*weights, _given(batch))
        if next(calls) == 0:
            give_back()  # what compiling has left, and the arrays that the weights were read into
        return output

    return Predictor(predict, batch_size, models)


def compile_predictor(model: UNet, params: Any, batch_stats: Any, batch: Batch) -> Any:
    """Compile the program of a single network for a host batch like this, and weights or their shapes; return it."""
    return _one(model).lower(params, batch_stats, _given(batch)).compile()


def _given(batch: Batch) -> Any:
    return jax.device_put(batch._replace(label=None, merge=None))


def _softmax(model: UNet, params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
    return jax.nn.softmax(apply_model(model, params, batch_stats, image), axis=-1)


@functools.lru_cache(maxsize=16)
def _one(model: UNet) -> Any:
    """One program per model, for any number of weights."""

    def probabilities(params: Any, batch_stats: Any, batch: Batch) -> Output:
        found = _softmax(model, params, batch_stats, network_input(batch))
        return Output(found, finite=jnp.isfinite(found).all())

    return jax.jit(probabilities, compiler_options=least_memory())


@functools.lru_cache(maxsize=16)
def _mean(model: UNet, count: int, views: bool) -> Any:
    def probabilities(params: Any, batch_stats: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean of one network and what its members say, `[T, B, S, S, K]`: its views, or itself."""
        network = functools.partial(_softmax, model, params, batch_stats)
        if not views:
            alone = network(image)
            return alone, alone[None]
        return through_views(network, image)

    def program(params: Any, batch_stats: Any, batch: Batch) -> Output:
        image = network_input(batch)
        # One after the other: mapped over the weights, convolutions would become grouped ones, slower on a CPU.
        found = []
        for i in range(count):
            own_params, own_stats = jax.tree.map(operator.itemgetter(i), (params, batch_stats))
            found.append(probabilities(own_params, own_stats, image))
        mean, own = jnp.stack([one[0] for one in found]), found[0][1]
        labels = (mean if count > 1 else own).argmax(axis=-1)
        shared = shared_pixels(labels, batch.mask, mean.shape[-1])
        each = tuple(one[0] for one in found) if count > 1 else ()
        return Output(mean.mean(axis=0), shared, each, jnp.isfinite(mean).all())

    return jax.jit(program, compiler_options=least_memory())
