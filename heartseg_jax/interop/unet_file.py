"""A whole U-Net from a Keras file: the encoder by `encoder`, decoder and head in the same manner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from heartseg_jax.errors import UserError
from heartseg_jax.interop import graph, keras_file
from heartseg_jax.interop.encoder import from_file
from heartseg_jax.interop.layer import (
    IDLE,
    Layer,
    activation_of,
    check_convolution,
    check_settings,
    check_single_call,
    is_head,
)
from heartseg_jax.interop.slots import array_of, block_slots, conv_slots, fill
from heartseg_jax.models.unet import UNet

ACTIVATIONS = ("linear", "sigmoid", "softmax")
"""What may follow the head; the Flax network stops at the logits before it."""


class KerasUNet(NamedTuple):
    """A U-Net in this project's form.

    Attributes:
      model: the network.
      variables: its params and batch_stats, numpy float32.
      activation: what the Keras model applies to the logits: one of `ACTIVATIONS`.
      taps: Flax path of a convolution -> the Keras layer with that block's output, in the order in which data passes;
        and last 'output' -> the Keras layer with the model's output.
    """

    model: UNet
    variables: dict[str, Any]
    activation: str
    taps: dict[str, str]


def unet_from_file(file: keras_file.KerasFile, channels: int = 3) -> KerasUNet:
    """Return the U-Net of a Keras file that has been read.

    Raises:
      UserError: it has no graph, or is not a U-Net of this project's kind.
    """
    if file.config is None:
        raise UserError("the file has only weights, no graph: what its decoder computes cannot be known from it")
    layers = graph.layers(file.config)
    down = graph.follow(layers)
    up, head, activation, output = climb(layers, down)
    encoder = from_file(file, channels)
    taps, slots = dict(down.taps), []
    for level, (layer, *blocks) in zip(reversed(range(encoder.levels - 1)), up, strict=True):
        place, filters = f"decoder/stage{level + 1}", encoder.width * 2**level
        # Keras keeps the kernel [2, 2, out, in], and so does `UpConv`.
        slots += conv_slots(layer.name, f"{place}/up", (2, 2, filters, 2 * filters), filters)
        pairs = [(block.conv.name, block.norm and block.norm.name) for block in blocks]
        slots += block_slots(pairs, f"{place}/block", 2 * filters, filters)
        taps[f"{place}/up"] = layer.node
        taps |= {f"{place}/block/conv{number}": block.last for number, block in enumerate(blocks, 1)}
    classes = int(array_of(file, head.name, "bias").size)
    slots += conv_slots(head.name, "head", (1, 1, encoder.width, classes), classes)
    params, batch_stats = fill(file, slots)
    variables = {
        "params": {"encoder": encoder.params, **params},
        "batch_stats": {"encoder": encoder.batch_stats, **batch_stats},
    }
    model = UNet(encoder.width, encoder.levels, classes, norm="batch" if batch_stats else "encoder")
    return KerasUNet(model, variables, activation, taps | {"output": output})


def climb(
    layers: Mapping[str, Layer], down: graph.Path
) -> tuple[list[tuple[Layer, graph.Block, graph.Block]], Layer, str, str]:
    """Walk from the bottom to the output; return the decoder's stages, the deepest first, the head, and its `_ending`.

    Raises:
      UserError: something on the way computes what this project's decoder does not, naming the layer.
    """
    stages = []
    layer = down.stopped_at
    for level in reversed(range(len(down.stages) - 1)):
        layer = graph.skip_idle(layers, layer)
        if layer is None or layer.kind != "Conv2DTranspose":
            raise UserError(
                f"the decoder's stage {level + 1} begins with {graph.met(layer)}, not with a transposed convolution; "
                "this is not a whole U-Net of this project's kind"
            )
        expected = {"kernel_size": 2, "strides": 2, "dilation_rate": 1, "output_padding": None}
        check_single_call(layer)
        check_settings(layer, expected | {"activation": "linear"})
        up = layer
        layer = _merge(layers, up, down.stages[level][1].last)
        pair = []
        for _ in range(2):
            layer = graph.skip_idle(layers, layer)
            if layer is None or layer.kind != "Conv2D" or is_head(layer):
                raise UserError(
                    f"the decoder's stage {level + 1} has {graph.met(layer)} in place of a 3x3 convolution; "
                    "this project's has 2 in each"
                )
            block, layer = graph.read_block(layers, layer, [], need_norm=False)
            pair.append(block)
        stages.append((up, pair[0], pair[1]))
    bare = [block.conv.name for _, *pair in stages for block in pair if block.norm is None]
    if bare and len(bare) < 2 * len(stages):
        raise UserError(
            f"only some of the decoder's convolutions have a BatchNormalization ({bare[0]} has none); "
            "this project's decoder has one at each or at none"
        )
    head = graph.skip_idle(layers, layer)
    if head is None or head.kind != "Conv2D" or not is_head(head):
        raise UserError(f"the decoder is followed by {graph.met(head)}, not by the head's 1x1 convolution")
    check_convolution(head, size=1)
    return stages, head, *_ending(layers, head)


def _merge(layers: Mapping[str, Layer], up: Layer, skip: str) -> Layer | None:
    """Check that the upsampled image and the skip are joined in this project's order; return the next layer."""
    joined = graph.next_layer(layers, up.node)
    if joined is None or joined.kind != "Concatenate":
        raise UserError(f"'{up.name}' is followed by {graph.met(joined)}, not by a Concatenate with the skip")
    if joined.config.get("axis", -1) not in (-1, 3):
        raise UserError(f"'{joined.name}' joins along axis {joined.config['axis']}, not along the channels")
    sources = list(joined.inputs)
    for place, node in enumerate(sources):
        while node in layers and layers[node].kind in IDLE:
            sources[place] = node = layers[node].inputs[0]
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
        raise UserError(f"{graph.met(after)} follows the head '{head.name}', where this project's network ends")
    if activation not in ACTIVATIONS:
        raise UserError(f"the head '{head.name}' ends in {activation}; known are {', '.join(ACTIVATIONS)}")
    return activation, last.node
