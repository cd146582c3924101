"""Thousands of damaged DICOM files, each read in a process that may not hang, crash or take 2 GiB.

python benchmarks/fuzz_dicom.py ../shared/data/dicom [--mutants=2000] [--seed=0]

Each mutant is one file, or the small series, with bytes flipped, an end cut off, a tag deleted, or files shuffled and
doubled. It must end in a volume or in a clear refusal (UserError). Prints a table of outcomes; exit 1 where a mutant
ended otherwise, with its number, so that `--only=N` shows it again.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pydicom

from heartseg_jax import findings
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.series import read_block
from heartseg_jax.imaging.dicom.study import read_contents

MOST_SECONDS, MOST_BYTES = 10.0, 2 * 2**30
KINDS = ("flip", "flip_header", "truncate", "delete_tag", "shuffle")


def mutate(files: list[Path], number: int, seed: int, folder: Path) -> str:
    """Write mutant `number` into `folder` and return what was done."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    if kind == "shuffle":
        series = [path for path in files if path.parent.name.startswith("siemens")]
        chosen = rng.choice(len(series), int(rng.integers(2, 8)), replace=True)
        for place, which in enumerate(chosen):
            shutil.copy(series[which], folder / f"{rng.integers(10**9)}_{place}")
        return f"{kind} of {len(chosen)} slices, {len(set(chosen.tolist()))} of them different"
    source = files[int(rng.integers(len(files)))]
    content = bytearray(source.read_bytes())
    if kind == "truncate":
        content = content[: int(rng.integers(1, len(content)))]
    elif kind == "delete_tag":
        content = bytearray(_without_tag(bytes(content), rng))
    else:
        end = min(len(content), 2000) if kind == "flip_header" else len(content)
        for place in rng.integers(0, end, int(rng.integers(1, 33))):
            content[place] ^= 1 << int(rng.integers(8))
    (folder / source.name).write_bytes(content)
    return f"{kind} in {source.name}"


def _without_tag(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file without one of its elements; as it was where pydicom cannot write it."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        tags = list(dataset.keys())
        del dataset[tags[int(rng.integers(len(tags)))]]
        target = io.BytesIO()
        dataset.save_as(target)
        return target.getvalue()
    except Exception:
        return content


def outcome(folder: Path) -> str:
    """Read a study as `check` and `prepare` do, and say how it ended."""
    try:
        candidates, *_ = read_contents(folder)
        if not candidates:
            return "refused: no image"
        best = candidates[0]
        if best.stack is None:
            return f"refused: {next(f.check for f in best.findings if f.level == findings.REFUSE)}"
        volume, values = read_block(best)
        if not np.isfinite(volume.direction).all():
            return "BAD: a geometry that is not finite"
        every = [*best.findings, *values]
        refused = [finding.check for finding in every if finding.level == findings.REFUSE]
        return f"read, then refused: {refused[0]}" if refused else "read"
    except UserError:
        return "refused: cannot be decoded"


def _work(pipe: Any) -> None:
    limit = MOST_BYTES + 2**30  # of address space: what libraries map without using counts too
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        folder = pipe.recv()
        try:
            pipe.send(outcome(Path(folder)))
        except BaseException as error:
            pipe.send(f"BAD: {type(error).__name__}: {error}")


class Worker:
    """A process that reads studies, started again when one takes it down."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self.pipe, other = self._context.Pipe()
        self.process = self._context.Process(target=_work, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def read(self, folder: Path) -> str:
        """Return the outcome of one study, also where it hangs or takes the process down."""
        self.pipe.send(str(folder))
        try:
            if self.pipe.poll(MOST_SECONDS + 20):
                return self.pipe.recv()
            said = "BAD: hangs"
        except (EOFError, ConnectionError):
            self.process.join()
            said = f"BAD: the process died with status {self.process.exitcode}"
        self.process.kill()
        self._start()
        return said


def run(source: Path, numbers: range, seed: int) -> tuple[Counter[str], list[str]]:
    """Return the outcomes of the mutants, counted, and the bad ones in words."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    counts: Counter[str] = Counter()
    bad: list[str] = []
    worker = Worker()
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            what = mutate(files, number, seed, Path(folder))
            began = time.perf_counter()
            said = worker.read(Path(folder))
            seconds = time.perf_counter() - began
        # The first one pays for starting the process.
        if seconds > MOST_SECONDS and number != numbers[0] and not said.startswith("BAD"):
            said = f"BAD: took {seconds:.0f} s"
        counts[said.split(":")[0] if said.startswith("BAD") else said] += 1
        if said.startswith("BAD"):
            bad.append(f"mutant {number} ({what}): {said}")
            print(bad[-1], flush=True)
    worker.process.kill()
    return counts, bad


def main(argv: list[str]) -> int:
    """Run the mutants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    asked = parser.parse_args(argv)
    numbers = range(asked.mutants) if asked.only is None else range(asked.only, asked.only + 1)
    counts, bad = run(asked.source, numbers, asked.seed)
    for said, count in counts.most_common():
        print(f"| {said} | {count} |")
    print(f"{sum(counts.values())} mutants, {len(bad)} ended badly")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
