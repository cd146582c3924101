"""Reading a study of 300 slices of 512x512, uncompressed: this project's reader and checks against pydicom's loop.

python benchmarks/dicom_reading.py [--slices=300] [--rounds=5]

Both in one process, in turns, after one round to warm the disk's cache: medians and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pydicom

from heartseg_jax.imaging.dicom.study import read_study
from tests.dicom_writer import write_series


def plain_loop(folder: Path) -> int:
    """Decode every file as the shortest script would: no order, no geometry, no check."""
    return sum(int(pydicom.dcmread(path).pixel_array[0, 0]) for path in folder.iterdir())


def seconds(work: Callable[[Path], object], folder: Path) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    work(folder)
    return time.perf_counter() - began


def main(argv: list[str]) -> None:
    """Write the study, read it in turns, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    hu = np.full((asked.slices, 512, 512), -1000, np.int16)
    hu[:, 100:400, 80:430] = rng.integers(-100, 500, (300, 350), dtype=np.int16)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        write_series(folder, hu, (1.0, 0.6, 0.6))
        kinds: dict[str, Callable[[Path], object]] = {"pydicom alone": plain_loop, "read_study": read_study}
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(asked.rounds + 1):
            for name, work in kinds.items():
                taken = seconds(work, folder)
                if number:
                    found[name].append(taken)
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, median in medians.items():
        print(f"{name:<14} {median:.2f} s  ({min(found[name]):.2f} to {max(found[name]):.2f})")
    print(f"ratio          {medians['read_study'] / medians['pydicom alone']:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
