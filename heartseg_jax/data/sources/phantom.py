"""Phantom patients -> a dataset folder."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax import progress
from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.splits import SPLITS, block_splits, split_sizes
from heartseg_jax.data.dataset.write import Dataset, DatasetWriter, check_output, read_dataset, verify
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom.generator import VERSION, Phantom, PhantomSpec, generate


def prepare_phantom(
    output: str | Path,
    *,
    patients: int | None = None,
    counts: Sequence[int] | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    spec: PhantomSpec | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a dataset of phantom patients, the same bytes whatever the number of `threads`.

    Patient k is `generate(seed, k, spec)`, so that a larger dataset holds the patients of a smaller one.

    Args:
      output: the dataset folder.
      patients: how many; split by `fractions` (train, validation, test).
      counts: instead of `patients`, how many (train, validation, test): the first ones train.
      fractions: shares; used with `patients` alone.
      seed: of the population.
      spec: sampling of the phantoms; by default `PhantomSpec()`.
      overwrite: replace an existing dataset.
      threads: by default one a core.
      progress: called with (patients done, patients in all) after each.

    Raises:
      UserError: for numbers that cannot be, or a taken `output`.
    """
    spec = spec or PhantomSpec()
    if (patients is None) == (counts is None):
        raise UserError("say either how many phantom patients there are, or how many train, validate and test")
    total = int(sum(counts)) if counts is not None else int(patients or 0)
    if total < 1 or (counts is not None and min(counts) < 0):
        raise UserError(f"{total if counts is None else tuple(counts)} phantom patients: at least one is needed")
    check_output(output, overwrite)
    sizes = split_sizes(total, tuple(int(n) for n in counts) if counts is not None else fractions)
    splits = [split for split, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]
    alone = total == 1 and counts is None
    source: dict = {
        "kind": "phantom",
        "version": VERSION,
        "seed": seed,
        "spec": dataclasses.asdict(spec),
        "descriptions": {},
        "mitral_annuli": {},
    }
    with DatasetWriter(
        output,
        intensity="HU",
        height=spec.shape[1],
        width=spec.shape[2],
        label_set=HEART,
        source=source,
        split_kind="block" if alone else "patient",
        overwrite=overwrite,
    ) as writer:
        for index, phantom in enumerate(_generate_in_order(seed, total, spec, threads)):
            identity = f"phantom_{index:04d}"
            source["descriptions"][identity] = phantom.description
            source["mitral_annuli"][identity] = _annulus_record(phantom)
            writer.add(
                identity,
                phantom.volume.voxels.astype(np.int16, copy=False),
                phantom.labels,
                names=[f"{identity}/{z:03d}" for z in range(spec.shape[0])],
                split=block_splits(spec.shape[0], fractions) if alone else splits[index],
                spacing_mm=spec.spacing_mm,
                contiguous=True,
            )
            if progress:
                progress(index + 1, total)
    dataset = read_dataset(output)
    verify(dataset)
    return dataset


def _generate_in_order(seed: int, total: int, spec: PhantomSpec, threads: int | None) -> Iterator[Phantom]:
    workers = max(1, min(total, threads or os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        # A window, not `map`: finished volumes must not pile up in front of a slow disk.
        window = deque(pool.submit(generate, seed, k, spec) for k in range(min(total, workers + 1)))
        following = len(window)
        while window:
            phantom = window.popleft().result()
            if following < total:
                window.append(pool.submit(generate, seed, following, spec))
                following += 1
            yield phantom


def _annulus_record(phantom: Phantom) -> dict:
    annulus = phantom.annulus
    return {
        "centre_mm": [round(float(v), 4) for v in annulus.centre_mm],
        "normal": [round(float(v), 6) for v in annulus.normal],
        "diameters_mm": [round(float(v), 4) for v in annulus.diameters_mm],
    }


def make_phantoms(group: Any, output: Path, *, overwrite: bool = False) -> Dataset:
    """Make the phantom patients that `group` (a config's `data.phantom`) describes."""
    return prepare_phantom(
        output,
        counts=(group.train, group.validation, group.test),
        seed=group.seed,
        spec=PhantomSpec(tuple(group.shape), tuple(group.spacing_mm), group.randomised_contrast),
        overwrite=overwrite,
        progress=progress.bar("phantom patients"),
    )
