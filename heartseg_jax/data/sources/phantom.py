"""Phantom patients, as a config's `data.phantom` describes them."""

from __future__ import annotations

import dataclasses
import os
from functools import partial

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.splits import SPLITS
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom.generator import VERSION, PhantomSpec
from heartseg_jax.imaging.phantom.processes import generate_in_process

LEAST_PER_PROCESS = 3
"""Patients that are worth a process: it takes half a second to start, a patient about one."""


def phantom(options: Options) -> Source:
    """Return the phantom patients of `options.phantom`; the first ones train, then validation, then test.

    Patient k is `generate(seed, k, spec)`, so that a larger dataset holds the patients of a smaller one, and the bytes
    are the same whatever the number of workers.

    Raises:
      UserError: for numbers of patients that cannot be.
    """
    group = options.phantom
    if group is None:
        raise UserError("prepare --source=phantom needs --config=FILE, whose data.phantom states which patients")
    counts = (group.train, group.validation, group.test)
    if min(counts) < 0 or sum(counts) < 1:
        raise UserError(f"data.phantom asks for {counts} patients (train, validation, test): at least one is needed")
    spec = PhantomSpec(tuple(group.shape), tuple(group.spacing_mm), group.randomised_contrast)
    splits = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    names = [f"phantom_{index:04d}" for index in range(len(splits))]
    cases = [
        Case(name, name, name, lambda: spec.shape[1:], partial(_read, group.seed, index, name, spec))
        for index, name in enumerate(names)
    ]
    about = {"kind": "phantom", "version": VERSION, "seed": group.seed, "spec": dataclasses.asdict(spec)}
    workers = max(1, min(len(cases) // LEAST_PER_PROCESS, os.cpu_count() or 1))
    return Source(cases, about, splits=dict(zip(names, splits, strict=True)), unit="phantom patients", workers=workers)


def _read(seed: int, index: int, name: str, spec: PhantomSpec) -> Labelled:
    made = generate_in_process(seed, index, spec)
    annulus = {
        name: [round(float(number), digits) for number in getattr(made.annulus, name)]
        for name, digits in (("centre_mm", 4), ("normal", 6), ("diameters_mm", 4))
    }
    return Labelled(
        made.volume.voxels.astype("int16", copy=False),
        made.labels,
        HEART.all_known,
        spec.spacing_mm,
        names=[f"{name}/{z:03d}" for z in range(spec.shape[0])],
        facts={"descriptions": made.description, "mitral_annuli": annulus},
    )
