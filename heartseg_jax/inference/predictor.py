"""From batches to probabilities by one model or several, and from slices to probabilities on their own grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.anatomy import counts_as
from heartseg_jax.data.examples import padded
from heartseg_jax.models.registry import apply_model
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess import host
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.device import network_input
from heartseg_jax.preprocess.host import Batch


class ModelIdentity(NamedTuple):
    """Which model made a prediction.

    Attributes:
      run: its run's folder; a path, so never written into a file that leaves the machine.
      step: of its checkpoint.
      checkpoint_sha256: digest of the checkpoint's files; empty where it was never written.
      config_sha256: digest of the run's config.
    """

    run: str
    step: int
    checkpoint_sha256: str = ""
    config_sha256: str = ""


class Predictor(NamedTuple):
    """One model or several.

    Attributes:
      probabilities: from a batch (whose label and merge may be None) to `[B, S, S, K]` float32.
      batch_size: B; every batch has it, so that one program is compiled.
      models: the models whose mean this is.
    """

    probabilities: Callable[[Batch], jax.Array]
    batch_size: int
    models: tuple[ModelIdentity, ...] = ()


def make_predictor(
    model: UNet, members: Sequence[tuple[Any, Any]], batch_size: int, models: tuple[ModelIdentity, ...] = ()
) -> Predictor:
    """Return the predictor of networks of one architecture, `members` being their (params, batch_stats).

    The probabilities of several are averaged; they run in one program, their weights stacked on a leading axis.
    """
    if len(members) == 1:
        weights, program = members[0], _one(model)
    else:
        weights, program = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members), _mean(model)
    weights = jax.device_put(weights)
    return Predictor(
        lambda batch: program(*weights, jax.device_put(batch._replace(label=None, merge=None))), batch_size, models
    )


def _softmax(model: UNet, params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
    return jax.nn.softmax(apply_model(model, params, batch_stats, image), axis=-1)


@functools.lru_cache(maxsize=16)
def _one(model: UNet) -> Any:
    """One program per model, for any number of weights."""
    return jax.jit(lambda params, batch_stats, batch: _softmax(model, params, batch_stats, network_input(batch)))


@functools.lru_cache(maxsize=16)
def _mean(model: UNet) -> Any:
    every = jax.vmap(functools.partial(_softmax, model), in_axes=(0, 0, None))
    return jax.jit(lambda params, batch_stats, batch: every(params, batch_stats, network_input(batch)).mean(axis=0))


def predict_slices(
    predictor: Predictor,
    spec: InputSpec,
    images: np.ndarray,
    wanted: Sequence[int] | np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    contiguous: bool,
) -> Iterator[np.ndarray]:
    """Yield the probabilities `[n, H, W, K]` float32 of the slices `wanted` in order, at most `batch_size` at a time.

    `wanted` are indices into `images [Z, H, W]`, patient-axial, int16 HU or uint8; `spacing_mm` is (z, y, x), or None
    where it is unknown; `contiguous` whether the slices are a whole volume in order, so that they have neighbours.
    """
    for real, filled, mask in padded(np.asarray(wanted), predictor.batch_size):
        planes = np.array([host.neighbours(spec, int(z), len(images), contiguous) for z in filled])
        rows = np.unique(np.concatenate([filled, planes.ravel()]))
        seen = host.to_network(spec, images[rows], spacing_mm)
        windows = host.windows_of(spec, seen[np.searchsorted(rows, filled)])
        batch = Batch(seen[np.searchsorted(rows, planes)].transpose(0, 2, 3, 1), windows, None, None, mask)
        found = np.asarray(predictor.probabilities(batch))[: len(real)]
        yield host.to_source(spec, found, images.shape[1], images.shape[2], spacing_mm)


def merged(probabilities: np.ndarray, merge: tuple[int, ...]) -> np.ndarray:
    """Return `[..., K]` with the probabilities of channels that count as one summed into the label they count as."""
    if merge == tuple(range(len(merge))):
        return probabilities
    return probabilities @ counts_as(np.array(merge)).astype(probabilities.dtype)
