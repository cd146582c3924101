"""Parity with real Keras: every block's output, and the whole network's, on the same seeded input.

Only this module imports Keras, and only on request; converting does not need it.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.interop import graph, keras_file
from heartseg_jax.interop.encoder import from_file
from heartseg_jax.interop.unet_file import unet_from_file
from heartseg_jax.models.unet import ConvBlock, Encoder

TOLERANCE = 1e-4
"""Of max|ours - Keras's| / max|Keras's| by tensor: float32 sums in another order stay below a tenth of it."""

FREE_SIZE = 64
"""Rows and columns of the input where the Keras model leaves them open, or the encoder's divisor if that is larger."""


REDUCED = re.compile(r'"(?:mixed_)?b?float16"')
"""A dtype or a dtype policy of half precision in a serialised model."""


class Row(NamedTuple):
    """One tensor compared: its Flax path, the Keras layer, its shape, max|Keras's| and the relative difference."""

    flax: str
    keras: str
    shape: tuple[int, ...]
    peak: float
    difference: float


class Parity(NamedTuple):
    """What was compared.

    Attributes:
      rows: one per tensor, in the order in which data passes.
      why: the reason why the decoder and the model's output are not among them; empty where they are.
    """

    rows: tuple[Row, ...]
    why: str

    @property
    def worst(self) -> Row:
        """The tensor that differs most."""
        return max(self.rows, key=lambda row: row.difference)


def verify(path: Path, *, channels: int = 3, seed: int = 0) -> Parity:
    """Return how far this project's network is from Keras's own, by tensor, both in float32.

    Raises:
      UserError: Keras is not there, the file has no graph, or cannot be loaded by Keras.
    """
    file = keras_file.read(path)
    if file.config is None:
        raise UserError(
            f"{path} has only weights: without the model's graph Keras cannot run it, so nothing can be verified; "
            "give the whole model (.keras or .h5), or remove --verify"
        )
    try:
        down = graph.follow(graph.layers(file.config))
        encoder = from_file(file, channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    model: nn.Module
    try:
        model, variables, activation, taps = unet_from_file(file, channels)
        why = ""
    except UserError as error:
        model, activation, taps, why = _Bottom(encoder.width, encoder.levels), "linear", down.taps, str(error)
        variables = {"params": {"encoder": encoder.params}, "batch_stats": {"encoder": encoder.batch_stats}}
    theirs = _load(file)
    image = _image(theirs, path, 2 ** (encoder.levels - 1), seed, channels)
    with jax.default_matmul_precision("highest"):
        scaled = np.float32(down.scale) * _as_channels(image, theirs.input_shape[-1])
        expected = _run_keras(theirs, list(taps.values()), scaled)
        found = _run_flax(model, variables, _as_channels(image, channels))
    # A sigmoid or softmax passes rounding of the logits on, which is relative to their peak, not to its own of 1.
    logits_peak = float(np.abs(found["output"]).max())
    found["output"] = np.asarray(_ACTIVATE[activation](found["output"]))
    rows = tuple(
        Row(place, name, array.shape, *_differ(found[place], array, logits_peak if place == "output" else 0.0))
        for (place, name), array in zip(taps.items(), expected, strict=True)
    )
    return Parity(rows, why)


def check(parity: Parity) -> None:
    """Raise a UserError where a tensor differs by more than `TOLERANCE`."""
    worst = parity.worst
    if worst.difference > TOLERANCE:
        first = next(row for row in parity.rows if row.difference > TOLERANCE)
        raise UserError(
            f"not verified: {first.flax} differs from Keras's '{first.keras}' by {first.difference:.2g} of its peak, "
            f"at most {TOLERANCE:g} is rounding (worst: {worst.difference:.2g}); nothing was written"
        )


def table(parity: Parity) -> str:
    """Lay the comparison out for the terminal."""
    width = max(len(row.flax) for row in parity.rows)
    other = max(len(row.keras) for row in parity.rows)
    head = f"{'output of':<{width}}  {'in Keras':<{other}}  {'shape':<16} {'peak':>9} {'difference':>11}"
    lines = [head, "-" * len(head)]
    for row in parity.rows:
        shape = "x".join(map(str, row.shape))
        lines.append(f"{row.flax:<{width}}  {row.keras:<{other}}  {shape:<16} {row.peak:>9.3g} {row.difference:>11.2g}")
    return "\n".join(lines)


def summary(parity: Parity) -> dict[str, Any]:
    """Return what `conversion.json` keeps of it."""
    return {
        "tolerance": TOLERANCE,
        "worst": parity.worst.difference,
        "whole_model": not parity.why,
        "differences": {row.flax: row.difference for row in parity.rows},
    }


_ACTIVATE = {"linear": lambda x: x, "sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax}


class _Bottom(nn.Module):
    """The encoder under the name it has in a `UNet`."""

    width: int
    levels: int

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        block = functools.partial(ConvBlock, norm=True)
        return Encoder(self.width, self.levels, block, name="encoder")(image, train)[-1]


def _load(file: keras_file.KerasFile) -> Any:
    """Return Keras's own model; it runs on JAX unless Keras is loaded already. Code in a file stays refused."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras as library
    except ImportError as error:
        raise UserError(f"--verify runs Keras itself, which cannot be imported ({error}): pip install keras") from error
    suffix = ".keras" if file.format == "keras" else ".h5"
    with tempfile.TemporaryDirectory() as folder:
        path = file.path
        if path.suffix != suffix:  # Keras goes by the name, `keras_file.read` by the content
            path = Path(folder) / f"model{suffix}"
            path.write_bytes(file.path.read_bytes())
        try:
            model = library.models.load_model(path, compile=False, safe_mode=True)
            if REDUCED.search(model.to_json()):
                # In half precision Keras's own rounding would hide a difference: the same layers again in float32.
                exact = library.models.model_from_json(REDUCED.sub('"float32"', model.to_json()))
                exact.set_weights([np.asarray(array, np.float32) for array in model.get_weights()])
                model = exact
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"{file.path} cannot be loaded by Keras {library.__version__} itself ({reason}), so nothing can be "
                "verified; remove --verify, or give the file to the Keras that saved it"
            ) from error
    return model


def _image(model: Any, path: Path, divisor: int, seed: int, channels: int) -> np.ndarray:
    """Return an image [1, H, W, C] in 0..1: one grey channel where the channel rule was at work."""
    _, *size, given = model.input_shape
    rows, columns = (side or max(FREE_SIZE, divisor) for side in size)
    if rows % divisor or columns % divisor:
        raise UserError(
            f"{path} takes images of {rows}x{columns}, not divisible by {divisor}: this project's network would refuse "
            "them, so nothing can be verified; remove --verify"
        )
    depth = channels if given == channels else 1
    return np.random.default_rng(seed).random((1, rows, columns, depth), dtype=np.float32)


def _as_channels(image: np.ndarray, channels: int) -> np.ndarray:
    return image if image.shape[-1] == channels else np.repeat(image, channels, axis=-1)


def _run_keras(model: Any, names: list[str], image: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of the layers named, in inference mode."""
    import keras as library

    # Also what is no layer, such as keras.ops.relu; a Sequential model has layers only.
    operations = {one.name: one for one in getattr(model, "operations", model.layers)}

    def output(node: str) -> Any:
        name, _, call = node.partition("#")  # as `graph` names the calls of a shared layer
        return operations[name]._inbound_nodes[int(call or 0)].outputs[0]

    outputs = [output(name) for name in names]
    found = library.Model(model.inputs[0], outputs)(image, training=False)
    return [np.asarray(library.ops.convert_to_numpy(array), np.float32) for array in found]


def _run_flax(model: nn.Module, variables: Mapping[str, Any], image: np.ndarray) -> dict[str, np.ndarray]:
    """Return each block's output by its convolution's path, and the logits as 'output'."""
    output, state = model.apply(variables, image, train=False, capture_intermediates=True, mutable=["intermediates"])
    found = {"output": np.asarray(output)}

    def collect(node: Mapping[str, Any], path: str) -> None:
        for name, child in node.items():
            if name.startswith("conv"):
                # Modules capture what they return: the ReLU of a block is a function, and added here.
                last = node.get(name.replace("conv", "norm"), child)
                found[path + name] = np.asarray(nn.relu(last["__call__"][0]))
            elif name == "up":
                found[path + name] = np.asarray(child["__call__"][0])
            elif isinstance(child, Mapping):
                collect(child, f"{path}{name}/")

    collect(state["intermediates"], "")
    return found


def _differ(ours: np.ndarray, theirs: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """Return the peak max|theirs|, and max|ours - theirs| relative to it, or to `least` if that is larger.

    Equal zeros differ by 0, NaN and other shapes by infinity.
    """
    peak = float(np.abs(theirs).max())
    gap = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
    if not np.isfinite(peak + gap):
        return peak, np.inf
    scale = max(peak, least)
    return peak, gap / scale if scale else (0.0 if gap == 0 else np.inf)
