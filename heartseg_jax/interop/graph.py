"""The graph in a Keras model's config: which layer follows which, and the path down to the encoder's bottom.

Plain JSON in, plain records out; no weights and no Keras here. What a single layer must be is in `layer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError
from heartseg_jax.interop.layer import (
    IDLE,
    Layer,
    activation_of,
    check_convolution,
    check_norm,
    check_pooling,
    input_scale,
    is_head,
)

UPSAMPLING = ("Conv2DTranspose", "UpSampling2D")
MERGES = ("Concatenate", "Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")


class Block(NamedTuple):
    """A convolution with its BatchNorm (None where there is none) and the ReLU after them."""

    conv: Layer
    norm: Layer | None
    last: str
    """Node of the layer whose output is the block's."""


class Path(NamedTuple):
    """The encoder's path through the graph.

    Attributes:
      stages: two blocks each, finest first.
      stopped_at: the layer after the deepest block; None at the model's end.
      scale: by how much the images that Keras takes are larger than those that the encoder takes (255 or 1).
      notes: which layers were left out, and why that changes nothing.
    """

    stages: tuple[tuple[Block, Block], ...]
    stopped_at: Layer | None
    scale: float
    notes: tuple[str, ...]

    @property
    def taps(self) -> dict[str, str]:
        """For each convolution of the encoder by its Flax path, the node with its block's output."""
        return {
            f"encoder/stage{level}/conv{place}": block.last
            for level, stage in enumerate(self.stages, 1)
            for place, block in enumerate(stage, 1)
        }


def layers(config: Mapping[str, Any]) -> dict[str, Layer]:
    """Return the calls of a serialised model's layers by node, in its order.

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
        if ">" in str(entry.get("registered_name") or ""):
            kind = str(entry["registered_name"])  # a class of the user's own may be called Conv2D too
        name = str(entry.get("name") or settings.get("name"))
        if kind == "Lambda" or kind.endswith(">Lambda"):
            raise UserError(
                f"layer '{name}' is a Lambda: code stored in the file, which is never run; "
                "rebuild the model without it and save that"
            )
        if kind in ("Functional", "Model", "Sequential"):
            raise UserError(f"layer '{name}' is a whole model inside the model; save the inner model and convert that")
        nodes = entry.get("inbound_nodes") or []
        calls = [previous] if sequential else [tuple(_sources(node)) for node in nodes] or [()]
        for number, feeds in enumerate(calls):
            node = _node(name, number)
            found[node] = Layer(name, kind, settings, feeds, node, len(calls))
        previous = (name,)
    # Of a layer that is called once it does not matter how often another model called it.
    once = {layer.name for layer in found.values() if layer.calls == 1}
    plain = lambda node: node.partition("#")[0] if node.partition("#")[0] in once else node  # noqa: E731
    return {node: layer._replace(inputs=tuple(map(plain, layer.inputs))) for node, layer in found.items()}


def _node(name: str, number: int) -> str:
    return f"{name}#{number}" if number else name


def _sources(node: Any) -> list[str]:
    """Return the nodes that feed a call, in the order of its inputs, from Keras 2's or 3's form."""
    if isinstance(node, Mapping):
        if "keras_history" in node:
            return _sources(list(node["keras_history"]))
        return [name for part in node.values() for name in _sources(part)]
    if isinstance(node, list):
        # Keras 2: [name, node_index, tensor_index, kwargs]
        if len(node) >= 3 and isinstance(node[0], str) and all(isinstance(part, int) for part in node[1:3]):
            return [_node(node[0], node[1])]
        return [name for part in node for name in _sources(part)]
    return []


def consumers(graph: Mapping[str, Layer], node: str) -> list[Layer]:
    """Return the calls that read a call's output."""
    return [layer for layer in graph.values() if node in layer.inputs]


def follow(graph: Mapping[str, Layer]) -> Path:
    """Walk from the input to the deepest block: before the first upsampling, or the model's end where there is none.

    Raises:
      UserError: there is no such way, or something on it computes what this project's encoder does not.
    """
    notes: list[str] = []
    scale, first = _entrance(graph, notes)
    layer: Layer | None = first
    stages: list[list[Block]] = [[]]
    while layer is not None and layer.kind not in UPSAMPLING:
        if layer.kind == "Conv2D":
            if is_head(layer):
                _check_is_last(graph, layer)
                break
            block, layer = read_block(graph, layer, notes, need_norm=True)
            stages[-1].append(block)
        elif layer.kind == "MaxPooling2D":
            check_pooling(layer)
            stages.append([])
            layer = skip_idle(graph, next_layer(graph, layer.node), notes)
        elif layer.kind in MERGES:
            raise UserError(
                f"layer {layer} merges two paths before the decoder begins (a residual, dense or recurrent block); "
                "this project's encoder has none"
            )
        else:
            raise UserError(f"layer {layer} in the encoder has no counterpart in this project's")
    if len(stages) < 2 or not stages[0]:
        kinds = ", ".join(sorted({entry.kind for entry in graph.values()})[:6])
        raise UserError(
            f"the model has no encoder: it has no convolutions with max pooling between them (only {kinds})"
        )
    for number, stage in enumerate(stages, 1):
        if len(stage) != 2:
            names = ", ".join(block.conv.name for block in stage) or "none"
            raise UserError(
                f"stage {number} of the encoder has {len(stage)} convolutions ({names}), this project's has 2 in each"
            )
    return Path(tuple((a, b) for a, b in stages), layer, scale, tuple(notes))


def _entrance(graph: Mapping[str, Layer], notes: list[str]) -> tuple[float, Layer]:
    """Return the scale of the images that Keras takes, and the first convolution."""
    starts = [layer for layer in graph.values() if not layer.inputs]
    if len(starts) != 1:
        raise UserError(
            f"the model has {len(starts)} inputs, an encoder has one: {', '.join(s.name for s in starts[:4])}"
        )
    scale = 1.0
    layer: Layer | None = starts[0] if starts[0].kind != "InputLayer" else next_layer(graph, starts[0].node)
    while (layer := skip_idle(graph, layer, notes)) is not None and layer.kind == "Rescaling":
        scale *= input_scale(layer)
        notes.append(f"{layer.name} (Rescaling) was left out: images come as 0 to 1 here")
        layer = next_layer(graph, layer.node)
    if layer is None:
        raise UserError("the model has no encoder: no convolution follows its input")
    if layer.kind != "Conv2D":
        raise UserError(
            f"the model has no encoder of this project's kind: layer {layer} comes before the first "
            "convolution; save the model from the next layer on"
        )
    return scale, layer


def _check_is_last(graph: Mapping[str, Layer], head: Layer) -> None:
    """Raise a UserError where the encoder goes on after a 1x1 convolution."""
    layer = next_layer(graph, head.node)
    while layer is not None and layer.kind not in UPSAMPLING:
        if layer.kind in ("Conv2D", "MaxPooling2D"):
            raise UserError(f"'{head.name}' is a 1x1 convolution inside the encoder; this project's encoder has none")
        layer = next_layer(graph, layer.node)


def met(layer: Layer | None) -> str:
    """Return what a message calls a layer, or the lack of one."""
    return "the model's end" if layer is None else f"layer {layer}"


def next_layer(graph: Mapping[str, Layer], node: str) -> Layer | None:
    """Return the layer that follows in the encoder; skip connections to a merging layer are ignored."""
    found = [layer for layer in consumers(graph, node) if layer.kind not in MERGES]
    if len(found) > 1:
        raise UserError(f"the model forks after '{node}' into {' and '.join(f.node for f in found)}; a U-Net does not")
    return found[0] if found else next(iter(consumers(graph, node)), None)


def skip_idle(graph: Mapping[str, Layer], layer: Layer | None, notes: list[str] | None = None) -> Layer | None:
    """Return the first layer from here on that does something at inference; add what was passed to `notes`."""
    while layer is not None and layer.kind in IDLE:
        if notes is not None:
            notes.append(f"{layer.name} ({layer.kind}) does nothing at inference and was left out")
        layer = next_layer(graph, layer.node)
    return layer


def read_block(
    graph: Mapping[str, Layer], conv: Layer, notes: list[str], *, need_norm: bool
) -> tuple[Block, Layer | None]:
    """Return the block that begins at a convolution, and the next layer that does something at inference."""
    check_convolution(conv)
    activation, norm, last = activation_of("Activation", conv.config), None, conv.node
    layer = skip_idle(graph, next_layer(graph, last), notes)
    if layer is not None and layer.kind == "BatchNormalization":
        if activation != "linear":
            raise UserError(
                f"'{conv.name}' applies {activation} before its BatchNormalization '{layer.name}'; "
                "this project's networks apply it after"
            )
        check_norm(layer)
        norm, last = layer, layer.node
        layer = skip_idle(graph, next_layer(graph, last), notes)
    elif need_norm:
        raise UserError(
            f"'{conv.name}' is followed by {met(layer)}, not by a BatchNormalization as in the brain model's encoder"
        )
    if activation == "linear":
        activation = "linear (the model's end)" if layer is None else activation_of(layer.kind, layer.config)
        if activation != "relu":
            where = f" of layer '{layer.name}'" if layer is not None else ""
            raise UserError(
                f"'{conv.name}' is followed by {activation}{where}; this project's networks have a plain ReLU there"
            )
        assert layer is not None
        last = layer.node
        layer = skip_idle(graph, next_layer(graph, last), notes)
    elif activation != "relu":
        raise UserError(f"'{conv.name}' applies {activation}; this project's networks have a plain ReLU")
    return Block(conv, norm, last), layer
