"""Where each network's time goes: a roofline picture, layer by layer, on this machine.

    python main.py benchmark --config=configs/benchmark.py --json=rows.jsonl
    python benchmarks/roofline.py --rows=rows.jsonl --output=docs/figures/roofline.png

Every layer kind of the networks in the rows is compiled and timed on its own, forward and with its gradients, at the
rows' size and batch. It stands at its operational intensity (FLOPs by arithmetic per byte that must cross the memory:
inputs, weights and results once each) and the speed that was measured. The lines are the speed of a matrix product (on
a CPU also on one core) and the bandwidth of a large array that is read and written, measured here before the layers.
Whole steps and predictions are those of the rows. A point above the slanted line has its data in the processor's cache.
FLOPs are those of the operation as it is written: the native kernels take fewer for a convolution, which may therefore
stand above the lines (docs/performance.md). The points' `cores` are CPU time by wall time.

  --rows      files of `benchmark --json`, with commas between them
  --output    the picture
  --seconds   that each layer is timed for
  --json      a file that receives the points
  --native_kernels=off    layers by XLA alone; the rows must have been measured in the same way
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from heartseg_jax.config import load
from heartseg_jax.figures.drawing import FAINT, INK, canvas
from heartseg_jax.files import write_text
from heartseg_jax.models import convolution, cost
from heartseg_jax.models.norm import norm_relu
from heartseg_jax.models.pointwise import pointwise
from heartseg_jax.models.speed import matmul_flops_per_second
from heartseg_jax.native.library import turn_on
from heartseg_jax.training.run import cost_shape

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "quickstart": "configs/quickstart.py",
    "transfer": "configs/transfer.py",
    "scratch-small": "configs/scratch.py:small",
    "scratch": "configs/scratch.py",
    "transfer-full": "configs/transfer.py:full",
}
TITLES = {"transfer": "transfer, width 16", "transfer-full": "transfer, 31 million parameters"}
KINDS = {
    "conv": ("3x3 convolution", "#0072B2", "o"),
    "up": ("2x2 transposed convolution", "#009E73", "s"),
    "norm": ("BatchNorm and ReLU", "#E69F00", "^"),
    "head": ("1x1 head", "#CC79A7", "D"),
}
"""Label, colour (Okabe and Ito's) and marker of each layer kind, by how its name in `cost.layer_costs` begins."""
WHOLES = {"train": ("training step", "*"), "infer": ("prediction", "P")}
LARGE_BYTES = 2**28
FLOAT_BYTES = 4


class Point(NamedTuple):
    """A layer, or all of a step: what was counted and what was measured."""

    network: str
    name: str
    part: str
    flops: float
    moved_bytes: float
    seconds: float
    cores: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.moved_bytes

    @property
    def gflops_per_s(self) -> float:
        """Speed."""
        return self.flops / self.seconds / 1e9


class Work(NamedTuple):
    """A layer of a batch: its arrays' elements, the FLOPs of its forward pass, and the function to time."""

    inputs: int
    outputs: int
    weights: int
    flops: int
    call: Callable[..., Any]
    image: tuple[int, ...]
    arrays: tuple[tuple[int, ...], ...]

    @property
    def forward_bytes(self) -> int:
        """What crosses the memory: inputs and weights are read, outputs written."""
        return FLOAT_BYTES * (self.inputs + self.outputs + self.weights)

    @property
    def backward_bytes(self) -> int:
        """Read: the outputs' gradient, inputs and weights; written: the gradients of inputs and weights."""
        return FLOAT_BYTES * (self.outputs + 2 * self.inputs + 2 * self.weights)


class Roofs(NamedTuple):
    """FLOPs per second of a matrix product, and on one core (None where unknown); bytes per second of the memory."""

    product: float
    one_core: float | None
    bandwidth: float


def kind_of(path: str) -> str:
    """Return the kind of a layer: of 'encoder/stage1/conv1' 'conv'."""
    return path.rpartition("/")[2].rstrip("12")


def work_of(layer: cost.LayerCost, batch: int, side: int) -> Work:
    """Return the layer as work on a batch; `side` is that of its output in pixels."""
    kind = kind_of(layer.path)
    if kind == "norm":
        channels = layer.arrays["scale"][0]
        image = (batch, side, side, channels)
        size = batch * layer.outputs
        return Work(size, size, 2 * channels, batch * layer.flops, norm_and_relu, image, ((channels,), (channels,)))
    kernel = layer.arrays["kernel"]
    inside = kernel[3] if kind == "up" else kernel[2]
    input_side = side // 2 if kind == "up" else side
    image = (batch, input_side, input_side, inside)
    call = {"conv": conv3x3, "up": up2x2, "head": head1x1}[kind]
    return Work(
        int(np.prod(image)), batch * layer.outputs, int(np.prod(kernel)), batch * layer.flops, call, image, (kernel,)
    )


def conv3x3(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """As in `Conv3x3`."""
    return convolution.convolve([image], kernel, jnp.zeros(kernel.shape[3]))


def up2x2(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """As in `UpConv`."""
    return pointwise(image, kernel, jnp.zeros(kernel.shape[2]))


def head1x1(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """As in `Head`."""
    return pointwise(image, kernel.swapaxes(2, 3), jnp.zeros(kernel.shape[3]))


def norm_and_relu(image: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """As in `ConvBlock`, with the batch's own statistics."""
    return norm_relu(image, scale, bias)[0]


def fastest(call: Callable[..., Any], given: tuple[Any, ...], seconds: float) -> tuple[float, float]:
    """Return the shortest time of a compiled call, of at least three, and the CPU time of all by their wall time."""
    compiled = jax.jit(call).lower(*given).compile()
    jax.block_until_ready(compiled(*given))
    times: list[float] = []
    cpu_s, until = time.process_time(), time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        times.append(time.perf_counter() - began)
    return min(times), (time.process_time() - cpu_s) / sum(times)


@functools.cache
def timed(work: Work, seconds: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return seconds and cores of a layer's forward pass, and of its gradients of inputs and weights."""
    draws = np.random.default_rng(0)
    image, *arrays = (jnp.asarray(draws.standard_normal(shape, np.float32)) for shape in (work.image, *work.arrays))
    change = jnp.ones(jax.eval_shape(work.call, image, *arrays).shape)

    def gradients(change: jax.Array, *given: jax.Array) -> Any:
        return jax.vjp(work.call, *given)[1](change)

    forward = fastest(work.call, (image, *arrays), seconds)
    return forward, fastest(gradients, (change, image, *arrays), seconds)


def bandwidth_bytes_per_s(seconds: float) -> float:
    """Return the bytes per second of a large array that is read and written."""
    array = jnp.ones(LARGE_BYTES // FLOAT_BYTES)
    return 2 * LARGE_BYTES / fastest(lambda array: array + 1.0, (array,), seconds)[0]


def one_core_flops_per_s() -> float | None:
    """Return the speed of a matrix product on one core, from a process that has no other; None where that is no CPU."""
    if jax.default_backend() != "cpu" or not hasattr(os, "sched_setaffinity"):
        return None
    code = (
        f"import os, sys; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); sys.path.append({str(ROOT)!r}); "
        "from heartseg_jax.models.speed import matmul_flops_per_second as f; print(f('float32', long=True))"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def points_of(rows: list[dict[str, Any]], seconds: float) -> list[Point]:
    """Return the points of one network: its layers, and its rows as wholes.

    A whole moves what its layers move. Of a step that is forward and backward, less the gradient of the image.
    """
    first = rows[0]
    name, size, batch = first["config"], first["size"], first["batch_size"]
    shape = cost_shape(load.load(CONFIGS[name])[1])
    found, seen = [], set()
    moved = {"infer": 0, "train": 0}
    for layer in cost.layer_costs(size, size, shape):
        channels = layer.arrays["bias"][0] * (shape.fold**2 if layer.path == "head" else 1)
        work = work_of(layer, batch, round((layer.outputs / channels) ** 0.5))
        moved["infer"] += work.forward_bytes
        moved["train"] += work.forward_bytes + work.backward_bytes
        if work in seen:
            continue
        seen.add(work)
        forward, backward = timed(work, seconds)
        found.append(Point(name, layer.path, "forward", work.flops, work.forward_bytes, *forward))
        found.append(Point(name, layer.path, "gradients", 2 * work.flops, work.backward_bytes, *backward))
    for row in rows:
        flops = row["flops_per_image"] * batch
        found.append(
            Point(
                name,
                "whole",
                row["work"],
                flops,
                moved[row["work"]],
                row["step_ms"] / 1e3,
                row["cpu_ms"] / row["step_ms"],
            )
        )
    return found


def draw(path: Path, points: list[Point], roofs: Roofs, caption: str) -> None:
    """Draw a panel per network."""
    networks = list(dict.fromkeys(point.network for point in points))
    columns = len(networks) if len(networks) < 4 else 2
    lines = -(-len(networks) // columns)
    low, high = 2.0**-3, 2.0 ** np.ceil(np.log2(max(point.intensity for point in points)) + 0.2)
    speeds = [point.gflops_per_s for point in points]
    bottom, top = min(speeds) / 1.5, 1.3 * max(1.4 * roofs.product / 1e9, *speeds)
    with canvas(path, 7.2 if columns > 1 else 3.6, 2.4 * lines + 0.8) as figure:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for name, axes in zip(networks, grid.flat, strict=False):
            draw_roofs(axes, roofs, low, high, named=name == networks[0])
            for point in points:
                if point.network == name:
                    axes.plot(point.intensity, point.gflops_per_s, linestyle="", **look(point))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlim(low, high)
            axes.set_ylim(bottom, top)
            axes.set_title(TITLES.get(name, name))
        for axes in grid.flat[len(networks) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("FLOP per byte")
        for axes in grid[:, 0]:
            axes.set_ylabel("GFLOP/s")
        figure.legend(handles=legend(), loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
        figure.suptitle(caption, fontsize=7.5, color=FAINT, x=0.01, ha="left")
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(64).save(path, optimize=True)


def draw_roofs(axes: Any, roofs: Roofs, low: float, high: float, *, named: bool) -> None:
    """Draw the speeds that no layer exceeds whose products are all computed, with their numbers where `named`."""
    across = np.geomspace(low, high, 200)
    axes.plot(across, np.minimum(roofs.product, across * roofs.bandwidth) / 1e9, color=INK, linewidth=1.2)
    flat = {"product": roofs.product}
    if roofs.one_core is not None:
        ridge = roofs.one_core / roofs.bandwidth
        axes.plot([ridge, high], [roofs.one_core / 1e9] * 2, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        flat = {"all cores": roofs.product, "one core": roofs.one_core}
    if not named:
        return
    style = {"textcoords": "offset points", "fontsize": 6.5, "color": INK, "va": "center"}
    for number, (words, speed) in enumerate(flat.items()):
        axes.annotate(f"{words}: {speed / 1e9:.0f}", (low, speed / 1e9), (3, 4 - 8 * number), **style)
    axes.annotate(f"memory: {roofs.bandwidth / 1e9:.0f} GB/s", (0.8, 0.36 * roofs.bandwidth / 1e9), (0, 0), **style)


def look(point: Point) -> dict[str, Any]:
    """Return how a point is drawn: layers by kind, forward filled and gradients open; wholes large and black."""
    if point.name == "whole":
        size = {"train": 14, "infer": 9}[point.part]
        return {
            "marker": WHOLES[point.part][1],
            "color": INK,
            "markersize": size,
            "markeredgecolor": "white",
            "zorder": 4,
        }
    _, colour, marker = KINDS[kind_of(point.name)]
    face = colour if point.part == "forward" else "white"
    return {"marker": marker, "markeredgecolor": colour, "markerfacecolor": face, "markersize": 4.5, "zorder": 3}


def legend() -> list[Any]:
    """Return the legend's entries."""
    from matplotlib.lines import Line2D

    small = {"linestyle": "", "markersize": 4.5}
    layers = [Line2D([], [], marker=m, color=colour, label=text, **small) for text, colour, m in KINDS.values()]
    parts = [
        Line2D([], [], marker="o", markeredgecolor=INK, markerfacecolor=face, label=text, **small)
        for face, text in ((INK, "forward"), ("white", "its gradients"))
    ]
    wholes = [
        Line2D([], [], marker=m, color=INK, linestyle="", markersize=9, label=text) for text, m in WHOLES.values()
    ]
    return [*layers, *parts, *wholes]


def main(argv: list[str]) -> None:
    """Time, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--native_kernels", choices=["on", "off"], default="on")
    asked = parser.parse_args(argv)
    native = asked.native_kernels == "on" and turn_on()
    rows = [json.loads(line) for file in asked.rows.split(",") for line in Path(file).read_text().splitlines()]
    rows = [row for row in rows if row["status"] == "measured"]
    by_network: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["native_kernels"] != native:
            parser.error(f"native kernels: {row['native_kernels']} in a row, and {native} here; measure both alike")
        if row["config"] not in CONFIGS or row["dtype"] != "float32":
            parser.error(f"{row['config']} in {row['dtype']}: only {', '.join(CONFIGS)} in float32 are drawn")
        by_network.setdefault(row["config"], []).append(row)
        if len({(own["size"], own["batch_size"]) for own in by_network[row["config"]]}) > 1:
            parser.error(f"the rows have {row['config']} at several sizes or batches: give those of one")
    roofs = Roofs(matmul_flops_per_second("float32", long=True), one_core_flops_per_s(), bandwidth_bytes_per_s(1.0))
    print(", ".join(f"{name} {value / 1e9:.1f} G/s" for name, value in roofs._asdict().items() if value))
    points: list[Point] = []
    for name, own in by_network.items():
        began = time.perf_counter()
        points += points_of(own, asked.seconds)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    for point in points:
        where = f"{point.network:<14} {point.name:<27} {point.part:<9}"
        print(f"{where} {point.intensity:7.2f} FLOP/B {point.gflops_per_s:7.1f} GFLOP/s {point.cores:4.1f} cores")
    if asked.json:
        write_text(asked.json, "".join(json.dumps(point._asdict()) + "\n" for point in points))
    about = [f"{rows[0]['date'][:10]}", f"{rows[0]['device']}", "float32", f"jax {jax.__version__}"]
    about.append("native kernels" if native else "XLA's kernels")
    if jax.default_backend() == "cpu":
        about[1] = f"{len(os.sched_getaffinity(0))} {platform.machine()} cores"
    draw(asked.output, points, roofs, ", ".join(about))


if __name__ == "__main__":
    main(sys.argv[1:])
