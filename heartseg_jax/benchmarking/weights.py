"""Weights and a state to time steps with, drawn without compiling anything. No run begins from these."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np

from heartseg_jax.models.tree import path_name
from heartseg_jax.training import steps

ONES = ("scale", "var")
"""BatchNorm's arrays that are 1 in the beginning; all others but the kernels are 0."""


def random_weights(model: Any, size: int, channels: int) -> tuple[Any, Any]:
    """Return (params, batch_stats) of numpy arrays, kernels of a scale at which activations keep theirs."""
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    draws = np.random.default_rng(0)

    def drawn(path: Any, leaf: Any) -> np.ndarray:
        name = path_name(path).rpartition("/")[2]
        if name == "kernel":
            scale = math.sqrt(2 / math.prod(leaf.shape[:-1]))
            return draws.standard_normal(leaf.shape, np.float32) * np.float32(scale)
        return (np.ones if name in ONES else np.zeros)(leaf.shape, leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(drawn, shapes)
    return variables["params"], variables.get("batch_stats", {})


def initial_state(model: Any, program: Any, config: Any, channels: int) -> steps.TrainState:
    """Return a state before step 1 of a phase's program, of numpy arrays; moments and averages are 0."""
    params, batch_stats = random_weights(model, config.data.size, channels)
    begin = functools.partial(steps.begin, program, ema_decay=config.train.ema_decay)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(begin, params, batch_stats))
    return state._replace(params=params, batch_stats=batch_stats)
