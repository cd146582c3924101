"""The graph in a Keras model's config: which layer follows which, and the path down to the encoder's bottom.

Plain JSON in, plain records out; no weights and no Keras here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError

UPSAMPLING = ("Conv2DTranspose", "UpSampling2D")
MERGES = ("Concatenate", "Add", "Average", "Maximum")
IDLE = ("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization")
"""Layers that do nothing at inference."""


class Layer(NamedTuple):
    """One layer: `inputs` are the names of the layers that feed it."""

    name: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[str, ...]


class Block(NamedTuple):
    """A convolution with its BatchNorm (None where there is none) and the activation behind them."""

    conv: Layer
    norm: Layer | None
    activation: str
    last: str
    """Name of the layer whose output is the block's."""


class Path(NamedTuple):
    """The way down: stages of two blocks each, the layer it stopped at (None at the model's end), and notes."""

    stages: tuple[tuple[Block, Block], ...]
    stopped_at: Layer | None
    notes: tuple[str, ...]


def layers(config: Mapping[str, Any]) -> dict[str, Layer]:
    """Return a serialised model's layers by name, in its order.

    Raises:
      UserError: it has a Lambda layer (code in a file), a model within the model, or cannot be understood.
    """
    inner = config.get("config")
    raw = inner.get("layers", []) if isinstance(inner, Mapping) else inner
    sequential = config.get("class_name") == "Sequential"
    found: dict[str, Layer] = {}
    previous: tuple[str, ...] = ()
    if not isinstance(raw, list) or not raw:
        raise UserError(
            f"the model '{config.get('class_name')}' lists no layers; save a Functional or Sequential model"
        )
    for entry in raw:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping):
            raise UserError("the model's config has a layer that cannot be understood; save the whole model again")
        kind, settings = str(entry.get("class_name")), dict(entry["config"])
        name = str(entry.get("name") or settings.get("name"))
        if kind == "Lambda" or kind.endswith(">Lambda"):
            raise UserError(
                f"layer '{name}' is a Lambda: code stored in the file, which is never run; "
                "rebuild the model without it and save that"
            )
        if kind in ("Functional", "Model", "Sequential"):
            raise UserError(f"layer '{name}' is a whole model inside the model; save the inner model and convert that")
        feeds = previous if sequential else tuple(_sources(entry.get("inbound_nodes") or []))
        found[name] = Layer(name, kind, settings, feeds)
        previous = (name,)
    return found


def _sources(node: Any) -> list[str]:
    """Return the names of the layers that feed a layer, in the order of its inputs, from Keras 2's or 3's form."""
    if isinstance(node, Mapping):
        if "keras_history" in node:
            return [str(node["keras_history"][0])]
        return [name for part in node.values() for name in _sources(part)]
    if isinstance(node, list):
        # Keras 2: [name, node_index, tensor_index, kwargs]
        if len(node) >= 3 and isinstance(node[0], str) and all(isinstance(part, int) for part in node[1:3]):
            return [node[0]]
        return [name for part in node for name in _sources(part)]
    return []


def consumers(graph: Mapping[str, Layer], name: str) -> list[Layer]:
    """Return the layers that read a layer's output."""
    return [layer for layer in graph.values() if name in layer.inputs]


def follow(graph: Mapping[str, Layer]) -> Path:
    """Walk from the input to the deepest block: before the first upsampling, or the model's end where there is none.

    Raises:
      UserError: there is no such way, or something on it computes what this project's encoder does not.
    """
    starts = [layer for layer in graph.values() if not layer.inputs]
    if len(starts) != 1:
        raise UserError(
            f"the model has {len(starts)} inputs, an encoder has one: {', '.join(s.name for s in starts[:4])}"
        )
    notes: list[str] = []
    stages: list[list[Block]] = [[]]
    layer: Layer | None = starts[0] if starts[0].kind != "InputLayer" else next_layer(graph, starts[0].name)
    while layer is not None and layer.kind not in UPSAMPLING:
        if layer.kind == "Conv2D":
            if is_head(layer):
                break
            block, layer = read_block(graph, layer, need_norm=True)
            stages[-1].append(block)
        elif layer.kind == "MaxPooling2D":
            check_pooling(layer)
            stages.append([])
            layer = next_layer(graph, layer.name)
        elif layer.kind in IDLE:
            notes.append(f"{layer.name} ({layer.kind}) does nothing at inference and was left out")
            layer = next_layer(graph, layer.name)
        elif layer.kind in MERGES or not any(stages):
            break
        else:
            raise UserError(
                f"layer '{layer.name}' ({layer.kind}) on the way down has no place in this project's encoder"
            )
    if len(stages) < 2 or not stages[0]:
        met = ", ".join(sorted({entry.kind for entry in graph.values()})[:6])
        raise UserError(
            f"the model has no encoder: no convolutions with max pooling between them lie in it (it has {met})"
        )
    for number, stage in enumerate(stages, 1):
        if len(stage) != 2:
            names = ", ".join(block.conv.name for block in stage) or "none"
            raise UserError(
                f"stage {number} of the encoder has {len(stage)} convolutions ({names}), this project's has 2 in each"
            )
    return Path(tuple((a, b) for a, b in stages), layer, tuple(notes))


def next_layer(graph: Mapping[str, Layer], name: str) -> Layer | None:
    """Return the layer that follows on the way down: skips to a merging layer are passed over."""
    found = [layer for layer in consumers(graph, name) if layer.kind not in MERGES]
    if len(found) > 1:
        raise UserError(f"the model forks behind '{name}' into {' and '.join(f.name for f in found)}; a U-Net does not")
    return found[0] if found else next(iter(consumers(graph, name)), None)


def read_block(graph: Mapping[str, Layer], conv: Layer, *, need_norm: bool) -> tuple[Block, Layer | None]:
    """Return the block that begins at a convolution, and the layer behind it."""
    check_convolution(conv)
    activation, norm, last = str(name_of(conv.config.get("activation", "linear"))), None, conv.name
    layer = next_layer(graph, last)
    if layer is not None and layer.kind == "BatchNormalization":
        if activation != "linear":
            raise UserError(
                f"'{conv.name}' applies {activation} before its BatchNormalization '{layer.name}'; "
                "this project's networks apply it behind"
            )
        check_norm(layer)
        norm, last = layer, layer.name
        layer = next_layer(graph, last)
    elif need_norm:
        raise UserError(f"'{conv.name}' has no BatchNormalization behind it; the brain model's encoder has one at each")
    if activation == "linear" and layer is not None and layer.kind in ("Activation", "ReLU"):
        activation = "relu" if layer.kind == "ReLU" else str(name_of(layer.config.get("activation")))
        # ReLU's own options default to none of these.
        if layer.kind == "ReLU" and any(layer.config.get(k) for k in ("max_value", "negative_slope", "threshold")):
            raise UserError(f"'{layer.name}' is a ReLU with a ceiling, slope or threshold; this project's has none")
        last = layer.name
        layer = next_layer(graph, last)
    if activation != "relu":
        raise UserError(f"the activation behind '{conv.name}' is {activation}, this project's networks have relu")
    return Block(conv, norm, activation, last), layer


def check_convolution(layer: Layer, size: int = 3) -> None:
    """Raise a UserError for anything by which a convolution would compute something else than this project's."""
    expected: dict[str, Any] = {"kernel_size": size, "strides": 1, "dilation_rate": 1, "groups": 1, "use_bias": True}
    check_settings(layer, expected | {"padding": "same"} if size > 1 else expected)


def check_pooling(layer: Layer) -> None:
    """Raise a UserError unless it is the maximum of each 2x2 square."""
    check_settings(layer, {"pool_size": 2, "strides": 2})


def check_norm(layer: Layer) -> None:
    """Raise a UserError unless it is a BatchNormalization over channels with Keras's epsilon and both parameters."""
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, 3):
        raise UserError(f"'{layer.name}' normalises axis {axis}: a channels-first model; save it with channels last")
    epsilon = layer.config.get("epsilon", 1e-3)
    if abs(epsilon - 1e-3) > 1e-9:
        raise UserError(f"'{layer.name}' has epsilon {epsilon}, this project's encoder 0.001; its output would differ")
    check_settings(layer, {"center": True, "scale": True})


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
    size = layer.config.get("kernel_size")
    return size in (1, [1, 1], (1, 1))


def name_of(activation: Any) -> Any:
    """Return an activation's name: text, or a serialised object's."""
    if isinstance(activation, Mapping):
        config = activation.get("config")
        return config if isinstance(config, str) else activation.get("class_name", "unknown")
    return activation
