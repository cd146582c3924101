"""Tissue maps of invented patients: real and modelled hearts, each set into a real thorax and varied at random."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.listing import natural_key
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.body.compose import compose
from heartseg_jax.imaging.body.hearts import modelled_heart, real_heart
from heartseg_jax.imaging.body.kit import Kit
from heartseg_jax.imaging.body.slices import cut, random_build, random_levels
from heartseg_jax.imaging.body.thorax import SPACING, Thorax, make_thorax
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.tissues import LABEL_OF

VERSION = 2
"""Raised whenever the same seed gives other maps."""
TRUNK = ("trunk/s0327_totalseg_v2_gt.nii.gz", "trunk/s0327_8class.nii.gz", "trunk/s0327_myocardium.nii.gz")
EIGHT, JOINED, MODELLED = "toronto/labelmaps_8class", "toronto/labelmaps", ("kcl/labelmaps", "kcl/random")
ONE_PERSON = {"2018013": "2018012", "2018022": "2018021"}
"""Hearts of the Toronto collection that are another scan of the same person."""
SHARES = {"real": 0.48, "modelled": 0.40, "joined": 0.12}
"""How often a heart of each kind is drawn: with all structures and vessels, with walls, with joined chambers."""
SCALE, TURN = (0.85, 1.25), 6.0
"""Range of a heart's size beside the thorax's own, and standard deviation of its rotation in degrees."""
ATTRIBUTION = (
    "thorax, and one heart: TotalSegmentator dataset, subject s0327, Wasserthal et al., CC BY 4.0",
    "hearts with vessels: Toronto Heart Atlas, Toronto General Hospital APIL, CC BY 4.0",
    "hearts with walls: Rodero et al. 2021, doi 10.5281/zenodo.4590294, by way of CardiacMeshConstruction",
)


class _Heart(NamedTuple):
    """A file with a heart, or the trunk's own where `path` is None."""

    kind: str
    name: str
    person: str
    path: Path | None


def anatomy(options: Options) -> Source:
    """Return `options.count` invented patients of `options.slices` tissue maps each; the labels are what they show.

    Patient k is drawn by the seed and k alone, so that a larger dataset holds the patients of a smaller one. All
    patients with one person's heart are in one split.

    Raises:
      UserError: the folder lacks a part, or a file of it is not what it should be.
    """
    folder = options.input
    hearts = _hearts(folder)
    kits = _Kits(folder)
    drawn = [(index, _drawn(options.seed, index, hearts)) for index in range(options.count)]
    # By heart, so that each is built once.
    drawn.sort(key=lambda one: (one[1].kind, natural_key(one[1].name), one[0]))
    cases = [
        Case(
            f"anatomy_{index:04d}",
            heart.person,
            f"patient {index} with the heart {heart.name}",
            lambda: (options.size, options.size),
            partial(_read, options, index, heart, kits),
        )
        for index, heart in drawn
    ]
    about = {
        "kind": "anatomy",
        "version": VERSION,
        "maps": {"count": options.count, "slices": options.slices, "size": options.size, "seed": options.seed},
        "attribution": list(ATTRIBUTION),
    }
    return Source(cases, about, intensity="tissue")


def _hearts(folder: Path) -> dict[str, list[_Heart]]:
    """Return the hearts of each kind in the folder."""
    for part in TRUNK:
        if not (folder / part).is_file():
            raise UserError(f"{folder} has no {part}: give the folder that holds trunk/, toronto/ and kcl/")
    files = {part: _volumes(folder, part) for part in (EIGHT, JOINED, *MODELLED)}
    whole = {path.name for path in files[EIGHT]}
    real = [_Heart("real", "trunk", "trunk", None)]
    return {
        "real": real + [_real("real", path) for path in files[EIGHT]],
        "joined": [_real("joined", path) for path in files[JOINED] if path.name not in whole],
        "modelled": [
            _Heart("modelled", stem, stem, path) for part in MODELLED for path in files[part] for stem in [_stem(path)]
        ],
    }


def _volumes(folder: Path, part: str) -> list[Path]:
    found = sorted((folder / part).glob("*.nii.gz"), key=lambda path: natural_key(path.name))
    if not found:
        raise UserError(f"{folder} has no {part}/*.nii.gz: give the folder that holds trunk/, toronto/ and kcl/")
    return found


def _stem(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


def _real(kind: str, path: Path) -> _Heart:
    number = _stem(path).removeprefix("toronto_")
    return _Heart(kind, _stem(path), f"toronto_{ONE_PERSON.get(number, number)}", path)


def _drawn(seed: int, index: int, hearts: dict[str, list[_Heart]]) -> _Heart:
    rng = np.random.default_rng([seed, index, 0])
    kinds = [kind for kind in SHARES if hearts[kind]]
    shares = np.array([SHARES[kind] for kind in kinds])
    among = hearts[kinds[rng.choice(len(kinds), p=shares / shares.sum())]]
    return among[rng.integers(len(among))]


class _Kits:
    """The thorax and the hearts, read when they are first needed; of the hearts only the last few are kept."""

    def __init__(self, folder: Path):
        self._lock = threading.Lock()
        self._thorax: Callable[[], Thorax] = lru_cache(1)(lambda: _thorax(folder))
        self._heart: Callable[[_Heart], Kit] = lru_cache(3)(_kit)

    def __call__(self, heart: _Heart) -> tuple[Thorax, Kit]:
        with self._lock:
            thorax = self._thorax()
            return thorax, thorax.own if heart.path is None else self._heart(heart)


def _grid(path: Path) -> tuple[np.ndarray, float]:
    """Return a label map, axes towards right, anterior and superior, and its spacing, equal along all axes."""
    volume, _ = patient_axial(read_labels(path))
    spacing = float(np.mean(volume.spacing_mm))
    if np.ptp(volume.spacing_mm) > 0.01 * spacing:
        raise UserError(f"{path} has voxels of {volume.spacing_mm} mm: resample it to cubes")
    if volume.voxels.min() < 0 or volume.voxels.max() > 255:
        raise UserError(f"{path} has labels outside 0 to 255: is it one of the collection's?")
    return np.ascontiguousarray(volume.voxels[:, ::-1, ::-1].transpose(2, 1, 0)).astype(np.uint8), spacing


def _thorax(folder: Path) -> Thorax:
    grids = [_grid(folder / part) for part in TRUNK]
    if len({grid.shape for grid, _ in grids}) > 1 or any(abs(spacing - SPACING) > 0.01 for _, spacing in grids):
        raise UserError(f"the label maps of {folder / 'trunk'} are not on one grid of {SPACING} mm")
    return make_thorax(*(grid for grid, _ in grids))


def _kit(heart: _Heart) -> Kit:
    assert heart.path is not None
    labels, spacing = _grid(heart.path)
    if not labels.any():
        raise UserError(f"{heart.path} is empty: no heart is labelled in it")
    if heart.kind == "modelled":
        return modelled_heart(heart.name, labels, spacing)
    return real_heart(heart.name, heart.person, labels, spacing, eight=heart.kind == "real")


def _read(options: Options, index: int, heart: _Heart, kits: _Kits) -> Labelled:
    thorax, kit = kits(heart)
    rng = np.random.default_rng([options.seed, index, 1])
    angles = rng.normal(0, np.deg2rad(TURN), 3).clip(-0.2, 0.2)
    patient = compose(rng, thorax, kit, rng.uniform(*SCALE), angles)
    build = random_build(rng, patient)
    levels = random_levels(rng, patient, options.slices)
    maps = np.stack([cut(rng, patient, build, float(level), options.size) for level in levels])
    names = [f"anatomy_{index:04d}/{z:03d}" for z in range(options.slices)]
    facts = {"cases": {"heart": heart.name, "heart_centred": build.heart_centred}}
    return Labelled(maps, LABEL_OF[maps], HEART.all_known, names=names, facts=facts)
