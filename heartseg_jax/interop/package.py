"""A package: a trained network, or an ensemble of one architecture, as a folder that can be passed on.

`weights.npz` has every array under its path, `params/...` or `batch_stats/...`, with an axis for the members in front;
`model.json` says what it is. Each is covered by a SHA-256, so that a changed byte in either is found.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import FrozenConfigDict

from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json
from heartseg_jax.models.tree import named_leaves, nested
from heartseg_jax.preprocess.contract import Contract

FORMAT, FORMAT_VERSION = "heartseg_jax package", 1
WEIGHTS, MODEL = "weights.npz", "model.json"
MANTISSA_BITS = 10
"""Of float16."""
KINDS = ("params", "batch_stats")
DTYPES = ("float16", "float32")
SHIPPED = {"heart_v1": Path(__file__).resolve().parents[1] / "weights" / "heart_v1"}
"""Where packages that come with the project are, by name; the folder may be missing."""
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
"""Outputs state it."""
_OWN = re.compile(rb'"content_sha256": "([0-9a-f]{64})"')
_BLANK = b'"content_sha256": "' + b"0" * 64 + b'"'

Member = tuple[dict[str, Any], dict[str, Any]]
"""(params, batch_stats), float32."""


class Package(NamedTuple):
    """What a package holds.

    Attributes:
      head: the content of `model.json`.
      contract, config: as the runs' that it was made of.
      members: the networks' weights.
      sha256: of `model.json`, which has that of the weights: the digest of the whole.
    """

    head: Mapping[str, Any]
    contract: Contract
    config: FrozenConfigDict
    members: tuple[Member, ...]
    sha256: str


def located(path: str | Path) -> Path:
    """Return the folder that a name in `SHIPPED` means; any other path as it is.

    Raises:
      UserError: the model of that name is not in this installation, or a folder here has the same name.
    """
    path = Path(path)
    shipped = SHIPPED.get(str(path))
    if shipped is None:
        return path
    if path.exists() and path.resolve() != shipped:
        raise UserError(
            f"{path} is the name of the model that comes with the project, and something here is called so too: give "
            f"{path.absolute()} for it, or rename it"
        )
    if not is_package(shipped):
        raise UserError(f"{path} does not come with this version; give the folder of a run or of a package")
    return shipped


def is_package(path: Path) -> bool:
    """Whether a folder is a package, or what is left of one."""
    return (path / MODEL).is_file() or (path / WEIGHTS).is_file()


def write_package(
    folder: Path, head: Mapping[str, Any], members: Sequence[Member], dtype: str, mantissa_bits: int | None = None
) -> None:
    """Write the two files into an existing folder; the caller makes it appear as a whole (`files.new_folder`).

    With `dtype` float16 only kernels are rounded: biases, scales and BatchNorm's statistics are few, and stay float32.
    With `mantissa_bits` they keep that many of float16's ten, so that they compress better.

    Raises:
      UserError: an array has a value that is not finite, or too large for the dtype.
    """
    trees = [named_leaves(dict(zip(KINDS, member, strict=True))) for member in members]
    arrays = {}
    for path in trees[0]:
        stacked = np.stack([np.asarray(tree[path], np.float32) for tree in trees])
        with np.errstate(over="ignore"):
            stacked = stacked.astype(dtype if path.endswith("/kernel") else np.float32)
            if mantissa_bits is not None and stacked.dtype == np.float16:
                stacked = shortened(stacked, mantissa_bits)
        if not np.isfinite(stacked).all():
            fix = "give --dtype=float32" if dtype == "float16" else "use another checkpoint"
            raise UserError(f"{path} has values that are not finite, or too large for {dtype}; {fix}")
        arrays[path] = stacked
    _save(folder / WEIGHTS, arrays)
    content = (folder / WEIGHTS).read_bytes()
    weights = {
        "file": WEIGHTS,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "dtype": dtype,
        "members": len(trees),
        "numbers_per_member": int(sum(leaf.size for leaf in trees[0].values())),
    } | ({} if mantissa_bits is None else {"mantissa_bits": mantissa_bits})
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **head, "weights": weights, "content_sha256": "0" * 64}
    text = _readable(json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    own = hashlib.sha256(text).hexdigest().encode()
    (folder / MODEL).write_bytes(text.replace(_BLANK, b'"content_sha256": "' + own + b'"'))


def shortened(array: np.ndarray, mantissa_bits: int) -> np.ndarray:
    """Return a float16 array rounded to `mantissa_bits` of its ten, to the nearest and of two such to the even one.

    A value changes by at most 2 ** -(mantissa_bits + 1) of itself.
    """
    drop = MANTISSA_BITS - mantissa_bits
    if drop == 0:
        return array
    raw = array.view(np.uint16).astype(np.uint32)
    # Half of the last place that is kept, less one where that is even: what lies midway goes to the even neighbour.
    raw += (1 << (drop - 1)) - 1 + ((raw >> drop) & 1)
    return ((raw >> drop) << drop).astype(np.uint16).view(np.float16)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz compressed by LZMA, a tenth smaller than what NumPy writes; NumPy reads it as any other."""
    with zipfile.ZipFile(path, "w") as whole:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # with no date: the same weights are the same bytes
            entry.compress_type = zipfile.ZIP_LZMA
            with whole.open(entry, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _readable(text: str) -> str:
    """Return indented JSON with each short list of numbers or words on one line; JSON's strings have no line breaks."""

    def joined(found: re.Match[str]) -> str:
        line = "".join(part.strip() + " " * part.endswith(",") for part in found[0].split("\n"))
        return line if len(line) < 100 else found[0]

    return re.sub(r"\[\n[^\[\]{}]*\n *\]", joined, text)


def read_head(folder: Path) -> Mapping[str, Any]:
    """Return the content of a package's `model.json`, once its digest and its form are right; no weights are read.

    Raises:
      UserError: it is damaged, of a later version, or not a package's.
    """
    fix = f"copy the package again ({MODEL} and {WEIGHTS} belong together)"
    try:
        text = (folder / MODEL).read_bytes()
    except OSError as error:
        raise UserError(f"{folder} is a package without a readable {MODEL} ({error.strerror}); {fix}") from error
    stated = _OWN.findall(text)
    if len(stated) != 1 or hashlib.sha256(_OWN.sub(_BLANK, text)).hexdigest().encode() != stated[0]:
        raise UserError(f"{folder / MODEL} is damaged: it differs from what was written, by SHA-256; {fix}")
    head: Mapping[str, Any] = read_json(folder / MODEL, fix=fix)
    if head.get("format") != FORMAT or head.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{folder} is a package of the form {head.get('format')!r}, version {head.get('format_version')!r}; this "
            f"program reads {FORMAT!r}, version {FORMAT_VERSION}: use the version of heartseg_jax that wrote it"
        )
    return head


def contract_of(head: Mapping[str, Any], folder: Path) -> Contract:
    """Return the contract that `model.json` states."""
    return Contract.from_json(head.get("contract"), f"the package {folder}")


def config_of(head: Mapping[str, Any], folder: Path) -> FrozenConfigDict:
    """Return the config that `model.json` states."""
    try:
        return load.complete(head["config"])
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"the config of the package {folder} cannot be read ({error}); use another package") from error


def read_package(folder: Path) -> Package:
    """Return a package once both digests are right.

    Raises:
      UserError: a file is missing, damaged, cut short, of a later version, or does not fit the other.
    """
    head = read_head(folder)
    fix = f"copy the package again ({MODEL} and {WEIGHTS} belong together)"
    try:
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise UserError(f"{folder} is a package without a readable {WEIGHTS} ({error.strerror}); {fix}") from error
    try:
        weights, sources = head["weights"], head["sources"]
        if hashlib.sha256(content).hexdigest() != weights["sha256"]:
            raise UserError(f"{folder / WEIGHTS} is damaged: it is not what {MODEL} describes, by SHA-256; {fix}")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name].astype(np.float32) for name in stored.files}
        count = weights["members"]
        if not all(len(array) == count for array in arrays.values()) or len(sources) != count or not count:
            raise ValueError(f"not all arrays are of {count} members")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("an array is not finite")
        trees = [nested({name: array[member] for name, array in arrays.items()}) for member in range(count)]
        members = tuple((tree["params"], tree.get("batch_stats", {})) for tree in trees)
        _ = [
            (source["checkpoint_sha256"][:0], source["config_sha256"][:0], source["step"] + source["averaged"])
            for source in sources
        ]
        _ = head["name"][:0], head["version"][:0]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder} is not a package that this program can read ({error!r}); {fix}") from error
    except RuntimeError as error:  # zipfile's, of a Python that was built without LZMA
        raise UserError(f"{folder / WEIGHTS} cannot be read ({error}); use a Python that has lzma") from error
    stated = _OWN.findall((folder / MODEL).read_bytes())
    return Package(head, contract_of(head, folder), config_of(head, folder), members, stated[0].decode())
