"""From a Keras file to this project's encoder: each array in its place, and a report of every layer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json, writing
from heartseg_jax.interop import graph, keras_file
from heartseg_jax.interop.keras_names import class_and_number, snake_case
from heartseg_jax.interop.layer import IDLE
from heartseg_jax.interop.slots import Slot, array_of, block_slots, check_rank, fill
from heartseg_jax.models.tree import named_leaves, nested

SHIPPED = {"brain16": Path(__file__).resolve().parents[1] / "weights" / "brain_encoder16.keras"}
"""Encoders that come with the project, by name."""

PLAIN = {
    snake_case(kind)
    for kind in (
        *("InputLayer", "Conv2D", "BatchNormalization", "Activation", "ReLU", "Relu", "MaxPooling2D", "Softmax"),
        *("Conv2DTranspose", "UpSampling2D", "Concatenate", *IDLE),
    )
}
"""Layers of a plain U-Net, as Keras 3 names them in a file of weights."""

CHANNEL_RULE = (
    "first kernel: summed over the file's input channels (they all saw one grey slice) and divided by the number asked "
    "for, so that a grey slice repeated gives the same output"
)


class Pretrained(NamedTuple):
    """An encoder in this project's form.

    Attributes:
      params: {"stage1": {"conv1": {"kernel" [3, 3, in, out], "bias"}, "norm1": {"scale", "bias"}, ...}, ...}, float32.
      batch_stats: {"stage1": {"norm1": {"mean", "var"}, "norm2": ...}, ...}, float32.
      width: filters of the first stage.
      levels: number of stages.
      channels: input channels.
      report: what `conversion.json` holds.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    width: int
    levels: int
    channels: int
    report: dict[str, Any]


def load_encoder(path: Path, *, channels: int = 3) -> Pretrained:
    """Return the encoder in a Keras file, in a folder that `convert` wrote, or of a name in `SHIPPED`.

    `channels` is how many the network is to take: see `CHANNEL_RULE`; where the file has as many, nothing changes.

    Raises:
      UserError: it cannot be read, or is not an encoder of this project's kind, naming the layer and both shapes.
    """
    path = SHIPPED.get(str(path), path)
    if (path / "conversion.json").is_file():
        return _read_folder(path, channels)
    file = keras_file.read(path)
    try:
        return from_file(file, channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def from_file(file: keras_file.KerasFile, channels: int = 3) -> Pretrained:
    """Return the encoder of a Keras file that has been read."""
    blocks, notes, left = _by_order(file) if file.config is None else _by_graph(file)
    if file.added:
        notes = [*notes, f"exact values for what the model leaves out (bias 0, scale 1): {', '.join(file.added)}"]
    kernel = array_of(file, blocks[0][0], "kernel")
    check_rank(blocks[0][0], kernel)
    given, width = kernel.shape[2:]
    slots: list[Slot] = []
    for level in range(len(blocks) // 2):
        inputs = width * 2 ** (level - 1) if level else given
        slots += block_slots(blocks[2 * level : 2 * level + 2], f"encoder/stage{level + 1}", inputs, width * 2**level)
    params, batch_stats = fill(file, slots)
    report = {
        "source": file.path.name,
        "sha256": file.sha256,
        "format": file.format,
        "width": width,
        "levels": len(blocks) // 2,
        "channels": given,
        "layers": [{"keras": f"{s.layer}/{s.variable}", "flax": s.path, "shape": list(s.shape)} for s in slots],
        "left_out": left,
        "notes": notes,
    }
    encoder = Pretrained(params["encoder"], batch_stats["encoder"], width, len(blocks) // 2, given, report)
    return _with_channels(encoder, channels)


def _with_channels(encoder: Pretrained, channels: int) -> Pretrained:
    """Return the encoder for `channels` input channels, by `CHANNEL_RULE`, which its report then states."""
    given, report, stage = encoder.channels, encoder.report, encoder.params["stage1"]
    if given == channels:
        return encoder
    kernel = regrey(stage["conv1"]["kernel"], channels)
    params = encoder.params | {"stage1": stage | {"conv1": stage["conv1"] | {"kernel": kernel}}}
    place = "encoder/stage1/conv1/kernel"
    rows = [row | {"shape": list(kernel.shape)} if row["flax"] == place else row for row in report["layers"]]
    note = f"{given} input channel{'s' if given > 1 else ''} became {channels}; {CHANNEL_RULE}"
    report = report | {"channels": channels, "layers": rows, "notes": [*report["notes"], note]}
    return encoder._replace(params=params, channels=channels, report=report)


def regrey(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return a first kernel [3, 3, n, out] for `channels` input channels, by `CHANNEL_RULE`."""
    grey = kernel.sum(axis=2, keepdims=True, dtype=np.float64) / channels
    return np.repeat(grey, channels, axis=2).astype(np.float32)


class _Found(NamedTuple):
    """Names of the encoder's (convolution, norm) pairs, notes, and the layers left out with the reason for each."""

    blocks: list[tuple[str, str]]
    notes: list[str]
    left: list[dict[str, str]]


def _by_graph(file: keras_file.KerasFile) -> _Found:
    assert file.config is not None
    path = graph.follow(graph.layers(file.config))
    blocks = [(block.conv.name, block.norm.name) for stage in path.stages for block in stage if block.norm is not None]
    taken = {name for pair in blocks for name in pair}
    why = "after the deepest block: the decoder is trained from scratch"
    if path.stopped_at is not None:
        why += f" (the decoder begins at '{path.stopped_at.name}')"
    left = [{"layer": name, "reason": why} for name in file.weights if name not in taken]
    return _Found(blocks, list(path.notes), left)


def _by_order(file: keras_file.KerasFile) -> _Found:
    """Return the same for a file without a config: layers in their order, recognised by names and shapes."""
    _check_names(file)
    convs, norms, ups = [], [], []
    for name, arrays in file.weights.items():
        ranks = {key: array.ndim for key, array in arrays.items()}
        if "transpose" in name or (ranks.get("kernel") == 4 and arrays["kernel"].shape[:2] == (2, 2)):
            ups.append(name)
        elif ranks.get("kernel") == 4:
            convs.append(name)
        elif "gamma" in ranks:
            norms.append(name)
        elif ranks:
            raise _strange(f"'{name}' with {', '.join(ranks)}")
    if not convs:
        raise UserError("the file has no encoder: it holds no convolution kernel")
    check_rank(convs[0], file.weights[convs[0]]["kernel"])
    filters = {name: file.weights[name]["kernel"].shape[-1] for name in convs}
    down: list[str] = []
    for place in range(0, len(convs), 2):
        if down and filters[convs[place]] <= filters[down[-1]]:
            break
        down += convs[place : place + 2]
    if len(down) < 4:
        raise UserError("the file has no encoder: its kernels do not widen from stage to stage, two per stage")
    if len(down) % 2 or len(norms) < len(down):
        raise UserError(
            f"the file has {len(norms)} BatchNormalizations for the {len(down)} convolutions of its encoder; the brain "
            "model's encoder has one at each of two per stage; a part of a sharded file has fewer: give its index"
        )
    pools = sum(class_and_number(name)[0] == "max_pooling2d" for name in file.weights)
    if _is_numbered(file) and pools not in (1, len(down) // 2 - 1):
        raise UserError(
            f"the file has {pools} max poolings and kernels of {len(down) // 2} stages; this project's encoder has one "
            "between each two (is it one shard of several, or another network?); save the whole model"
        )
    blocks = list(zip(down, norms, strict=False))
    taken = {name for pair in blocks for name in pair}
    left = [
        {"layer": name, "reason": "after the widest kernels: the decoder is trained from scratch"}
        for name in (*convs, *norms, *ups)
        if name not in taken
    ]
    note = (
        "the file has only weights, no graph: its layers were placed by their order and shapes; "
        "kinds of activations, epsilon and strides were assumed to be the brain model's and cannot be checked"
    )
    return _Found(blocks, [note], left)


def _strange(layer: str) -> UserError:
    return UserError(
        f"the file has a layer {layer}, which a plain U-Net does not have, and no graph to show where it is; save the "
        "whole model (model.save('model.keras'))"
    )


def _is_numbered(file: keras_file.KerasFile) -> bool:
    """Whether layers are named by their class, as Keras 3 does: it lists those without weights too."""
    return any(not arrays for arrays in file.weights.values())


def _check_names(file: keras_file.KerasFile) -> None:
    """Raise a UserError where a name gives away a layer that a plain U-Net has not, or where layers are missing."""
    if not _is_numbered(file):
        return
    numbers: dict[str, list[int]] = {}
    for name in file.weights:
        stem, number = class_and_number(name)
        numbers.setdefault(stem, []).append(number)
    for stem, found in numbers.items():
        if stem not in PLAIN:
            raise _strange(f"'{stem}'")
        if sorted(found) != list(range(len(found))):
            raise UserError(
                f"the file has {stem} number {max(found)} but not all before it: it is one shard of several, or a part "
                "of a model; give the index of the shards (.weights.json), or save the model as one file"
            )


def save_folder(encoder: Pretrained, folder: Path) -> None:
    """Write `encoder.npz` and, last, `conversion.json`, which marks the folder as one of `convert`."""
    arrays = named_leaves({"params": encoder.params, "batch_stats": encoder.batch_stats})
    # Both are written before either takes its place; the digest shows where a kill came between the two.
    with writing(folder / "conversion.json") as text, writing(folder / "encoder.npz") as half:
        np.savez(half, **arrays)
        report = encoder.report | {"npz_sha256": hashlib.sha256(half.read_bytes()).hexdigest()}
        write_json(text, report)


def _read_folder(folder: Path, channels: int) -> Pretrained:
    try:
        report = read_json(folder / "conversion.json", fix="convert the file again")
        content = (folder / "encoder.npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != report["npz_sha256"]:
            raise UserError(f"{folder}/encoder.npz is not what conversion.json describes; convert the file again")
        with np.load(folder / "encoder.npz", allow_pickle=False) as stored:
            trees = nested({name: stored[name] for name in stored.files})
        params, batch_stats = trees["params"], trees["batch_stats"]
        width, levels, given = (int(report[key]) for key in ("width", "levels", "channels"))
        _ = report["source"], report["format"][:0], report["sha256"][:12], [*report["notes"]]
        _ = [(row["keras"], row["flax"], [*row["shape"]]) for row in report["layers"]]
        _ = [(entry["layer"], entry["reason"]) for entry in report["left_out"]]
        first = params["stage1"]["conv1"]
        if first["kernel"].shape[2:] != (given, width) or len(params) != levels:
            raise ValueError("its arrays are not of the width, levels and channels that it states")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not a complete output of `convert` ({error}); convert the file again") from error
    return _with_channels(Pretrained(params, batch_stats, width, levels, given, report), channels)
