"""From a trained U-Net to a Keras file that Keras loads with equal output. Written without Keras."""

from __future__ import annotations

import datetime
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import writing
from heartseg_jax.interop.keras_file import write_hdf5
from heartseg_jax.interop.keras_names import NAMED, snake_case

KERAS_VERSION = "3.8.0"
"""The oldest whose layout this is; newer ones read it."""
EPSILON = 1e-3
NOTES = (
    "input: [batch, rows, columns, channels] in 0 to 1, through the run's intensity window; rows and columns "
    "divisible by 2^(levels - 1)",
    "output: probabilities, by a softmax after the head; channel 0 is background",
)


class _Builder:
    """Collects layers, the graph between them and their arrays, numbered by class as Keras does."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def add(self, kind: str, inputs: list[str], channels: int, config: dict[str, Any], *arrays: Any) -> str:
        """Add a layer that reads `inputs` and gives `channels`; return its name."""
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        stem = snake_case(kind)
        name = f"{stem}_{number}" if number else stem
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {
                    "shape": [None, None, None, self._channels[source]],
                    "dtype": "float32",
                    "keras_history": [source, 0, 0],
                },
            }
            for source in inputs
        ]
        node: list[dict[str, Any]] = []
        if inputs:
            node = [{"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}}]
        shapes = [[None, None, None, self._channels[source]] for source in inputs]
        layer: dict[str, Any] = {
            "module": "keras.layers",
            "class_name": kind,
            "config": {"name": name, "dtype": "float32", **config},
            "registered_name": None,
            "name": name,
            "inbound_nodes": node,
        }
        if arrays or len(shapes) > 1:
            layer["build_config"] = {"input_shape": shapes if len(shapes) > 1 else shapes[0]}
        self.layers.append(layer)
        self._channels[name] = channels
        self.groups[f"layers/{name}/vars"] = {"name": name}
        for place, array in enumerate(arrays):
            self.arrays[f"layers/{name}/vars/{place}"] = np.asarray(array, np.float32)
        return name


def export(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], *, model: Any, size: int, channels: int, target: Path
) -> dict[str, Any]:
    """Write the network as `.keras` (whole) or `.weights.h5` (only weights, for a model of `keras_config`).

    `model` is a config's group of that name; `size` is what the run trained at, stated in the file's metadata. Returns
    what was written: target, layers, numbers, notes.

    Raises:
      UserError: the suffix is unknown, or the arrays are not of this model.
    """
    config, arrays, groups = _build(params, batch_stats, model, channels)
    stream = io.BytesIO()
    write_hdf5(stream, arrays, groups)
    with writing(target) as half:
        if target.name.endswith(".weights.h5"):
            half.write_bytes(stream.getvalue())
        elif target.name.endswith(".keras"):
            now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
            metadata = {"keras_version": KERAS_VERSION, "date_saved": now, "trained_at_size": size}
            with zipfile.ZipFile(half, "w") as archive:
                archive.writestr("metadata.json", json.dumps(metadata))
                archive.writestr("config.json", json.dumps(config))
                archive.writestr("model.weights.h5", stream.getvalue())
        else:
            raise UserError(f"{target} must end in .keras (the whole model) or .weights.h5 (only weights)")
    numbers = sum(array.size for array in arrays.values())
    return {"target": str(target), "layers": len(config["config"]["layers"]), "numbers": numbers, "notes": list(NOTES)}


def keras_config(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], *, model: Any, channels: int
) -> dict[str, Any]:
    """Return the config that Keras rebuilds the model from, in the form of a `.keras` file's `config.json`."""
    return _build(params, batch_stats, model, channels)[0]


def _build(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], model: Any, channels: int
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    build = _Builder()

    def conv(x: str, tree: Mapping[str, Any], filters: int, size: int) -> str:
        config = {"filters": filters, "kernel_size": [size, size], "strides": [1, 1], "padding": "same"}
        return build.add("Conv2D", [x], filters, config | {"use_bias": True}, tree["kernel"], tree["bias"])

    def block(x: str, path: tuple[str, ...], filters: int, normed: bool, dropout: float) -> str:
        tree, stats = _at(params, path), _at(batch_stats, path) if normed else {}
        for place in (1, 2):
            x = conv(x, tree[f"conv{place}"], filters, 3)
            if normed:
                scale, measured = tree[f"norm{place}"], stats[f"norm{place}"]
                arrays = (scale["scale"], scale["bias"], measured["mean"], measured["var"])
                momentum = {"epsilon": EPSILON, "momentum": float(model.batch_norm_momentum), "axis": -1}
                assert len(arrays) == len(NAMED["BatchNormalization"])
                x = build.add("BatchNormalization", [x], filters, momentum, *arrays)
            x = build.add("Activation", [x], filters, {"activation": "relu"})
            if place == 1 and dropout > 0:
                x = build.add("Dropout", [x], filters, {"rate": float(dropout)})
        return x

    try:
        x = build.add("InputLayer", [], channels, {"batch_shape": [None, None, None, channels]})
        skips = []
        for level in range(model.levels):
            filters = model.width * 2**level
            if level:
                x = build.add("MaxPooling2D", [x], filters // 2, {"pool_size": [2, 2], "strides": [2, 2]})
            x = block(x, ("encoder", f"stage{level + 1}"), filters, model.norm != "none", 0.0)
            skips.append(x)
        for level in reversed(range(model.levels - 1)):
            filters = model.width * 2**level
            up = _at(params, ("decoder", f"stage{level + 1}", "up"))
            config = {"filters": filters, "kernel_size": [2, 2], "strides": [2, 2], "padding": "valid"}
            x = build.add("Conv2DTranspose", [x], filters, config, up["kernel"], up["bias"])
            x = build.add("Concatenate", [x, skips[level]], 2 * filters, {"axis": -1})
            path = ("decoder", f"stage{level + 1}", "block")
            x = block(x, path, filters, model.norm == "batch", model.dropout)
        head = _at(params, ("head",))
        x = conv(x, head, len(head["bias"]), 1)
        x = build.add("Activation", [x], len(head["bias"]), {"activation": "softmax"})
    except KeyError as error:
        raise UserError(f"the checkpoint lacks {error} of the network that its config describes") from error
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": "heartseg_unet",
            "trainable": True,
            "layers": build.layers,
            "input_layers": [build.layers[0]["name"], 0, 0],
            "output_layers": [x, 0, 0],
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
        "compile_config": None,
    }
    return config, build.arrays, build.groups


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree
