"""Phantom patients: synthetic contrast CT of the chest in HU with exact labels and a known mitral annulus.

`generate` is pure: the same seed, index and spec give the same bytes on every x86-64 machine. Geometry
lives in phantom_shapes, proportions in phantom_anatomy, drawing in phantom_drawing, HU in phantom_contrast.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging.phantom.anatomy import Patient, draw_patient
from heartseg_jax.imaging.phantom.contrast import ID, TISSUES, Contrast, draw_contrast, scan
from heartseg_jax.imaging.phantom.drawing import draw
from heartseg_jax.imaging.phantom.shapes import Slab, SmoothField, turned, unit
from heartseg_jax.imaging.phantom.vessels import lung_vessels
from heartseg_jax.imaging.volume import Volume

__all__ = ["TISSUES", "VERSION", "MitralAnnulus", "Phantom", "PhantomSpec", "describe", "digest", "generate"]

VERSION = 1
"""Frozen: a change of any phantom's bytes is a new version."""

SUPERIOR = ID["superior_cava"]

SLAB_VOXELS = 300_000
"""Voxels drawn at a time: larger arrays leave a core's cache, and smaller ones cost more calls."""


@dataclass(frozen=True)
class PhantomSpec:
    """How a phantom is sampled.

    Attributes:
      shape: `(Z, Y, X)` voxels.
      spacing_mm: `(z, y, x)`.
      randomised_contrast: tissue intensities, blur and noise drawn at random, and blood pools that may
        differ: for a network trained only on phantoms that should work on real CT.
    """

    shape: tuple[int, int, int] = (32, 80, 80)
    spacing_mm: tuple[float, float, float] = (4.5, 3.0, 3.0)
    randomised_contrast: bool = False


@dataclass(frozen=True)
class MitralAnnulus:
    """The true mitral annulus in the patient's mm (x, y, z of LPS).

    Attributes:
      centre_mm: mean of the rim.
      normal: unit vector across the rim's plane, from the atrium into the ventricle.
      diameters_mm: the longest and the shortest diameter.
      rim_mm: `[24, 3]` points of the rim.
    """

    centre_mm: tuple[float, float, float]
    normal: tuple[float, float, float]
    diameters_mm: tuple[float, float]
    rim_mm: np.ndarray


@dataclass(frozen=True)
class Phantom:
    """A phantom patient.

    Attributes:
      volume: int16 HU `[Z, Y, X]`; slices to Superior, rows to Posterior, columns to Left.
      labels: uint8 `[Z, Y, X]`, 0..8 and 255 (excluded from loss and score).
      tissue: uint8 `[Z, Y, X]`, index into `TISSUES`.
      annulus: the mitral annulus.
      description: phase, age group, variants; fit for JSON.
    """

    volume: Volume
    labels: np.ndarray
    tissue: np.ndarray
    annulus: MitralAnnulus
    description: dict


def generate(seed: int, index: int, spec: PhantomSpec) -> Phantom:
    """Make phantom patient `index` of the population `seed`, sampled as `spec` says.

    Who the patient is depends only on seed and index; the spec decides the sampling (and the contrast, if randomised).
    Raises ValueError for a shape or spacing that isn't three positive numbers.
    """
    if len(spec.shape) != 3 or min(spec.shape) < 1 or len(spec.spacing_mm) != 3 or min(spec.spacing_mm) <= 0:
        raise ValueError(f"a phantom needs three positive sizes and spacings, not {spec.shape}, {spec.spacing_mm}")
    who, look, texture = _streams(seed, index)
    patient = draw_patient(who)
    bend = SmoothField(who, 3, 42.0 * patient.frame.scale, 6.5)
    vessels = lung_vessels(who, patient.tubes)
    contrast = draw_contrast(look, spec.randomised_contrast)
    mottle = SmoothField(look, 1, 24.0, 2.0)
    origin = [-(n - 1) / 2 * s for n, s in zip(spec.shape, spec.spacing_mm, strict=True)]

    image = np.empty(spec.shape, np.float32)
    labels, tissue = np.empty(spec.shape, np.uint8), np.empty(spec.shape, np.uint8)
    per_axis = 2 if min(spec.spacing_mm[1:]) >= 1.5 else 1
    axes = [origin[k] + np.arange(spec.shape[k]) * spec.spacing_mm[k] for k in range(3)]
    fine = [_split(axes[k], spec.spacing_mm[k], per_axis) for k in (1, 2)]
    step = max(1, SLAB_VOXELS // (len(fine[0]) * len(fine[1])))
    for start in range(0, spec.shape[0], step):
        part = slice(start, start + step)
        slab = Slab(patient.frame, bend, axes[0][part], *fine)
        fine_tissue, fine_labels = draw(slab, patient, vessels)
        hu = _hu(contrast, fine_tissue, mottle.on_grid(0, axes[0][part], *fine))
        image[part], labels[part], tissue[part] = _pool(hu, fine_labels, fine_tissue, per_axis)
    _streaks(texture, image, tissue == SUPERIOR, contrast.streak_hu, spec.spacing_mm)
    voxels = scan(texture, image, contrast, spec.spacing_mm)
    volume = Volume(voxels, spec.spacing_mm, (origin[2], origin[1], origin[0]))
    description = {**patient.description, "phase": contrast.phase, "noise_hu": round(contrast.noise_hu, 2)}
    return Phantom(volume, labels, tissue, _annulus(patient, bend), description)


def describe(seed: int, index: int) -> dict:
    """Who patient `index` of the population `seed` is (age group, scale, variants), without drawing it."""
    return draw_patient(_streams(seed, index)[0]).description


def _streams(seed: int, index: int) -> list[np.random.Generator]:
    """Three random streams of a patient: the body, the look, the noise."""
    return [np.random.Generator(np.random.Philox(s)) for s in np.random.SeedSequence([seed, index]).spawn(3)]


def digest(phantom: Phantom) -> str:
    """SHA-256 of a phantom's voxels (little-endian int16) and labels."""
    voxels = phantom.volume.voxels.astype("<i2")
    return hashlib.sha256(voxels.tobytes() + phantom.labels.tobytes()).hexdigest()


def _streaks(rng, image: np.ndarray, jet: np.ndarray, strength: float, spacing_mm) -> None:
    """Add the dark and bright rays that undiluted contrast throws across a slice, in place."""
    rays = [(unit((*rng.uniform(-1, 1, 2), 0.0)), 1.0 if k % 3 else -1.5) for k in range(7)]
    if strength <= 0:
        return
    y, x = (np.arange(n, dtype=np.float32) * np.float32(s) for n, s in zip(jet.shape[1:], spacing_mm[1:], strict=True))
    for z in np.flatnonzero(jet.any((1, 2))):
        rows, columns = np.nonzero(jet[z])
        dy = y[:, None] - y[int(rows.sum()) // len(rows)]
        dx = x[None, :] - x[int(columns.sum()) // len(columns)]
        fade = np.float32(strength) / (1 + (dx * dx + dy * dy) * np.float32(1 / 900.0))
        for way, sign in rays:
            across = dx * np.float32(way[1]) - dy * np.float32(way[0])
            image[z] += np.float32(sign) * fade / (1 + across * across * np.float32(0.25))


def _split(centres: np.ndarray, spacing: float, per_axis: int) -> np.ndarray:
    if per_axis == 1:
        return centres
    return np.stack([centres - spacing / 4, centres + spacing / 4], 1).reshape(-1)


def _hu(contrast: Contrast, tissue: np.ndarray, mottle: np.ndarray) -> np.ndarray:
    return contrast.mean.astype(np.float32)[tissue] + contrast.spread.astype(np.float32)[tissue] * mottle


def _pool(hu, labels, tissue, per_axis: int):
    """Mean HU of each voxel's 2x2 samples, and the label and tissue that most of them have."""
    if per_axis == 1:
        return hu, labels, tissue
    corners = [(slice(None), slice(i, None, 2), slice(j, None, 2)) for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
    mean = (hu[corners[0]] + hu[corners[1]] + hu[corners[2]] + hu[corners[3]]) * np.float32(0.25)
    out = []
    for values in (labels, tissue):
        parts = [values[c] for c in corners]
        best, votes = parts[0].copy(), np.zeros(parts[0].shape, np.int8)
        for candidate in parts:
            count = sum((candidate == p).astype(np.int8) for p in parts)
            better = count > votes
            best[better], votes[better] = candidate[better], count[better]
        out.append(best)
    return mean, out[0], out[1]


def _annulus(patient: Patient, bend: SmoothField) -> MitralAnnulus:
    """The mitral rim in the patient: each point is moved to where the smooth deformation shows it."""
    valve, frame = patient.valves["mitral"], patient.frame
    n = valve.flow
    a = unit(np.cross(n, (0.0, 0.0, 1.0)))
    b = np.cross(n, a)
    angles = [2 * math.pi * k / 24 for k in range(24)]
    target = np.array([valve.centre + valve.radius * (math.cos(t) * a + math.sin(t) * b) for t in angles])
    moved = target
    for _ in range(12):
        moved = target - bend.at(frame.to_world(moved))
    points = frame.to_world(moved)
    centre = points.mean(0)
    around = points - centre
    normal = np.cross(around, np.roll(around, -1, 0)).sum(0)
    normal /= math.sqrt(float((normal * normal).sum()))
    if float((normal * turned(frame.turn, n)).sum()) < 0:
        normal = -normal
    across = np.sqrt(np.square(points[:12] - points[12:]).sum(1))
    (cx, cy, cz), (nx, ny, nz) = ([round(float(c), 4) for c in v] for v in (centre, normal))
    diameters = round(float(across.max()), 4), round(float(across.min()), 4)
    return MitralAnnulus((cx, cy, cz), (nx, ny, nz), diameters, np.round(points, 4))
