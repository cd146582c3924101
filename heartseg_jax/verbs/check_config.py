"""The verb `check --config`: a summary of a config, before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import load
from heartseg_jax.config.channels import parse
from heartseg_jax.data.dataset.join import paths_of, read_datasets
from heartseg_jax.data.examples import steps_per_epoch
from heartseg_jax.data.run_dataset import resplit
from heartseg_jax.machine import devices
from heartseg_jax.models import cost
from heartseg_jax.models.speed import network_flops_per_second
from heartseg_jax.native import switch
from heartseg_jax.progress import duration
from heartseg_jax.training.cadence import STEP_COST

FIELD_OF_VIEW_MM = (200.0, 360.0)
"""Side of a slice, from a dedicated cardiac to a whole-chest reconstruction, where the config sets no spacing."""

TYPICAL_EXTENT_MM = {
    "ascending aorta (width)": 32,
    "left atrium (front to back)": 34,
    "left ventricle (width)": 48,
    "left ventricle (length)": 90,
    "right atrium (width)": 40,
    "right ventricle (width)": 33,
    "descending aorta (width)": 25,
    "pulmonary trunk (width)": 27,
    "superior vena cava (width)": 20,
}
"""Adult mid-range values, rounded; each is within 3 mm of the middle of its source's range, where it has one.

From abstracts: aorta 33 +- 4 and 24 +- 3 (Wolak et al., JACC Cardiovasc Imaging 2008; 1:200-209), pulmonary trunk
25.1 +- 2.8 (Truong et al., Circ Cardiovasc Imaging 2012; 5:147-154), superior cava 12 to 24, by area (PMID 19394871).
From quotations of echo guidelines: left ventricle 50 +- 4 in men and 45 +- 4 in women, right ventricle 25 to 41 at its
base (Lang et al., J Am Soc Echocardiogr 2015; 28:1-39); left atrium 27 to 40, right atrium 29 to 45 (an earlier
edition). The left ventricle's length is a common clinical value without a source."""


def check_config(name: str, config: Any, *, as_json: bool = False) -> None:
    """Print the resolved config, backend, parameters, receptive field, FLOPs, memory and estimated time.

    The keys `parameters` {total, trainable, statistics}, `flops_per_image`, `step_memory_bytes` and `config` are
    fixed. `flops_per_image` is the forward pass; a training step costs about three times as much per image.
    `estimate` has `step_s`, `steps` and `run_s`, the last two null where the dataset is not there.
    """
    model, size = config.model, config.data.size
    channels = len(parse(config.data.channels, None))
    labels = LABEL_SETS[config.data.task]
    shape = cost.shape_of(model, labels, channels)
    layers = cost.layer_costs(size, size, shape)
    trainable, statistics = sum(layer.parameters for layer in layers), sum(layer.statistics for layer in layers)
    field = cost.receptive_field(model.levels, model.fold)
    platform, kinds = devices()
    found: dict[str, Any] = {
        "name": name,
        "backend": {"platform": platform, "devices": kinds},
        "parameters": {
            "total": trainable + statistics,
            "trainable": trainable,
            "statistics": statistics,
        },
        "receptive_field": {"pixels": field, "mm": _field_mm(config, field)},
        "flops_per_image": cost.forward_flops(size, size, shape),
        "step_memory_bytes": cost.step_memory_bytes(
            config.data.batch_size, size, size, shape, model.dtype, averaged=config.train.ema_decay > 0
        ),
        "config": load.to_plain(config),
    }
    found["estimate"] = estimate(config, found["flops_per_image"])
    print(json.dumps(found) if as_json else _page(found, cost.array_shapes(shape)))


def estimate(config: Any, flops_per_image: int) -> dict[str, Any]:
    """Return `step_s`, `steps` and `run_s` of a run, the last two None where the data are not there yet.

    Right within a factor of about two; compilation and evaluation are not counted.
    """
    rate = network_flops_per_second(config.model.dtype, native=switch.are_possible())
    step_s = STEP_COST * flops_per_image * config.data.batch_size / rate
    steps = total_steps(config)
    return {"step_s": step_s, "steps": steps, "run_s": None if steps is None else steps * step_s}


def total_steps(config: Any) -> int | None:
    """Return the number of steps of the run, or None where that follows from a dataset that is not there.

    Raises:
      UserError: what is there is not a dataset, or does not have the config's patients.
    """
    if config.train.steps:
        return int(config.train.steps)
    slices = config.data.phantom.train * config.data.phantom.shape[0]
    if config.data.path:
        if not all(path.exists() for path in paths_of(config.data.path)):
            return None
        slices = len(resplit(read_datasets(config.data.path), config).examples("train"))
    return int(steps_per_epoch(slices, config.data.batch_size) * config.train.epochs)


def _field_mm(config: Any, pixels: int) -> list[float]:
    """Return the side of the receptive field in mm, for the smallest and the largest pixel of this config."""
    if config.data.mm_per_pixel > 0:
        return [pixels * config.data.mm_per_pixel] * 2
    return [pixels * view / config.data.size for view in FIELD_OF_VIEW_MM]


def _page(found: dict[str, Any], arrays: Mapping[str, tuple[int, ...]]) -> str:
    """Return the page for the terminal."""
    lines = [f"config {found['name']}"]
    lines += [f"  {field:<32} {value}" for field, value in load.fields(found["config"])]
    backend = found["backend"]
    lines += ["", f"backend  {backend['platform']} ({', '.join(backend['devices'])})", "", "parameters"]
    for path, shape in arrays.items():
        lines.append(f"  {path:<52} {'x'.join(map(str, shape)):<16} {math.prod(shape):>12,}")
    p = found["parameters"]
    lines.append(f"  {p['total']:,} in total: {p['trainable']:,} trainable, {p['statistics']:,} BatchNorm statistics")
    low, high = found["receptive_field"]["mm"]
    pixels = found["receptive_field"]["pixels"]
    span = f"{low:.0f} mm" if low == high else f"{low:.0f} to {high:.0f} mm, by field of view"
    lines += ["", f"receptive field  {pixels} pixels ({span}), compared with the structures (adult, mid-range):"]
    for structure, extent in TYPICAL_EXTENT_MM.items():
        mark = "   wider than the receptive field" if extent > high else ""
        lines.append(f"  {structure:<32} {extent:>4} mm{mark}")
    if wider := sum(extent > high for extent in TYPICAL_EXTENT_MM.values()):
        lines.append(
            f"  WARNING: {wider} of {len(TYPICAL_EXTENT_MM)} extents are wider than what one output "
            "pixel sees: more model.levels or a coarser data.mm_per_pixel widens it"
        )
    size, batch, time = found["config"]["data"]["size"], found["config"]["data"]["batch_size"], found["estimate"]
    whole = (
        f"about {duration(time['run_s'])} for {time['steps']:,} steps"
        if time["steps"]
        else "no dataset at data.path yet"
    )
    lines += [
        "",
        f"forward pass      {found['flops_per_image'] / 1e9:.2f} GFLOP per image of {size}x{size} "
        "(a training step: about 3 times as much)",
        f"memory of a step  about {found['step_memory_bytes'] / 2**30:.2f} GiB for {batch} images "
        "(weights, optimizer and activations; the compiler's scratch space is extra)",
        f"time on {backend['platform']:<10}about {duration(time['step_s'])} per step; {whole} (estimated from FLOPs "
        "and the speed of a matrix product, within a factor of about 2; compilation and evaluation are extra)",
    ]
    return "\n".join(lines)
