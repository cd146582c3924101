"""The moving average of a network's weights, and which weights of a state are meant for use. Pure: no files here.

BatchNorm's running statistics are averaged with the weights, although those of averaged weights are not the average
of statistics: measuring them again would cost passes over the data at each evaluation. JAX and optax are imported by
what computes: those who only read weights do without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from heartseg_jax.models.tree import map_within

if TYPE_CHECKING:
    import jax


def begin_average(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Return the average before step 1: copies of the weights, since a step overwrites the state it is given."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})


def decay_at(step: jax.Array, decay: float) -> jax.Array:
    """Return the share of the old average that step number `step` (from 0) keeps: `min(decay, (1 + n) / (10 + n))`.

    The rise lets the average leave the initial weights within a few steps, as TensorFlow's
    `ExponentialMovingAverage(num_updates=...)` does. `optax.ema` has no such rise and starts from zeros.
    """
    import jax.numpy as jnp

    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def follow(
    average: Mapping[str, Any], step: jax.Array, latest: Mapping[str, Any], kept: float, frozen: Collection[str]
):
    """Return the average after a step: `d * average + (1 - d) * latest`, d being `decay_at(step, kept)`.

    `average` and `latest` are trees {'params', 'batch_stats'}. What is `frozen` (names of groups) is the latest bit by
    bit: `d * x + (1 - d) * x` would round.
    """
    import optax

    moved = optax.incremental_update(latest, average, 1.0 - decay_at(step, kept))
    return {kind: map_within(frozen, lambda new, _: new, latest[kind], moved[kind]) for kind in moved}


def weights_of(state: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return (params, batch_stats) to evaluate, predict and start from: the averages where the state has them.

    `state` is a training state as a dict (`TrainState._asdict()`, or the arrays of a checkpoint).
    """
    meant = state.get("ema") or state
    return meant["params"], meant.get("batch_stats") or {}


def is_averaged(state: Mapping[str, Any]) -> bool:
    """Whether a state, as a dict, has averaged weights, which `weights_of` then gives."""
    return bool(state.get("ema"))
