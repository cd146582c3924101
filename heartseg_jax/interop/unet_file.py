"""A whole U-Net from a Keras file: the encoder by `encoder`, decoder and head in the same manner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError
from heartseg_jax.interop import graph, keras_file
from heartseg_jax.interop.encoder import NORM_NAMES, array_of, check_shape, from_file, row
from heartseg_jax.interop.layer import (
    IDLE,
    Layer,
    activation_of,
    check_convolution,
    check_settings,
    check_single_call,
    is_head,
)

ACTIVATIONS = ("linear", "sigmoid", "softmax")
"""What may follow the head; the Flax network stops at the logits before it."""


class KerasUNet(NamedTuple):
    """A U-Net in this project's form.

    Attributes:
      params: the tree of `models.unet.UNet`: encoder, decoder, head; numpy float32.
      batch_stats: likewise.
      width: filters at full resolution.
      levels: stages of the encoder.
      num_classes: channels of the head.
      norm: 'batch' where the decoder has BatchNorm too, else 'encoder'.
      channels: input channels, after the channel rule.
      activation: what the Keras model applies to the logits: one of `ACTIVATIONS`.
      scale: by how much the images that Keras takes are larger than those that this network takes.
      taps: Flax path of a convolution -> the Keras layer with that block's output, in the order in which data passes.
      output: the Keras layer with the model's output.
      rows: one per array of decoder and head, as in `conversion.json`.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    width: int
    levels: int
    num_classes: int
    norm: str
    channels: int
    activation: str
    scale: float
    taps: dict[str, str]
    output: str
    rows: list[dict[str, Any]]


class WayUp(NamedTuple):
    """The layers from the bottom to the output; `stages` and `ups` by level, the deepest first."""

    ups: tuple[Layer, ...]
    stages: tuple[tuple[graph.Block, graph.Block], ...]
    head: Layer
    activation: str
    output: str


def unet_from_file(file: keras_file.KerasFile, channels: int = 3) -> KerasUNet:
    """Return the U-Net of a Keras file that has been read.

    Raises:
      UserError: it has no graph, or is not a U-Net of this project's kind.
    """
    if file.config is None:
        raise UserError("the file has only weights, no graph: what its decoder computes cannot be known from it")
    layers = graph.layers(file.config)
    down = graph.follow(layers)
    up = climb(layers, down)
    encoder = from_file(file, channels)
    params: dict[str, Any] = {"encoder": encoder.params, "decoder": {}}
    batch_stats: dict[str, Any] = {"encoder": encoder.batch_stats}
    rows: list[dict[str, Any]] = []
    for number, (layer, blocks) in enumerate(zip(up.ups, up.stages, strict=True)):
        level = encoder.levels - 2 - number
        stage, filters = f"stage{level + 1}", encoder.width * 2**level
        place = f"decoder/{stage}"
        # Keras keeps the kernel [2, 2, out, in], and so does `UpConv`.
        upward = _convolution(file, layer.name, (2, 2, filters, 2 * filters), filters, f"{place}/up", rows)
        block: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        for index, (part, inputs) in enumerate(zip(blocks, (2 * filters, filters), strict=True), 1):
            where, size = f"{place}/block/conv{index}", (3, 3, inputs, filters)
            block[f"conv{index}"] = _convolution(file, part.conv.name, size, filters, where, rows)
            if part.norm is not None:
                learnt, seen = _norm(file, part.norm.name, filters, f"{place}/block/norm{index}", rows)
                block[f"norm{index}"], statistics[f"norm{index}"] = learnt, seen
        params["decoder"][stage] = {"up": upward, "block": block}
        if statistics:
            batch_stats.setdefault("decoder", {})[stage] = {"block": statistics}
    classes = int(array_of(file, up.head.name, "bias").size)
    shape = (1, 1, encoder.width, classes)
    params["head"] = _convolution(file, up.head.name, shape, classes, "head", rows)
    norm = "batch" if "decoder" in batch_stats else "encoder"
    found = (params, batch_stats, encoder.width, encoder.levels, classes, norm, channels)
    return KerasUNet(*found, up.activation, down.scale, encoder_taps(down) | _decoder_taps(up), up.output, rows)


def encoder_taps(path: graph.Path) -> dict[str, str]:
    """Return, for each convolution of the encoder by its Flax path, the Keras layer with its block's output."""
    return {
        f"encoder/stage{level}/conv{place}": block.last
        for level, stage in enumerate(path.stages, 1)
        for place, block in enumerate(stage, 1)
    }


def _decoder_taps(up: WayUp) -> dict[str, str]:
    taps = {}
    for number, (layer, blocks) in enumerate(zip(up.ups, up.stages, strict=True)):
        place = f"decoder/stage{len(up.ups) - number}"
        taps[f"{place}/up"] = layer.node
        taps |= {f"{place}/block/conv{index}": block.last for index, block in enumerate(blocks, 1)}
    return taps


def climb(layers: Mapping[str, Layer], down: graph.Path) -> WayUp:
    """Walk from the bottom to the output.

    Raises:
      UserError: something on the way computes what this project's decoder does not, naming the layer.
    """
    ups, stages = [], []
    layer = down.stopped_at
    for level in reversed(range(len(down.stages) - 1)):
        layer = graph.skip_idle(layers, layer)
        if layer is None or layer.kind != "Conv2DTranspose":
            raise UserError(
                f"the decoder's stage {level + 1} begins with {_met(layer)}, not with a transposed convolution; "
                "this is not a whole U-Net of this project's kind"
            )
        expected = {"kernel_size": 2, "strides": 2, "dilation_rate": 1, "output_padding": None}
        check_single_call(layer)
        check_settings(layer, expected | {"activation": "linear"})
        ups.append(layer)
        layer = _merge(layers, layer, down.stages[level][1].last)
        pair = []
        for _ in range(2):
            layer = graph.skip_idle(layers, layer)
            if layer is None or layer.kind != "Conv2D" or is_head(layer):
                raise UserError(
                    f"the decoder's stage {level + 1} has {_met(layer)} in place of a 3x3 convolution; "
                    "this project's has 2 in each"
                )
            block, layer = graph.read_block(layers, layer, [], need_norm=False)
            pair.append(block)
        stages.append((pair[0], pair[1]))
    bare = [block.conv.name for stage in stages for block in stage if block.norm is None]
    if bare and len(bare) < 2 * len(stages):
        raise UserError(
            f"only some of the decoder's convolutions have a BatchNormalization ({bare[0]} has none); "
            "this project's decoder has one at each or at none"
        )
    head = graph.skip_idle(layers, layer)
    if head is None or head.kind != "Conv2D" or not is_head(head):
        raise UserError(f"the decoder is followed by {_met(head)}, not by the head's 1x1 convolution")
    check_convolution(head, size=1)
    return WayUp(tuple(ups), tuple(stages), head, *_ending(layers, head))


def _merge(layers: Mapping[str, Layer], up: Layer, skip: str) -> Layer | None:
    """Check that the upsampled image and the skip are joined in this project's order; return the next layer."""
    joined = graph.next_layer(layers, up.node)
    if joined is None or joined.kind != "Concatenate":
        raise UserError(f"'{up.name}' is followed by {_met(joined)}, not by a Concatenate with the skip")
    if joined.config.get("axis", -1) not in (-1, 3):
        raise UserError(f"'{joined.name}' joins along axis {joined.config['axis']}, not along the channels")
    sources = [_source(layers, name) for name in joined.inputs]
    if sources == [skip, up.node]:
        raise UserError(
            f"'{joined.name}' joins [skip, upsampled], this project's decoder [upsampled, skip]: "
            "the kernels after it would meet the wrong channels"
        )
    if sources != [up.node, skip]:
        raise UserError(
            f"'{joined.name}' joins {' and '.join(joined.inputs)}, this project's decoder {up.name} and {skip}"
        )
    return graph.next_layer(layers, joined.node)


def _source(layers: Mapping[str, Layer], node: str) -> str:
    """Return the layer that a skip comes from, past those that do nothing at inference."""
    while node in layers and layers[node].kind in IDLE:
        node = layers[node].inputs[0]
    return node


def _ending(layers: Mapping[str, Layer], head: Layer) -> tuple[str, str]:
    """Return the activation after the head and the layer that has the model's output."""
    activation, last = activation_of("Activation", head.config), head
    after = graph.next_layer(layers, head.node)
    if activation == "linear" and after is not None and after.kind in ("Activation", "Softmax"):
        if after.kind == "Softmax" and after.config.get("axis", -1) not in (-1, 3):
            raise UserError(f"'{after.name}' is a softmax along axis {after.config['axis']}, not over the classes")
        activation = "softmax" if after.kind == "Softmax" else activation_of(after.kind, after.config)
        last, after = after, graph.next_layer(layers, after.node)
    if after is not None:
        raise UserError(f"{_met(after)} follows the head '{head.name}', where this project's network ends")
    if activation not in ACTIVATIONS:
        raise UserError(f"the head '{head.name}' ends in {activation}; known are {', '.join(ACTIVATIONS)}")
    return activation, last.node


def _met(layer: Layer | None) -> str:
    return "the model's end" if layer is None else f"layer '{layer.name}' ({layer.kind})"


def _convolution(
    file: keras_file.KerasFile, name: str, kernel: tuple[int, ...], filters: int, place: str, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return {kernel, bias} of a layer, checked against their shapes; add their rows to the report."""
    arrays = {key: array_of(file, name, key) for key in ("kernel", "bias")}
    check_shape(name, "kernel", arrays["kernel"], kernel, "decoder")
    check_shape(name, "bias", arrays["bias"], (filters,), "decoder")
    rows += [row(name, key, f"{place}/{key}", array) for key, array in arrays.items()]
    return arrays


def _norm(
    file: keras_file.KerasFile, name: str, filters: int, place: str, rows: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return {scale, bias} and {mean, var} of a BatchNormalization."""
    found = {}
    for theirs, ours in NORM_NAMES.items():
        found[ours] = array_of(file, name, theirs)
        check_shape(name, theirs, found[ours], (filters,), "decoder")
        rows.append(row(name, theirs, f"{place}/{ours}", found[ours]))
    return {key: found[key] for key in ("scale", "bias")}, {key: found[key] for key in ("mean", "var")}
