"""Names of the variables and layers in Keras files, and what layers leave out. No files here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heartseg_jax.errors import UserError

NAMED = {
    "Conv2D": ("kernel", "bias"),
    "Conv2DTranspose": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""What `vars/0`, `vars/1` ... are, where a file only numbers them."""

NEUTRAL = {"bias": ("use_bias", 0.0), "gamma": ("scale", 1.0), "beta": ("center", 0.0)}
"""Variables that a setting leaves out, and the value with which a layer computes exactly the same."""


def own_name(layer: Mapping[str, Any]) -> str:
    """Return a layer's name from its serialised form."""
    return str(layer.get("config", {}).get("name", layer.get("name")))


def named(kind: str, layer: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Give numbered variables their names; a layer without bias, centre or scale has fewer."""
    config = layer.get("config", {})
    names = [name for name in NAMED[kind] if name not in NEUTRAL or config.get(NEUTRAL[name][0], True)]
    return dict(zip(names, arrays, strict=False))


def in_order(numbered: Mapping[str, list[np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """Name the variables of weights that come without a config, in the order in which Keras numbered their layers."""
    kinds = {snake_case(kind): names for kind, names in NAMED.items()}
    weights = {}
    for name in sorted(numbered, key=class_and_number):
        arrays = numbered[name]
        names = kinds.get(class_and_number(name)[0]) or [str(number) for number in range(len(arrays))]
        if "gamma" in names and 0 < len(arrays) < len(names):
            raise UserError(
                f"the file has {len(arrays)} variables for '{name}', a BatchNormalization without scale or center, and "
                "no graph to show which; save the whole model (model.save('model.keras'))"
            )
        weights[name] = dict(zip(names, arrays, strict=False))
    return weights


def complete(
    weights: Mapping[str, Mapping[str, np.ndarray]], layers: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """Return the weights with what the settings of `layers` leave out, and 'layer/variable' of what was added.

    Where there are no settings, a kernel without a bias shows that there is none.
    """
    settings = {own_name(layer): layer.get("config", {}) for layer in layers}
    found: dict[str, dict[str, np.ndarray]] = {name: dict(arrays) for name, arrays in weights.items()}
    added = []
    for name, arrays in found.items():
        transposed = arrays.get("kernel", np.empty(0)).ndim == 4 and "transpose" in str(name)
        for variable, (switch, value) in NEUTRAL.items():
            beside = arrays.get("kernel" if variable == "bias" else "moving_variance")
            absent = settings[name].get(switch) is False if name in settings else variable == "bias"
            if variable not in arrays and beside is not None and absent and beside.ndim in (1, 4):
                size = beside.shape[2 if transposed else -1]
                arrays[variable] = np.full(size, value, np.float32)
                added.append(f"{name}/{variable}")
    return found, tuple(added)


def class_and_number(name: str) -> tuple[str, int]:
    """Return the class and the number in a name such as conv2d_7."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore[union-attr]
    return stem, int(number or 0)


def snake_case(name: str) -> str:
    """Return a class's name as Keras 3 writes it in files: Conv2DTranspose -> conv2d_transpose."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
