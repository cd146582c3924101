"""What a U-Net of `unet.py` costs, by arithmetic: receptive field, parameters, FLOPs, memory of a step.

No network is built here, so `check` answers before anything is compiled; tests compare it with real trees.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401 (numpy then knows bfloat16)
import numpy as np

from heartseg_jax.anatomy import LabelSet

FLOAT32_BYTES = 4

NORMS = ("none", "batch", "encoder")
"""Where a U-Net normalises: nowhere, everywhere, or in its encoder."""


class LayerCost(NamedTuple):
    """One layer's cost for one image. `outputs` counts elements; `flops` counts a multiply-add as two.

    `arrays` are the shapes of the layer's arrays by name: `kernel` and `bias`, or `bias`, `scale`, `mean` and `var`.
    """

    path: str
    parameters: int
    statistics: int
    flops: int
    outputs: int
    arrays: Mapping[str, tuple[int, ...]]


class Shape(NamedTuple):
    """What the cost of a U-Net depends on, besides the image's size: channels of the image, and `UNet`'s attributes."""

    channels: int
    width: int
    levels: int
    num_classes: int
    norm: str
    fold: int = 1


STATISTICS = ("mean", "var")
"""Names of BatchNorm's running statistics."""


def shape_of(model: Any, labels: LabelSet, channels: int) -> Shape:
    """Return what the cost of the network of a config's `model` group depends on, for images of `channels` channels."""
    return Shape(channels, model.width, model.levels, labels.num_classes, model.norm, model.fold)


def layer_costs(height: int, columns: int, shape: Shape) -> list[LayerCost]:
    """Return every layer with weights, in the order in which data passes, for an image of `height` x `columns` pixels.

    Raises:
        ValueError: the norm is unknown.
    """
    channels, width, levels, num_classes, norm, fold = shape
    height, columns, channels = height // fold, columns // fold, channels * fold**2
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is unknown; choose one of {', '.join(NORMS)}")
    costs: list[LayerCost] = []

    def convolution(path: str, side: int, inputs: int, outputs: int, input_pixels: int, pixels: int) -> None:
        # Each input channel of `input_pixels` positions meets side * side * outputs weights.
        weights = side * side * inputs * outputs
        ends = (outputs, inputs) if side == 2 else (inputs, outputs)  # a transposed convolution's are the other way
        arrays = {"bias": (outputs,), "kernel": (side, side, *ends)}
        costs.append(LayerCost(path, weights + outputs, 0, 2 * input_pixels * weights, pixels * outputs, arrays))

    def block(path: str, inputs: int, outputs: int, pixels: int, normed: bool) -> None:
        for index, source in ((1, inputs), (2, outputs)):
            convolution(f"{path}/conv{index}", 3, source, outputs, pixels, pixels)
            if normed:
                # Scale and shift are one multiply-add an element.
                size = pixels * outputs
                arrays = dict.fromkeys(("bias", "scale", *STATISTICS), (outputs,))
                costs.append(LayerCost(f"{path}/norm{index}", 2 * outputs, 2 * outputs, 2 * size, size, arrays))

    filters = [width * 2**level for level in range(levels)]
    pixels = [(height >> level) * (columns >> level) for level in range(levels)]
    for level in range(levels):
        inputs = channels if level == 0 else filters[level - 1]
        block(f"encoder/stage{level + 1}", inputs, filters[level], pixels[level], norm != "none")
    for level in reversed(range(levels - 1)):
        path = f"decoder/stage{level + 1}"
        convolution(f"{path}/up", 2, filters[level + 1], filters[level], pixels[level + 1], pixels[level])
        block(f"{path}/block", 2 * filters[level], filters[level], pixels[level], norm == "batch")
    # Each place of the head gives `fold` x `fold` pixels, which share the bias of their class.
    outputs = num_classes * fold**2
    weights = width * outputs
    arrays = {"bias": (num_classes,), "kernel": (1, 1, width, outputs)}
    costs.append(LayerCost("head", weights + num_classes, 0, 2 * pixels[0] * weights, pixels[0] * outputs, arrays))
    return costs


def array_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of the network by its path, `params/...` and `batch_stats/...`, sorted."""
    side = shape.fold * 2 ** (shape.levels - 1)
    found = {
        f"{'batch_stats' if name in STATISTICS else 'params'}/{layer.path}/{name}": array
        for layer in layer_costs(side, side, shape)
        for name, array in layer.arrays.items()
    }
    return dict(sorted(found.items()))


def forward_flops(height: int, columns: int, shape: Shape) -> int:
    """Return the FLOPs of one image's forward pass: convolutions and BatchNorm, a multiply-add counted as two.

    Bias, ReLU, pooling and the softmax are left out (below 1 % together). A training step costs about three times
    as much: the backward pass multiplies once for the inputs and once for the kernels.
    """
    return sum(cost.flops for cost in layer_costs(height, columns, shape))


def step_flops(height: int, columns: int, shape: Shape, frozen: Collection[str] = ()) -> int:
    """Return the FLOPs per image of a training step, counted as `forward_flops` counts.

    A layer multiplies once forward, once for its weights' gradient unless its group (such as 'encoder/stage1') is
    `frozen`, and once for its input's gradient where a layer before it learns. With nothing frozen that is three times
    the forward pass, less the gradient of the image. Loss, optimizer and augmentation are left out.
    """
    flops, learns_before = 0, False
    for layer in layer_costs(height, columns, shape):
        learns = not any(layer.path == group or layer.path.startswith(f"{group}/") for group in frozen)
        flops += (1 + learns + learns_before) * layer.flops
        learns_before |= learns
    return flops


def receptive_field(levels: int, fold: int = 1) -> int:
    """Return the side in pixels of the largest square of the input that one output pixel can depend on.

    Found by following one output pixel's interval back through the network: a 3x3 convolution widens it by one on
    both sides, a 2x2 transposed convolution halves it, a 2x2 pooling doubles it. Where the pixel lies relative to
    the pooling's grid decides how an interval rounds, so from four levels on pixels differ (92 or 100), and the
    largest is given.
    """

    def interval(first: int, last: int, level: int) -> tuple[int, int]:
        first, last = first - 2, last + 2
        if level == levels - 1:
            return first, last
        below = interval(first // 2, last // 2, level + 1)
        # The skip sees less than the way through the levels below, so it need not be followed.
        return 2 * below[0] - 2, 2 * below[1] + 1 + 2

    positions = [interval(position, position, 0) for position in range(2 ** (levels - 1))]
    return fold * max(last - first + 1 for first, last in positions)


def step_memory_bytes(
    batch_size: int, height: int, columns: int, shape: Shape, dtype: str, *, averaged: bool = False
) -> int:
    """Estimate what one training step with Adam keeps in memory at once.

    Counted: parameters, gradients and Adam's two moments (float32); BatchNorm statistics; where the weights are
    `averaged`, the averages; and what the forward pass
    must keep for the backward pass, in the compute dtype: every convolution's output (after ReLU), with BatchNorm
    its input too, the pooled images and the concatenated ones, and log-probabilities, their gradient and one copy
    in float32. Not counted: the compiler's scratch space (cuDNN's workspaces, layout copies) and the
    batch's own arrays, so expect the device to report 1 to 2 times as much.
    """
    dtype_bytes = np.dtype(dtype).itemsize
    costs = layer_costs(height, columns, shape)
    parameters = sum(cost.parameters for cost in costs)
    statistics = sum(cost.statistics for cost in costs)
    state = FLOAT32_BYTES * (4 * parameters + statistics + averaged * (parameters + statistics))

    kept = sum(cost.outputs for cost in costs if cost.path != "head")
    for level in range(shape.levels - 1):
        folded = (height // shape.fold) >> level, (columns // shape.fold) >> level
        skip = folded[0] * folded[1] * shape.width * 2**level
        # Pooling leaves a quarter of the skip; concatenation copies it beside the upsampled image, which `costs`
        # has already counted once.
        kept += skip // 4 + skip
    logits = 3 * height * columns * shape.num_classes * FLOAT32_BYTES
    return state + batch_size * (kept * dtype_bytes + height * columns * shape.channels * dtype_bytes + logits)


def forward_memory_bytes(batch_size: int, height: int, columns: int, shape: Shape, dtype: str) -> int:
    """Estimate what a prediction keeps in memory at least: weights, images, skips, logits and probabilities."""
    costs = layer_costs(height, columns, shape)
    weights = FLOAT32_BYTES * sum(cost.parameters + cost.statistics for cost in costs)
    skips = sum(cost.outputs for cost in costs if cost.path.startswith("encoder") and cost.path.endswith("conv2"))
    pixels = height * columns * (shape.channels + 2 * shape.num_classes)
    return weights + batch_size * (skips * np.dtype(dtype).itemsize + pixels * FLOAT32_BYTES)
