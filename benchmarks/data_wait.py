"""How long steps wait for data, as a share of a step: every shipped config, slices on the device and sent in batches.

python benchmarks/data_wait.py [--nets=quickstart,heart] [--steps=40] [--rounds=1] [--json=FILE]

Each cell is a short training in a process of its own, as a user starts it, with the config's own network, sizes and
batch, without figures. Configs that need data get random slices of the size and kind of their own; the others few
phantom patients of few slices, which changes the size of no batch. With --rounds the two ways take turns. The table
has medians over the steps (`perf/*` of `metrics.jsonl`, a row a step, the first left out), of which the best round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import load
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.imaging.tissues import LABEL_OF

ROOT = Path(__file__).resolve().parents[1]
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
KINDS = {"configs/brain.py": "uint8", "configs/lab.py": "uint8"}
"""Of the data of configs that have no phantoms; those of heart are named in its own paths."""
MIXED = {"datasets/anatomy": "tissue", "datasets/adults": "HU", "datasets/chd": "HU"}
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
                merge=labels.all_known,
            )


def changes_of(spec: str, folder: Path) -> dict[str, str]:
    """Return what is changed of a config so that it trains here: its data, and weights that come with no checkout."""
    _, config = load.load(spec)
    file = spec.partition(":")[0]
    found = {"pretrained.path": "", "pretrained.load": "encoder", "transfer.control": "false"}
    size = config.data.size * config.data.detail
    if file == "configs/heart.py":
        paths = []
        for name in config.data.path.split(","):
            write_random(folder / Path(name).name, MIXED[name], config.data.task, size)
            paths.append(str(folder / Path(name).name))
        return found | {"data.path": ",".join(paths)}
    if file in KINDS:
        write_random(folder / "data", KINDS[file], config.data.task, size)
        return found | {"data.path": str(folder / "data")}
    _, height, width = config.data.phantom.shape
    few = {"shape": f"{SLICES},{height},{width}", "train": "2", "validation": "1", "test": "1"}
    return found | {f"data.phantom.{name}": value for name, value in few.items()}


def measured(spec: str, changes: dict[str, str], steps: int, folder: Path) -> dict[str, float]:
    """Return the medians over the steps of one training, without the first."""
    fixed = {
        "train.steps": str(steps),
        "log.every_steps": "1",
        "log.evaluate_every_steps": str(steps),
        "checkpoint.every_steps": str(steps),
        "log.figures": "false",
    }
    guards = {f"guards.{name}": "off" for name in ("divergence", "collapse", "missing_labels", "images")}
    words = [f"--config.{name}={value}" for name, value in (fixed | guards | changes).items()]
    command = [sys.executable, "main.py", f"--config={spec}", f"--workdir={folder}", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)}\n{run.stderr[-2000:]}")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]
    names = ("perf/step_ms", "perf/data_wait_ms")
    return {name: statistics.median(row[name] for row in rows if name in row) for name in names}


def main(argv: list[str]) -> None:
    """Train each config both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(argv)
    print("| config | step, ms: sent | wait, ms | share | step, ms: on the device | wait, ms | share |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in asked.nets.split(","):
        with tempfile.TemporaryDirectory() as place:
            folder, rounds = Path(place), []
            changes = changes_of(NETS[name], folder)
            for number in range(asked.rounds):
                own: dict[str, Any] = {"config": name}
                for way in WAYS:
                    run = folder / f"run{number}{way}"
                    own[way] = measured(NETS[name], changes | {"data.resident": way}, asked.steps, run)
                rounds.append(own)
        if asked.json:
            with asked.json.open("a") as file:
                file.writelines(json.dumps(own) + "\n" for own in rounds)
        cells = []
        for way in WAYS:
            best = min((own[way] for own in rounds), key=lambda found: found["perf/step_ms"])
            step, wait = best["perf/step_ms"], best["perf/data_wait_ms"]
            cells += [f"{step:.0f}", f"{wait:.2f}", f"{wait / step:.2%}"]
        print(f"| `{NETS[name]}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
