"""From images to labels on the grid they came from: the network's view there, its probabilities back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.data.pipeline import Examples, in_order
from heartseg_jax.imaging import volume
from heartseg_jax.models.registry import apply_model, network_input
from heartseg_jax.models.unet import UNet

Probabilities = Callable[[dict[str, np.ndarray]], jax.Array]


class PatientLabels(NamedTuple):
    """The labels of some slices of one patient, on the dataset's grid."""

    patient: int
    slices: list[int]
    labels: np.ndarray


def make_probabilities(model: UNet, params: Any, batch_stats: Any) -> Probabilities:
    """Return the jitted map from a batch to probabilities `[B, S, S, 9]` float32."""
    probabilities = _probabilities(model)
    return lambda batch: probabilities(params, batch_stats, {name: jnp.asarray(x) for name, x in batch.items()})


@functools.lru_cache(maxsize=16)
def _probabilities(model: UNet) -> Any:
    """One program a model, however many sets of weights it is asked for."""

    @jax.jit
    def probabilities(params: Any, batch_stats: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return jax.nn.softmax(apply_model(model, params, batch_stats, network_input(batch)), axis=-1)

    return probabilities


def merged(probabilities: np.ndarray, merge: tuple[int, ...]) -> np.ndarray:
    """Return `[..., 9]` with the probabilities of channels that count as one summed into the label they count as."""
    if merge == tuple(range(len(merge))):
        return probabilities
    return probabilities @ np.eye(len(merge), dtype=probabilities.dtype)[list(merge)]


def predict_split(probabilities: Probabilities, examples: Examples, batch_size: int) -> Iterator[PatientLabels]:
    """Yield each patient's labels `[n, H, W]` uint8, structures the source does not tell apart merged.

    One patient is held in memory at a time.
    """
    dataset, size, view = examples.dataset, examples.view.size, examples.view
    for position in np.unique(examples.patient):
        patient = dataset.patients[position]
        numbers = np.flatnonzero(examples.patient == position)
        step = volume.step_for(dataset.height, dataset.width, patient.spacing_mm, size, view.mm_per_pixel)
        labels = []
        for real, batch in in_order(examples, numbers, batch_size):
            found = np.asarray(probabilities(batch))[: len(real)]
            back = volume.resample_back(found, dataset.height, dataset.width, step)
            labels.append(merged(back, patient.merge).argmax(axis=-1).astype(np.uint8))
        yield PatientLabels(int(position), [examples.index[n][1] for n in numbers], np.concatenate(labels))
