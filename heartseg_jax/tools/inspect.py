"""The verb `inspect`: the arrays of a checkpoint by path, with shape, dtype and norm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.workdir import Workdir, read_config


def inspect(path: Path, step: int | None = None, *, as_json: bool = False) -> dict[str, Any]:
    """Print and return what the checkpoint of `step` (default: the last) of the run in `path` holds.

    The keys are `step`, `parameters` {total, trainable, frozen} and `arrays`, each with `path, shape, dtype,
    group, frozen, mean, std, l2, finite`. The optimizer's arrays are left out.

    Raises:
      UserError: no run there, no checkpoint, or none of that step.
    """
    folder = Workdir(path)
    read_config(folder)
    checkpoints = Checkpoints(folder.checkpoints)
    step = checkpoints.choose(step)
    state = checkpoints.restore_arrays(step)
    checkpoints.close()
    arrays = [
        describe(f"{kind}/{name}", array)
        for kind in ("params", "batch_stats")
        for name, array in leaves(state.get(kind) or {})
    ]
    total = sum(int(np.prod(row["shape"])) for row in arrays)
    trainable = sum(int(np.prod(row["shape"])) for row in arrays if row["path"].startswith("params/"))
    parameters = {"total": total, "trainable": trainable, "frozen": 0}
    found = {"step": step, "parameters": parameters, "arrays": arrays}
    print(json.dumps(found, allow_nan=False) if as_json else table(found))
    return found


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (path, array) of a tree of dicts, in the order of its keys."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from leaves(node, f"{prefix}{name}/")
        else:
            yield prefix + name, np.asarray(node)


def describe(path: str, array: np.ndarray) -> dict[str, Any]:
    """Return one row: what the array at `path` (such as params/encoder/stage1/conv1/kernel) holds."""
    parts = path.split("/")
    values = array.astype(np.float64)
    finite = bool(np.isfinite(values).all())
    number = lambda value: float(value) if finite else None  # noqa: E731
    return {
        "path": path,
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "group": "/".join(parts[1:3]) if parts[1] == "encoder" else parts[1],
        "frozen": False,
        "mean": number(values.mean()) if values.size else None,
        "std": number(values.std()) if values.size else None,
        "l2": number(np.sqrt(np.square(values).sum())),
        "finite": finite,
    }


def table(found: Mapping[str, Any]) -> str:
    """Lay the arrays out for the terminal."""
    width = max(len(row["path"]) for row in found["arrays"])
    head = f"{'array':<{width}}  {'shape':<18} {'dtype':<9} {'mean':>10} {'std':>10} {'l2':>10}"
    lines = [f"step {found['step']}", "", head, "-" * len(head)]
    for row in found["arrays"]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        numbers = " ".join(
            f"{row[key]:>10.4g}" if row[key] is not None else f"{'not finite':>10}" for key in ("mean", "std", "l2")
        )
        lines.append(f"{row['path']:<{width}}  {shape:<18} {row['dtype']:<9} {numbers}")
    p = found["parameters"]
    statistics = p["total"] - p["trainable"]
    return "\n".join([*lines, "", f"{p['total']:,} numbers: {p['trainable']:,} parameters, {statistics:,} statistics"])
