"""The arrays of a Keras file put into their places in this project's network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.interop.keras_file import KerasFile
from heartseg_jax.models.tree import nested

NORM_NAMES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}


class Slot(NamedTuple):
    """One array's place: the layer and variable in Keras, this project's path, and the shape it must have."""

    layer: str
    variable: str
    path: str
    shape: tuple[int, ...]


def conv_slots(layer: str, path: str, kernel: tuple[int, ...], filters: int) -> list[Slot]:
    """Return the places of a convolution's kernel and bias."""
    return [Slot(layer, "kernel", f"{path}/kernel", kernel), Slot(layer, "bias", f"{path}/bias", (filters,))]


def block_slots(blocks: Iterable[tuple[str, str | None]], path: str, inputs: int, filters: int) -> list[Slot]:
    """Return the places of a stage's (convolution, norm or None) pairs."""
    slots: list[Slot] = []
    for number, (conv, norm) in enumerate(blocks, 1):
        slots += conv_slots(conv, f"{path}/conv{number}", (3, 3, inputs, filters), filters)
        if norm is not None:
            slots += [Slot(norm, key, f"{path}/norm{number}/{name}", (filters,)) for key, name in NORM_NAMES.items()]
        inputs = filters
    return slots


def fill(file: KerasFile, slots: Iterable[Slot]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (params, batch_stats) of the arrays in their places.

    Raises:
      UserError: an array is missing, not finite or of another shape, naming it and both shapes.
    """
    leaves: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for layer, variable, path, expected in slots:
        array = array_of(file, layer, variable)
        if variable == "kernel":
            check_rank(layer, array)
        if array.shape != expected:
            place = path.partition("/")[0]
            raise UserError(
                f"'{layer}' {variable} is {_size(array.shape)}, its place in the {place} is {_size(expected)}"
            )
        if variable == "moving_variance" and array.min() < 0:
            raise UserError(f"'{layer}' has a negative moving_variance; the file is damaged")
        leaves[variable.startswith("moving_")][path] = array
    return nested(leaves[0]), nested(leaves[1])


def array_of(file: KerasFile, layer: str, name: str) -> np.ndarray:
    """Return one array as finite float32, or raise a UserError."""
    arrays = file.weights.get(layer, {})
    if name not in arrays:
        what = "its BatchNorm statistics are missing: " if name.startswith("moving_") else ""
        has = ", ".join(arrays) or "nothing"
        raise UserError(f"'{layer}' lacks {name}: {what}the file has {has} for it; save the whole model again")
    array = arrays[name].astype(np.float32)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise UserError(f"'{layer}' {name} holds {bad} NaN or infinite values; the training that made it had diverged")
    return array


def check_rank(layer: str, kernel: np.ndarray) -> None:
    """Raise a UserError unless a kernel has the axes of a convolution's, channels last."""
    if kernel.ndim != 4:
        raise UserError(f"'{layer}' kernel is {_size(kernel.shape)}; a convolution's has 4 axes")
    if kernel.shape[:2] != (3, 3) and kernel.shape[2:] == (3, 3):
        raise UserError(
            f"'{layer}' kernel is {_size(kernel.shape)}: out, in, rows, columns, as in a channels-first model; "
            "save the model with channels last (rows, columns, in, out)"
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
