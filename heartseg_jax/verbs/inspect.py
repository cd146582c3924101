"""The verb `inspect`: the arrays of a checkpoint by path, what was frozen, and how two checkpoints differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl.flags import FlagValues

from heartseg_jax.config.flags import define_step, switches, texts
from heartseg_jax.errors import UserError


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        required="workdir",
        workdir="the run's folder, or a package's",
        against="another run, or the same one: list which arrays differ, bit for bit",
    )
    define_step("step", "which checkpoint: a step, or best (default: the last)", values)
    define_step("against_step", "which checkpoint of --against (default: the last)", values)
    switches(values, json="print JSON")


def run(values: FlagValues, argv: list[str]) -> None:
    """Print the arrays of a checkpoint, or how two checkpoints differ.

    Where a run has averaged weights (`train.ema_decay`), these are meant, and `averaged` is true. With --json the keys
    are `step`, `averaged`, `parameters` {total, trainable, frozen} and `arrays`, each with `path, shape,
    dtype, group, frozen, mean, std, l2, finite`; frozen is what the phase that led to this step did not train. The
    optimizer's arrays are left out. With --against, another run (or the same) at --against_step, the keys are instead
    `changed`, `unchanged`, `only_here` and `only_there`, lists of paths; a changed array differs in a bit, or in shape.

    Raises:
      UserError: no run there, no checkpoint, or none of that step.
    """
    if values.against_step is not None and not values.against:
        raise UserError("inspect --against_step is only used with --against=RUN; remove it")
    number, arrays, groups, frozen, averaged = _read(Path(values.workdir), values.step)
    if values.against:
        there = _read(Path(values.against), values.against_step)
        compared = compare(arrays, there.arrays)
        names = tuple(
            f"step {step} of {place}" + (" (averaged weights)" if own else "")
            for step, place, own in (
                (number, values.workdir, averaged),
                (there.step, values.against, there.averaged),
            )
        )
        print(json.dumps(compared) if values.json else differences(compared, *names))
        return
    rows = [describe(name, array, groups[name], groups[name] in frozen) for name, array in arrays.items()]
    counted = {True: 0, False: 0}
    for row, array in zip(rows, arrays.values(), strict=True):
        counted[row["frozen"]] += array.size if row["path"].startswith("params/") else 0
    total = sum(array.size for array in arrays.values())
    parameters = {"total": total, "trainable": counted[False], "frozen": counted[True]}
    found = {"step": number, "averaged": averaged, "parameters": parameters, "arrays": rows}
    print(json.dumps(found, allow_nan=False) if values.json else table(found))


class Contents(NamedTuple):
    """A checkpoint's parameters and BatchNorm statistics by path, the group of each, and which groups were frozen."""

    step: int
    arrays: dict[str, np.ndarray]
    groups: dict[str, str]
    frozen: frozenset[str]
    averaged: bool


def _read(path: Path, step: int | str | None) -> Contents:
    from heartseg_jax.models.tree import group_of, groups_in, named_arrays
    from heartseg_jax.training.networks import read_network

    network = read_network(path, step)
    arrays, groups = {}, {}
    for number, (params, batch_stats) in enumerate(network.members, 1):
        known = groups_in(params)
        for name, leaf in named_arrays({"params": params, "batch_stats": batch_stats}).items():
            # Of a package of several, each has its own paths; what a run's are called stays the same.
            where = f"{name}@{number}" if len(network.members) > 1 else name
            arrays[where], groups[where] = leaf, group_of(name.partition("/")[2], known)
    at = network.identities[0].step
    # Runs from before there were phases froze nothing.
    entered = [phase for phase in network.contract.phases if phase["first_step"] <= max(at, 1)]
    multipliers = entered[-1]["multipliers"] if entered else {}
    frozen = frozenset(group for group, multiplier in multipliers.items() if multiplier == 0)
    return Contents(at, arrays, groups, frozen, network.averaged)


def compare(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Return the paths of two checkpoints' arrays by whether they are the same, bit for bit."""
    both = [path for path in here if path in there]
    bits = lambda array: (array.shape, array.dtype, array.tobytes())  # noqa: E731
    alike = {path for path in both if bits(here[path]) == bits(there[path])}
    return {
        "changed": [path for path in both if path not in alike],
        "unchanged": [path for path in both if path in alike],
        "only_here": [path for path in here if path not in there],
        "only_there": [path for path in there if path not in here],
    }


def differences(compared: Mapping[str, list[str]], here: str, there: str) -> str:
    """Lay a comparison out for the terminal."""
    lines = [f"{here}, against {there}", ""]
    words = {"changed": "changed", "unchanged": "bit-identical", "only_here": "only here", "only_there": "only there"}
    for key, word in words.items():
        lines += [f"{word:<14} {path}" for path in compared[key]]
    counts = ", ".join(f"{len(compared[key])} {word}" for key, word in words.items())
    return "\n".join([*lines, "", f"{counts} (arrays; parameters and statistics, without the optimizer's)"])


def describe(path: str, array: np.ndarray, group: str, frozen: bool) -> dict[str, Any]:
    """Return one row: what the array at `path` (such as params/encoder/stage1/conv1/kernel) holds."""
    values = array.astype(np.float64)
    finite = bool(np.isfinite(values).all())
    number = lambda value: float(value) if finite else None  # noqa: E731
    return {
        "path": path,
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "group": group,
        "frozen": frozen,
        "mean": number(values.mean()) if values.size else None,
        "std": number(values.std()) if values.size else None,
        "l2": number(np.sqrt(np.square(values).sum())),
        "finite": finite,
    }


def table(found: Mapping[str, Any]) -> str:
    """Lay the arrays out for the terminal."""
    width = max(len(row["path"]) for row in found["arrays"])
    head = f"{'array':<{width}}  {'shape':<18} {'dtype':<9} {'':<6} {'mean':>10} {'std':>10} {'l2':>10}"
    which = " (averaged weights)" if found["averaged"] else ""
    lines = [f"step {found['step']}{which}", "", head, "-" * len(head)]
    for row in found["arrays"]:
        shape = "x".join(map(str, row["shape"])) or "scalar"
        numbers = " ".join(
            f"{row[key]:>10.4g}" if row[key] is not None else f"{'not finite':>10}" for key in ("mean", "std", "l2")
        )
        lines.append(
            f"{row['path']:<{width}}  {shape:<18} {row['dtype']:<9} {'frozen' if row['frozen'] else '':<6} {numbers}"
        )
    p = found["parameters"]
    statistics = p["total"] - p["trainable"] - p["frozen"]
    counts = f"{p['trainable']:,} parameters that learn, {p['frozen']:,} frozen ones, {statistics:,} statistics"
    return "\n".join([*lines, "", f"{p['total']:,} numbers: {counts}"])
