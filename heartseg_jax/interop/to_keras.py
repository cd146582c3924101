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
from heartseg_jax.interop.keras_names import snake_case
from heartseg_jax.models.norm import BATCH_NORM_EPSILON

KERAS_VERSION = "3.8.0"
"""The oldest whose layout this is; newer ones read it."""


class _Builder:
    """Collects layers, the graph between them and their arrays, numbered by class as Keras does."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self._shapes: dict[str, list[int | None]] = {}

    def add(self, kind: str, inputs: list[str], channels: int, config: dict[str, Any], *arrays: Any) -> str:
        """Add a layer that reads `inputs` and gives `channels`; return its name."""
        number = sum(layer["class_name"] == kind for layer in self.layers)
        name = f"{snake_case(kind)}_{number}" if number else snake_case(kind)
        shapes = [self._shapes[source] for source in inputs]
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {"shape": shape, "dtype": "float32", "keras_history": [source, 0, 0]},
            }
            for source, shape in zip(inputs, shapes, strict=True)
        ]
        layer: dict[str, Any] = {
            "module": "keras.layers",
            "class_name": kind,
            "config": {"name": name, "dtype": "float32", **config},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [{"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}}] if inputs else [],
        }
        if arrays or len(shapes) > 1:
            layer["build_config"] = {"input_shape": shapes if len(shapes) > 1 else shapes[0]}
        self.layers.append(layer)
        self._shapes[name] = [None, None, None, channels]
        self.groups[f"layers/{name}/vars"] = {"name": name}
        for place, array in enumerate(arrays):
            self.arrays[f"layers/{name}/vars/{place}"] = np.asarray(array, np.float32)
        return name


def export(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], *, model: Any, size: int, channels: int, target: Path
) -> None:
    """Write the network as `.weights.h5` (only weights, for the model that the other form holds) or else as `.keras`.

    `model` is a config's group of that name; `size` is what the run trained at, stated in the file's metadata. The
    Keras model takes `[batch, rows, columns, channels]` in 0 to 1, through the run's intensity window, and gives
    probabilities; channel 0 is background.

    Raises:
      UserError: the arrays are not of this model.
    """
    config, build = _build(params, batch_stats, model, channels)
    stream = io.BytesIO()
    write_hdf5(stream, build.arrays, build.groups)
    with writing(target) as half:
        if target.name.endswith(".weights.h5"):
            half.write_bytes(stream.getvalue())
            return
        now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
        metadata = {"keras_version": KERAS_VERSION, "date_saved": now, "trained_at_size": size}
        with zipfile.ZipFile(half, "w") as archive:
            archive.writestr("metadata.json", json.dumps(metadata))
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", stream.getvalue())


def _build(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], model: Any, channels: int
) -> tuple[dict[str, Any], _Builder]:
    """Return the config that Keras rebuilds the model from, and the arrays of its layers."""
    build, fold = _Builder(), model.fold

    def conv(x: str, tree: Mapping[str, Any], filters: int, fold: int = 1) -> str:
        kernel = _unfolded(tree["kernel"], fold)
        config = {"filters": filters, "kernel_size": [*kernel.shape[:2]], "strides": [fold, fold], "padding": "same"}
        return build.add("Conv2D", [x], filters, config | {"use_bias": True}, kernel, tree["bias"])

    def block(
        x: str, tree: Mapping[str, Any], stats: Mapping[str, Any] | None, filters: int, dropout: float, fold: int = 1
    ) -> str:
        for place in (1, 2):
            x = conv(x, tree[f"conv{place}"], filters, fold if place == 1 else 1)
            if stats is not None:
                learnt, measured = tree[f"norm{place}"], stats[f"norm{place}"]
                arrays = (learnt["scale"], learnt["bias"], measured["mean"], measured["var"])
                config = {"epsilon": BATCH_NORM_EPSILON, "momentum": float(model.batch_norm_momentum), "axis": -1}
                x = build.add("BatchNormalization", [x], filters, config, *arrays)
            x = build.add("Activation", [x], filters, {"activation": "relu"})
            if place == 1 and dropout > 0:
                x = build.add("Dropout", [x], filters, {"rate": float(dropout)})
        return x

    try:
        x = build.add("InputLayer", [], channels, {"batch_shape": [None, None, None, channels]})
        skips = []
        for level in range(model.levels):
            stage, filters = f"stage{level + 1}", model.width * 2**level
            if level:
                x = build.add("MaxPooling2D", [x], filters // 2, {"pool_size": [2, 2], "strides": [2, 2]})
            stats = None if model.norm == "none" else batch_stats["encoder"][stage]
            x = block(x, params["encoder"][stage], stats, filters, 0.0, 1 if level else fold)
            skips.append(x)
        for level in reversed(range(model.levels - 1)):
            stage, filters = f"stage{level + 1}", model.width * 2**level
            tree = params["decoder"][stage]
            config = {"filters": filters, "kernel_size": [2, 2], "strides": [2, 2], "padding": "valid"}
            x = build.add("Conv2DTranspose", [x], filters, config, tree["up"]["kernel"], tree["up"]["bias"])
            x = build.add("Concatenate", [x, skips[level]], 2 * filters, {"axis": -1})
            stats = batch_stats["decoder"][stage]["block"] if model.norm == "batch" else None
            x = block(x, tree["block"], stats, filters, model.dropout)
        head, classes = params["head"], len(params["head"]["bias"])
        if fold == 1:
            x = conv(x, head, classes)
        else:
            # A 1x1 convolution whose channels become pixels is a transposed one that leaves no pixel twice.
            kernel = np.asarray(head["kernel"]).reshape(-1, fold, fold, classes).transpose(1, 2, 3, 0)
            config = {"filters": classes, "kernel_size": [fold, fold], "strides": [fold, fold], "padding": "valid"}
            x = build.add("Conv2DTranspose", [x], classes, config, kernel, head["bias"])
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
    return config, build


def _unfolded(kernel: Any, fold: int) -> np.ndarray:
    """Return the kernel of the convolution with stride `fold` that does on pixels what this one does on their squares.

    [k, k, fold * fold * in, out] -> [fold * k, fold * k, in, out].
    """
    rows, columns, channels, filters = kernel.shape
    squares = np.asarray(kernel).reshape(rows, columns, fold, fold, channels // fold**2, filters)
    return squares.transpose(0, 2, 1, 3, 4, 5).reshape(fold * rows, fold * columns, channels // fold**2, filters)
