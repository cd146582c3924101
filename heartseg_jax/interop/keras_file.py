"""Keras files as named arrays and plain JSON, read with h5py: no code from a file is ever run.

Layouts: a whole model as HDF5 (`.h5`, Keras 2 and 3), as a zip (`.keras`, Keras 3), and weights only (`.weights.h5` of
Keras 3, also in shards with a `.weights.json` index, or `save_weights` of Keras 2). The content decides which, not the
name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.interop.keras_names import NAMED, complete, in_order, named, own_name, snake_case

HDF5_MAGIC, ZIP_MAGIC = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
MOST_NUMBERS = 2**30
"""Of one array: far more than any layer here has. A damaged or hostile header must not fill the memory."""
MOST_JSON_BYTES = 64 * 2**20


class KerasFile(NamedTuple):
    """What a file holds.

    Attributes:
      path: of the file.
      format: 'keras', 'h5' or 'weights'.
      sha256: of its bytes.
      config: the serialised model, or None where the file has only weights.
      weights: layer's name -> variable's name -> array. With a config the layers have its names; without, the file's,
        in the file's order, those without variables too.
      added: 'layer/variable' of those that the model does not have, filled with `NEUTRAL` values.
    """

    path: Path
    format: str
    sha256: str
    config: dict[str, Any] | None
    weights: dict[str, dict[str, np.ndarray]]
    added: tuple[str, ...] = ()


def read(path: Path) -> KerasFile:
    """Return what the Keras file at `path` holds.

    Raises:
      UserError: it is missing, a folder, empty, truncated, or of a layout that is not Keras's.
    """
    if path.is_dir():
        raise UserError(_about_folder(path))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no weights file at {path}; give the path of a .h5, .weights.h5 or .keras file") from None
    except OSError as error:
        raise UserError(f"the weights file {path} cannot be read: {error.strerror}") from error
    if not content:
        raise UserError(f"the weights file {path} is empty (0 bytes); fetch it again")
    digest = hashlib.sha256(content)
    config, form = None, "weights"
    with _damage_refused(path):
        if content.startswith(ZIP_MAGIC):
            form = "keras"
            config, weights = _read_zip(path, content)
        elif content.startswith(HDF5_MAGIC):
            with _open(content) as file:
                if "model_config" in file.attrs:
                    config, form = _json(path, file.attrs["model_config"]), "h5"
                if config or "layer_names" in file.attrs:
                    weights = _by_layer(path, file)
                else:
                    _refuse_shard(path)
                    weights = in_order(_numbered(path, file))
        elif content.lstrip().startswith(b"{") and b'"weight_map"' in content:
            weights = in_order(_read_shards(path, digest))
        else:
            hint = ""
            if content.startswith(b"version https://git-lfs"):
                hint = ": it is a Git LFS pointer, not the file itself; run git lfs pull"
            raise UserError(f"{path} is no Keras file: neither HDF5 nor a .keras zip, by its first bytes{hint}")
    return KerasFile(path, form, digest.hexdigest(), config, *complete(weights, _layers(config) if config else []))


def write_hdf5(
    target: Path | BinaryIO, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write an HDF5 file: `arrays` by their full path in it, `attributes` by the path of a group, which is made."""
    with h5py.File(target, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        for group, values in (attributes or {}).items():
            node = file.require_group(group)
            for key, value in values.items():
                node.attrs[key] = value


def _about_folder(path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        code = f"import tf_keras; tf_keras.models.load_model({str(path)!r}, compile=False).save('model.h5')"
        return (
            f"{path} is a TensorFlow SavedModel, which only TensorFlow can read; turn it into a file with: "
            f'pip install tensorflow tf_keras && python -c "{code}"'
        )
    return f"{path} is a folder, not a weights file; give a .h5, .weights.h5 or .keras file"


@contextlib.contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    """Turn what the libraries raise for damaged content into a UserError."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged or truncated ({_first_line(error)}); fetch or save it again") from error


def _read_shards(path: Path, digest: Any) -> dict[str, list[np.ndarray]]:
    """Read all shards that an index names, from the index's folder; a layer may be divided between two."""
    fix = "copy the index and all its shards into one folder, or save the model again"
    try:
        mapped = read_json(path, fix=fix)["weight_map"].values()
        names = sorted({name for shards in mapped for name in ([shards] if isinstance(shards, str) else shards)})
        if not names or any(Path(name).name != name for name in names):
            raise ValueError
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of a sharded Keras file; {fix}") from error
    numbered: dict[str, list[np.ndarray]] = {}
    for name in names:
        shard = path.with_name(name)
        if not shard.is_file():
            raise UserError(f"{path} names the shard {name}, which is not beside it; {fix}")
        with _damage_refused(shard):
            stored = shard.read_bytes()
            digest.update(stored)
            with _open(stored) as file:
                for layer, arrays in _numbered(shard, file).items():
                    numbered.setdefault(layer, []).extend(arrays)
    return numbered


def _refuse_shard(path: Path) -> None:
    found = re.fullmatch(r"(.+)_\d{5}\.weights\.h5", path.name)
    if found:
        index = path.with_name(f"{found[1]}.weights.json")
        raise UserError(
            f"{path} is one shard of a sharded file, a part of the model; give its index {index.name}"
            + ("" if index.is_file() else ", which is missing here, or save the model as one file")
        )


def _read_zip(path: Path, content: bytes) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Read `config.json` and `model.weights.h5` of a .keras file, in memory."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        for needed, most in (("config.json", MOST_JSON_BYTES), ("model.weights.h5", 4 * MOST_NUMBERS)):
            if needed not in names:
                raise UserError(
                    f"{path} is a zip without {needed}, so no whole .keras file (it holds {', '.join(names[:4])}); "
                    "save the model again with model.save('model.keras')"
                )
            if archive.getinfo(needed).file_size > most:
                raise UserError(f"{path} has a {needed} of implausible size; save the model again")
        config = _json(path, archive.read("config.json"))
        with _open(archive.read("model.weights.h5")) as file:
            numbered = _numbered(path, file)
    # The file numbers its layers by class, whatever their own names are.
    weights: dict[str, dict[str, np.ndarray]] = {}
    counts: dict[str, int] = {}
    for layer in _layers(config):
        kind = str(layer.get("class_name", ""))
        stem, number = snake_case(kind), counts.get(kind, 0)
        counts[kind] = number + 1
        arrays = numbered.get(f"{stem}_{number}" if number else stem)
        if arrays and kind in NAMED:
            weights[own_name(layer)] = named(kind, layer, arrays)
    return config, weights


def _open(content: bytes) -> h5py.File:
    return h5py.File(io.BytesIO(content), "r")


def _json(path: Path, text: Any) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} has a model config that is no JSON ({_first_line(error)}); save it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise UserError(f"{path} has a config that describes no model; save the whole model again")
    return config


def _layers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = config["config"]
    layers = inner.get("layers", []) if isinstance(inner, dict) else inner  # Keras 2.0's Sequential: a bare list
    return [layer for layer in layers if isinstance(layer, dict)]


def _by_layer(path: Path, file: h5py.File) -> dict[str, dict[str, np.ndarray]]:
    """Read `model_weights/<layer>/.../<variable>` (or the same at the top): layers in the file's order."""
    root = _child(path, file, "model_weights") if "model_weights" in file else file
    order = [_text(name) for name in root.attrs.get("layer_names", [])] or list(root)
    weights = {}
    for layer in order:
        group = _child(path, root, layer) if layer in root else None
        if isinstance(group, h5py.Group):
            found = {name.split("/")[-1].split(":")[0]: array for name, array in _arrays(path, group)}
            if found:
                weights[layer] = found
    return weights


def _numbered(path: Path, file: h5py.File) -> dict[str, list[np.ndarray]]:
    """Read `layers/<name>/vars/<n>`, sorted by n; layers without variables have an empty list."""
    if "layers" not in file:
        raise UserError(f"{path} holds no layers: its top level has {', '.join(list(file)[:5]) or 'nothing'}")
    found: dict[str, list[np.ndarray]] = {}
    layers = _child(path, file, "layers")
    for name in layers:
        group = _child(path, layers, name)
        if isinstance(group, h5py.Group) and "vars" in group:
            arrays = sorted(
                _arrays(path, _child(path, group, "vars")), key=lambda pair: int(re.sub(r"\D", "", pair[0]) or 0)
            )
            found[name] = [array for _, array in arrays]
    return found


def _child(path: Path, group: h5py.Group, name: str) -> Any:
    """Return what a group holds under a name. Links that lead elsewhere, to other files too, are not followed."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{path} has a link at {group.name.rstrip('/')}/{name} in place of data; save the model again")
    return group[name]


def _arrays(path: Path, group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, array) below a group."""
    for name in group:
        node = _child(path, group, name)
        if isinstance(node, h5py.Group):
            yield from _arrays(path, node, f"{prefix}{name}/")
            continue
        if not isinstance(node, h5py.Dataset) or node.size is None or node.size > MOST_NUMBERS:
            raise UserError(f"{path} has something at {group.name}/{name} that is no plausible array")
        if node.external or node.is_virtual:
            raise UserError(f"{path} keeps {node.name} in another file, which is not read; save the model again")
        array = node[()]
        if isinstance(array, np.ndarray) and array.dtype.kind == "V" and array.dtype.itemsize == 2:
            # HDF5 has no bfloat16: Keras writes its two raw bytes, the upper half of a float32.
            array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            continue  # scalars and text: counters and the like
        yield prefix + name, array


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
