"""One layer of a Keras model's config, and what it must be to compute what this project's layers compute.

Plain JSON in; no weights and no Keras here. How layers follow one another is in `graph`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError

EPSILON = 1e-3
IDLE = (
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"),
)
"""Layers that do nothing at inference."""


class Layer(NamedTuple):
    """One call of a layer.

    Attributes:
      name: the layer's own, under which its weights are stored.
      kind: its class; with the package's name where it is not one of Keras's.
      config: its settings.
      inputs: the calls that feed it, by `node`.
      node: the name of the call: the layer's, with '#1', '#2' ... for the second call of a shared layer and so on.
      calls: how often the model calls the layer.
    """

    name: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[str, ...]
    node: str
    calls: int = 1

    def __str__(self) -> str:
        return f"'{self.name}' ({self.kind})"


def check_convolution(layer: Layer, size: int = 3) -> None:
    """Raise a UserError for anything by which a convolution would compute something else than this project's."""
    check_single_call(layer)
    expected: dict[str, Any] = {"kernel_size": size, "strides": 1, "dilation_rate": 1, "groups": 1}
    check_settings(layer, expected | {"padding": "same"} if size > 1 else expected)


def check_pooling(layer: Layer) -> None:
    """Raise a UserError unless it is the maximum of each 2x2 square."""
    check_settings(layer, {"pool_size": 2, "strides": 2})


def check_norm(layer: Layer) -> None:
    """Raise a UserError unless it is a BatchNormalization over channels with Keras's epsilon."""
    check_single_call(layer)
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, 3):
        raise UserError(f"'{layer.name}' normalises axis {axis}: a channels-first model; save it with channels last")
    epsilon = layer.config.get("epsilon", EPSILON)
    if not isinstance(epsilon, int | float) or abs(epsilon - EPSILON) > 1e-9:
        raise UserError(f"'{layer.name}' has epsilon {epsilon}, this project's encoder 0.001; its output would differ")


def check_single_call(layer: Layer) -> None:
    """Raise a UserError for a layer with weights that the model calls more than once."""
    if layer.calls > 1:
        raise UserError(
            f"layer {layer} is called {layer.calls} times (a recurrent or shared block); this project's networks "
            "have each layer once"
        )


def check_settings(layer: Layer, expected: Mapping[str, Any]) -> None:
    """Raise a UserError unless a layer's settings are those `expected`; what its config leaves out counts as right."""
    if layer.config.get("data_format") == "channels_first":
        raise UserError(f"'{layer.name}' is of a channels-first model; save the model with data_format='channels_last'")
    for key, value in expected.items():
        given = layer.config.get(key, value)
        if given is None and key == "strides":
            given = value  # Keras: strides of a pooling default to its size
        same = all(part == value for part in given) if isinstance(given, list | tuple) else given == value
        if not same:
            raise UserError(f"'{layer.name}' has {key}={given}, this project's has {value}; its output would differ")


def is_head(layer: Layer) -> bool:
    """Return whether a convolution is a head's: 1x1."""
    return layer.config.get("kernel_size") in (1, [1, 1], (1, 1))


def activation_of(kind: str, config: Mapping[str, Any]) -> str:
    """Return what a layer, or an activation object, computes: 'relu' for a plain ReLU however it is written.

    Otherwise the activation's name, with the settings by which it is no plain ReLU.
    """
    if kind == "Activation":
        given = config.get("activation", "linear")
        if not isinstance(given, Mapping):
            return str(given)
        inner = given.get("config")
        if isinstance(inner, Mapping):
            return activation_of(str(given.get("class_name")), inner)
        return str(inner or given.get("class_name"))
    if kind == "Relu" or (kind == "TFOpLambda" and config.get("function") == "nn.relu"):
        return "relu"
    if kind not in ("ReLU", "LeakyReLU"):
        return kind
    settings = {key: _number(config.get(key)) for key in ("negative_slope", "alpha", "threshold")}
    if kind == "LeakyReLU" and not {"negative_slope", "alpha"} & set(config):
        settings["negative_slope"] = 0.3  # Keras's default
    bent = {key: value for key, value in settings.items() if value}
    if config.get("max_value") is not None:
        bent["max_value"] = _number(config["max_value"])
    return f"{kind} with {', '.join(f'{key}={value:g}' for key, value in bent.items())}" if bent else "relu"


def input_scale(layer: Layer) -> float:
    """Return by how much the images that a Rescaling takes are larger than what it gives: 1 or 255.

    This project's images come as 0 to 1, so a Rescaling of 0 to 255 is already done by the input contract. Nothing
    else is exact: after a shift, the zeros that pad the borders would have to be shifted too.

    Raises:
      UserError: it scales by something else, or shifts.
    """
    scale, offset = (_number(layer.config.get(key, default)) for key, default in (("scale", 1.0), ("offset", 0.0)))
    for factor in (1.0, 255.0):
        if offset == 0 and math.isclose(scale, 1 / factor, rel_tol=1e-6):
            return factor
    raise UserError(
        f"layer {layer} before the first convolution computes {scale:g} * x + {offset:g}; images come as 0 to 1 here, "
        "which is exact only for 0 to 255 scaled by 1/255: retrain or save the model without it"
    )


def _number(value: Any) -> float:
    """Return a setting as a number (Keras 2 wrote some as {'value': 0.0}), NaN where it is not one."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("config"))
    if value is None:
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
