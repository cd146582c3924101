"""This project beside PyTorch, Keras 3 and MONAI: the same networks, weights, batch and loss, on this machine.

    pip install -r requirements.txt
    pip install torch --index-url https://download.pytorch.org/whl/cpu     (on a GPU: pip install torch)
    pip install keras monai
    python benchmarks/peers.py --nets=quickstart,transfer --work=train --threads=2 --allocator=hugetlb

The peers are not requirements of the project. Every side runs in a process of its own, on the same batch and weights;
number of parameters and loss (of inference: probabilities) must agree before anything is timed. MONAI's network is
another one, so of it only the speed is comparable. Then the sides take turns, one running while the others wait.

  --nets       of quickstart, transfer, scratch, full (see NETS)
  --work       of train, infer (a batch, and the next when it is there) and study (eight batches, as the slices of a
               study are predicted: here two at once, in PyTorch one after the other, in torch-nhwc-pair two at once)
  --sides      of ours, torch, torch-nhwc, torch-compile, torch-compile-nhwc, torch-nhwc-pair, keras-jax,
               keras-torch, monai; or all. ours@FOLDER is the checkout at FOLDER, so that two versions of this
               project can be compared.
  --threads    1 keeps every side on one core; 2 allows two
  --allocator  stock; hugetlb (GLIBC_TUNABLES=glibc.malloc.hugetlb=1); or a library to preload. For all sides alike.
  --seconds    that a side runs per round; --rounds: how many
  --dtype      float32, or on a GPU bfloat16 (autocast in PyTorch)
  --json       a file that receives a row per side, network and work

The table has per image the median wall time of a step, CPU time and page faults, the peak of resident memory while
steps were taken, and `ratio`: that side's time divided by that of the first side, median over the rounds. Above 1 the
first side is faster. What other programs used of the machine meanwhile stands above it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


class Net(NamedTuple):
    """A network and a batch: a config and what is changed of it."""

    config: str
    overrides: dict[str, str]


COMMON = {"model.dropout": "0", "data.augment": "none", "pretrained.path": "", "transfer.schedule": "none"}
NETS = {
    "quickstart": Net("configs/quickstart.py", {}),
    "transfer": Net("configs/transfer.py", {"data.size": "128", "data.batch_size": "4"}),
    "scratch": Net("configs/scratch.py", {"data.size": "128", "data.batch_size": "2"}),
    "full": Net("configs/transfer.py:full", {"data.size": "128", "data.batch_size": "2"}),
}
KINDS: dict[str, dict[str, Any]] = {
    "ours": {"kind": "ours"},
    "torch": {"kind": "torch", "layout": "nchw", "compiled": False},
    "torch-nhwc": {"kind": "torch", "layout": "nhwc", "compiled": False},
    "torch-compile": {"kind": "torch", "layout": "nchw", "compiled": True},
    "torch-compile-nhwc": {"kind": "torch", "layout": "nhwc", "compiled": True},
    "torch-nhwc-pair": {"kind": "torch", "layout": "nhwc", "compiled": False, "pair": True},
    "keras-jax": {"kind": "keras", "env": {"KERAS_BACKEND": "jax"}},
    "keras-torch": {"kind": "keras", "env": {"KERAS_BACKEND": "torch"}},
    "monai": {"kind": "monai"},
}
NEEDS = {"torch": "torch", "keras": "keras", "monai": "monai"}
STUDY = 8
"""Batches of a study, as in `peers_worker`."""
WORKER = (sys.executable, str(ROOT / "benchmarks" / "peers_worker.py"))
LOSS_TOLERANCE, PROBABILITY_TOLERANCE = 1e-4, 1e-3
"""In bfloat16, where rounding is coarser, 200 times as much."""


class Worker:
    """A side in its own process."""

    def __init__(self, name: str, net: Net, work: str, place: Path, given: argparse.Namespace):
        self.name, self.ready, self.rounds = name, None, []
        kind, _, folder = name.partition("@")
        asked = (
            KINDS[kind]
            | start_of(net, place, given)
            | {
                "name": name,
                "root": str(Path(folder).resolve()) if folder else str(ROOT),
                "threads": given.threads,
                "work": work,
                "dtype": given.dtype,
            }
        )
        env = os.environ | environment(given.threads, given.allocator) | asked.get("env", {})
        command = [*WORKER, json.dumps(asked)]
        if given.threads == 1 and hasattr(os, "sched_getaffinity"):
            command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open for as long as the process is)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=env
        )

    def answer(self) -> dict[str, Any]:
        """Return the next line that the process writes."""
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{self.name} has failed:\n{self._errors.read()[-3000:]}")
        return json.loads(line)

    def round(self, seconds: float) -> None:
        """Let it take steps for some seconds while the others wait."""
        before = machine_busy_s()
        print(json.dumps({"seconds": seconds}), file=self._process.stdin, flush=True)
        found = self.answer()
        found["others"] = None
        if before is not None:
            (busy, whole), (busy_before, whole_before) = machine_busy_s(), before
            own = found["user_s"] + found["system_s"]
            found["others"] = max(0.0, (busy - busy_before - own) / max(whole - whole_before, 1e-9))
        self.rounds.append(found)

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()


def start_of(net: Net, place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return what a worker is told of a network."""
    overrides = COMMON | net.overrides | {"model.dtype": given.dtype}
    return {"root": str(ROOT), "config": net.config, "overrides": overrides, "place": str(place)}


def environment(threads: int, allocator: str) -> dict[str, str]:
    """Return the variables that every side is started with."""
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if threads == 1:
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    if allocator == "hugetlb":
        found["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    elif allocator != "stock":
        found["LD_PRELOAD"] = allocator
    return found


def machine_busy_s() -> tuple[float, float] | None:
    """Return the seconds of CPU time that the machine has spent working, and all that have passed; None if unknown."""
    try:
        words = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    except OSError:
        return None
    ticks = [int(word) for word in words[:8]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


def compare(name: str, work: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of one network and one kind of work."""
    with tempfile.TemporaryDirectory() as folder:
        place, workers = Path(folder), []
        written = start_of(NETS[name], place, given) | {"write": True}
        subprocess.run([*WORKER, json.dumps(written)], check=True, stdout=subprocess.DEVNULL)
        try:
            for side in given.sides:
                if side == "monai" and name in ("quickstart", "scratch"):
                    continue  # BasicUNet has five levels
                workers.append(Worker(side, NETS[name], work, place, given))
            for worker in workers:
                worker.ready = worker.answer()
            check(workers, place, given.dtype)
            for _ in range(given.rounds):
                for worker in workers:
                    worker.round(given.seconds)
        finally:
            for worker in workers:
                worker.close()
    return [row(worker, workers[0], name, work, given) for worker in workers]


def check(workers: list[Worker], place: Path, dtype: str) -> None:
    """Stop where sides that ought to be the same network are not."""
    first, factor = workers[0].ready, 200 if dtype == "bfloat16" else 1
    written = lambda worker: place / f"{worker.name.replace('/', '_')}.probabilities.npy"  # noqa: E731
    mine = np.load(written(workers[0])) if first["loss"] is None else None
    for worker in workers[1:]:
        if worker.name == "monai":
            continue
        if worker.ready["parameters"] != first["parameters"]:
            raise SystemExit(f"{worker.name}: {worker.ready['parameters']} parameters, not {first['parameters']}")
        if mine is not None:
            apart = float(np.abs(np.load(written(worker)) - mine).max())
            if apart > factor * PROBABILITY_TOLERANCE:
                raise SystemExit(f"{worker.name}: probabilities differ by up to {apart:.2g}")
        elif abs(worker.ready["loss"] - first["loss"]) > factor * LOSS_TOLERANCE:
            raise SystemExit(f"{worker.name}: the loss is {worker.ready['loss']:.6f}, not {first['loss']:.6f}")


def row(worker: Worker, first: Worker, name: str, work: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what is known of a side, per image."""
    overrides = NETS[name].overrides
    batch = int(overrides.get("data.batch_size", 8))
    images = batch * (STUDY if work == "study" else 1)  # of one time
    count = sum(len(r["times"]) for r in worker.rounds) * images
    total = {key: sum(r[key] for r in worker.rounds) for key in ("user_s", "system_s", "faults")}
    medians = [statistics.median(r["times"]) for r in worker.rounds]
    ratios = [m / statistics.median(r["times"]) for m, r in zip(medians, first.rounds, strict=True)]
    cpu = [(r["user_s"] + r["system_s"]) / len(r["times"]) for r in worker.rounds]
    cpu_first = [(r["user_s"] + r["system_s"]) / len(r["times"]) for r in first.rounds]
    others = [r["others"] for r in worker.rounds if r["others"] is not None]
    return {
        "net": name,
        "work": work,
        "side": worker.name,
        "batch": batch,
        "threads": given.threads,
        "allocator": given.allocator,
        "dtype": given.dtype,
        "parameters": worker.ready["parameters"],
        "loss": worker.ready["loss"],
        "wall_ms": 1e3 * statistics.median(t for r in worker.rounds for t in r["times"]) / images,
        "cpu_ms": 1e3 * (total["user_s"] + total["system_s"]) / count,
        "system_ms": 1e3 * total["system_s"] / count,
        "faults": total["faults"] / count,
        "peak_mib": max(r["peak_bytes"] for r in worker.rounds) / 2**20,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "cpu_ratio": statistics.median(c / f for c, f in zip(cpu, cpu_first, strict=True)),
        "others": statistics.mean(others) if others else None,
        "ready_s": worker.ready["ready_s"],
        **worker.ready["about"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as Markdown."""
    lines = [
        "| network | work | side | parameters | wall, ms | CPU, ms | of it system | faults | peak, MiB | ratio, wall "
        "| (range) | ratio, CPU | others' load |",
        "|---" * 13 + "|",
    ]
    for r in rows:
        low, high = r["ratio_range"]
        load = "unknown" if r["others"] is None else f"{100 * r['others']:.0f} %"
        lines.append(
            f"| {r['net']} | {r['work']} | {r['side']} | {r['parameters']:,} | {r['wall_ms']:.2f} | {r['cpu_ms']:.2f} "
            f"| {r['system_ms']:.2f} | {r['faults']:.0f} | {r['peak_mib']:.0f} | **{r['ratio']:.2f}** "
            f"| {low:.2f} to {high:.2f} | {r['cpu_ratio']:.2f} | {load} |"
        )
    return "\n".join(lines)


def missing(sides: list[str]) -> str | None:
    """Return one line where a library of a side is not installed."""
    for side in sides:
        kind = KINDS[side.partition("@")[0]]
        wanted = [NEEDS[kind["kind"]]] if kind["kind"] in NEEDS else []
        wanted += ["torch"] if "torch" in side or side == "monai" else []
        for module in wanted:
            if importlib.util.find_spec(module) is None:
                return f"{side} needs {module}, which is not installed: pip install {module} (see --help)"
    return None


def main() -> None:
    """Compare, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--work", default="train")
    parser.add_argument("--sides", default="ours,torch,torch-nhwc")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", default="stock")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.sides = list(KINDS) if given.sides == "all" else given.sides.split(",")
    nets, works = given.nets.split(","), given.work.split(",")
    kinds = [side.partition("@")[0] for side in given.sides]
    for word, known in ((nets, NETS), (works, ("train", "infer", "study")), (kinds, KINDS)):
        if wrong := [one for one in word if one not in known]:
            parser.error(f"{wrong[0]} is unknown; choose from {', '.join(known)}")
    if KINDS[given.sides[0].partition("@")[0]]["kind"] != "ours":
        parser.error("the first of --sides must be ours: it writes the weights and the batch for the others")
    if line := missing(given.sides):
        raise SystemExit(line)
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {cpu_name()}, {given.threads} threads, allocator {given.allocator}, "
        f"{given.dtype}, Python {platform.python_version()}"
    )
    rows: list[dict[str, Any]] = []
    for name in nets:
        for work in works:
            began = time.perf_counter()
            rows += compare(name, work, given)
            print(f"{name} {work}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(", ".join(sorted({r["version"] for r in rows})), "\n")
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def cpu_name() -> str:
    """Return the processor's name, or the machine's kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    main()
