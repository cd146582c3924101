"""How long steps wait for data, as a share of a step: every shipped config, slices on the device and sent in batches.

python benchmarks/data_wait.py [--nets=quickstart,heart] [--steps=20] [--json=FILE]

Each config's own network, sizes and batch, on random slices of the size and kind of its own data and from random
weights, in its last phase. Steps follow each other as in `train`: the next batch is made ready while a step runs, and
the metrics of the one before are fetched. The table has medians over the steps, without those of the warm-up, in which
batches that are sent have been read once; and the time that reading and sending all slices takes, by slice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.benchmarking.weights import initial_state
from heartseg_jax.config import load
from heartseg_jax.data.dataset.join import read_datasets
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.data.examples import steps_per_epoch
from heartseg_jax.imaging.tissues import LABEL_OF
from heartseg_jax.native.library import turn_on
from heartseg_jax.training import devices
from heartseg_jax.training.clock import Clock
from heartseg_jax.training.feed import open_feed
from heartseg_jax.training.run import Run, run_of
from heartseg_jax.workdir import Workdir

NETS = {
    "quickstart": "configs/quickstart.py",
    "scratch": "configs/scratch.py",
    "scratch:small": "configs/scratch.py:small",
    "transfer": "configs/transfer.py",
    "transfer:full": "configs/transfer.py:full",
    "synthetic": "configs/synthetic.py",
    "heart": "configs/heart.py",
    "heart:base": "configs/heart.py:base",
    "brain": "configs/brain.py",
    "brain:small": "configs/brain.py:small",
    "lab": "configs/lab.py",
}
KINDS = {
    "configs/brain.py": ("uint8",),
    "configs/lab.py": ("uint8",),
    "configs/heart.py:base": ("tissue", "HU"),
    "configs/heart.py": ("tissue", "HU", "HU"),
}
"""Of the datasets of configs that have no phantoms in HU."""
SLICES, PATIENTS = 24, {"a": "train", "b": "train", "c": "validation", "d": "test"}
WAYS = ("off", "on")
"""Of `data.resident`."""


def write_random(path: Path, intensity: str, task: str, size: int) -> None:
    """Write a dataset of random pixels: four patients of `SLICES` slices of `size` x `size`."""
    rng, labels = np.random.default_rng(0), LABEL_SETS[task]
    with DatasetWriter(
        path, intensity=intensity, height=size, width=size, label_set=labels, source={"kind": "random"}
    ) as writer:
        for patient, split in PATIENTS.items():
            shape = (SLICES, size, size)
            if intensity == "tissue":
                images = rng.choice(np.arange(len(LABEL_OF), dtype=np.uint8), shape)
            elif intensity == "HU":
                images = rng.integers(-1000, 1000, shape, np.int16)
            else:
                images = rng.integers(0, 256, shape, np.uint8)
            known = np.flatnonzero(np.array(labels.all_known))
            writer.add(
                patient,
                images,
                rng.choice(known.astype(np.uint8), shape),
                names=[f"{patient}_{z}" for z in range(SLICES)],
                split=split,
                spacing_mm=(1.0, 1.0, 1.0),
                contiguous=True,
                merge=labels.all_known,
            )


def run_on_random(spec: str, steps: int, folder: Path) -> Run:
    """Return the run of a config on random data of the size of its own."""
    _, config = load.load(spec)
    kinds = KINDS.get(spec) or KINDS.get(spec.partition(":")[0]) or ("HU",)
    epoch = steps_per_epoch(list(PATIENTS.values()).count("train") * SLICES * len(kinds), config.data.batch_size)
    size = config.data.size * config.data.detail
    for number, kind in enumerate(kinds):
        write_random(folder / f"data{number}", kind, config.data.task, size)
    paths = ",".join(str(folder / f"data{number}") for number in range(len(kinds)))
    shares = ("1",) * len(kinds) if kinds[1:] else ()
    changes = {"data.path": paths, "data.shares": shares, "train.steps": steps + epoch, "data.mm_per_pixel": 0.0}
    config = load.changed(config, changes)
    return run_of(config, Workdir(folder / "run"), read_datasets(paths))


def measured(run: Run, resident: bool) -> dict[str, float]:
    """Return medians over the steps of the run's last phase, and what it takes to read and send a slice."""
    config, program = run.config, run.program(len(run.phases) - 1)
    state = devices.replicate(run.mesh, initial_state(run.model, program, config, len(run.contract.input.channels)))
    warm_up = steps_per_epoch(len(run.examples), config.data.batch_size)
    with closing(open_feed(run, resident)) as feed:
        began = time.perf_counter()
        feed.load()
        load_s = time.perf_counter() - began
        for _ in range(warm_up):
            given = next(feed)
        devices.compile_step(program.step, state, given, run.key)
        clock, before, rows = Clock(), None, []
        clock.start()
        for _ in range(run.total_steps - warm_up):
            state, metrics = program.step(state, given, run.key)
            with clock.waiting():
                given = next(feed) if len(rows) + 1 < run.total_steps - warm_up else None
            if before is not None:
                jax.device_get(before)
            before = metrics
            clock.step()
            rows.append(clock.lap(config.data.batch_size, 0.0))
    names = {"step_ms": "perf/step_ms", "wait_ms": "perf/data_wait_ms"}
    found = {name: statistics.median(row[key] for row in rows[2:-1]) for name, key in names.items()}
    slices = len(run.examples) + (0 if run.watched is run.examples else len(run.watched))
    return found | {"load_ms": 1e3 * load_s / slices}


def main(argv: list[str]) -> None:
    """Take the steps of each config both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(argv)
    turn_on()  # as in a run
    print("| config | sent: step, ms | wait, ms | share | kept: step, ms | wait, ms | share | to send, ms a slice |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in asked.nets.split(","):
        row: dict[str, Any] = {"config": NETS[name]}
        cells = []
        with tempfile.TemporaryDirectory() as place:
            run = run_on_random(NETS[name], asked.steps, Path(place))
            for way in WAYS:
                row[way] = measured(run, way == "on")
                step, wait = row[way]["step_ms"], row[way]["wait_ms"]
                cells += [f"{step:.0f}", f"{wait:.2f}", f"{wait / step:.2%}"]
        if asked.json:
            with asked.json.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(f"| `{NETS[name]}` | {' | '.join(cells)} | {row['on']['load_ms']:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
