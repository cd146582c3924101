"""Tissue maps: axial slices of a patient, with random shape, level and field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.compose import Patient, rotation
from heartseg_jax.imaging.body.kit import NONE
from heartseg_jax.imaging.body.sampling import STRIDE, Warp, dense, smooth_noise, vote
from heartseg_jax.imaging.body.thorax import COARSE, SPACING, WALL

CHILD = 1.1
"""From this roundness on a body has a child's fat and muscles."""


def _table(*codes: int) -> np.ndarray:
    table = np.zeros(256, bool)
    table[list(codes)] = True
    return table


_VESSEL = _table(*range(t.FIRST_POOL + 1, t.LUNG_VESSEL), t.OTHER_VEIN, t.OTHER_ARTERY)
_HARD = _table(t.BONE, t.MARROW, t.MUSCLE, WALL)
_GIVES_WAY = _table(t.LUNG, t.LUNG_VESSEL, t.LIVER)
_BLOOD = _table(*range(t.FIRST_POOL, t.NUM_CODES))
_LOOSE = _table(t.FAT, t.ORGAN, t.AIRWAY)


@dataclass(frozen=True)
class Build:
    """What one patient's body and pictures are like. Lengths in mm of the thorax's grid.

    Attributes:
      turn: `[3, 3]`, from pictures' axes to the thorax's: rotation times scale of the axes.
      warp: smooth displacement of everything.
      ripple: small displacement of the heart's borders.
      muscle, fat, skin: thickness of the layers around the rib cage.
      lean: share of the inner fat that is soft tissue instead, as in children.
      table: distance of the table behind the body, or None.
      width: of the pictures.
      heart_centred: whether pictures show the heart's surroundings only, or the whole chest.
    """

    turn: np.ndarray
    warp: Warp
    ripple: Warp
    muscle: float
    fat: float
    skin: float
    lean: float
    table: float | None
    width: float
    heart_centred: bool


def random_build(rng: np.random.Generator, patient: Patient) -> Build:
    """Draw a body, from a round child's to a wide adult's, from lean to fat, and what its pictures show."""
    size = np.array(patient.codes.shape) * SPACING
    deep = rng.uniform(0.92, 1.3)
    axes = np.array([1.0, 1 / deep, rng.uniform(0.9, 1.1)]) * rng.uniform(0.95, 1.05)
    turn = rotation(rng.normal(0, np.deg2rad(5), 3).clip(-0.18, 0.18)) * axes
    wave = rng.uniform(45, 110)
    kit = patient.kit
    last = np.array(kit.codes.shape) * kit.spacing
    child = deep > CHILD
    muscle = rng.uniform(3, 9) if child else rng.uniform(5, 14)
    fat = rng.uniform(2, 10) if child else (rng.uniform(3, 12), rng.uniform(8, 28))[rng.integers(2)]
    heart_centred = bool(rng.random() < 0.5)
    whole = (patient.ribs + 2 * (muscle + fat)) / axes[0] / rng.uniform(0.68, 1.12)
    return Build(
        turn,
        Warp(rng, np.zeros(3), size, wave, wave * rng.uniform(0.02, 0.07)),
        Warp(rng, np.zeros(3), last, rng.uniform(7, 12), rng.uniform(0.2, 0.9)),
        muscle=muscle,
        fat=fat,
        skin=rng.uniform(1.2, 2.2),
        lean=rng.uniform(0.4, 1.0) if child else rng.uniform(0, 0.8) ** 2,
        table=rng.uniform(2, 12) if rng.random() < 0.5 else None,
        width=rng.uniform(165, 240) if heart_centred else whole,
        heart_centred=heart_centred,
    )


def random_levels(rng: np.random.Generator, patient: Patient, count: int) -> np.ndarray:
    """Draw the levels of slices in mm, ascending: most within the heart, some above the arch and in the liver."""
    span = patient.top - patient.bottom
    inner = rng.random(count) < 0.85
    levels = np.where(
        inner,
        patient.bottom + rng.uniform(0, 1, count) * span,
        rng.uniform(patient.bottom - 30, patient.top + 12, count),
    )
    return np.sort(levels.clip(3, (patient.codes.shape[2] - 3) * SPACING))


def cut(rng: np.random.Generator, patient: Patient, build: Build, level: float, size: int) -> np.ndarray:
    """Return one slice `[size, size]` uint8: rows towards posterior, columns towards the patient's left.

    Args:
      rng: draws what differs from slice to slice: the picture's centre, the texture of fat, things on the skin.
      patient: whose heart.
      build: whose body.
      level: of the slice, mm of the thorax's grid.
      size: pixels of a side.
    """
    pixel = build.width / size
    centre = patient.centre[:2] + [0, -12] if build.heart_centred else np.array(patient.codes.shape[:2]) * SPACING / 2
    centre = centre + rng.normal(0, 0.03 * build.width, 2)
    at = _plane(build, np.array([*centre, level]), pixel, size)
    body = vote(patient.codes, at / SPACING, WALL)
    out = _joined(body, _heart(patient, build, at, size))
    noise = smooth_noise(rng, size, int(rng.integers(8, 20))).ravel()
    out[(out == t.FAT) & (noise < np.quantile(noise, build.lean))] = t.MUSCLE
    few = at.reshape(size, size, 3)[::STRIDE, ::STRIDE].reshape(-1, 3) / (SPACING * COARSE)
    away = ndimage.map_coordinates(patient.outside, few.T, order=1, cval=200).reshape(-(-size // STRIDE), -1, 1)
    away = dense(away, size).ravel()
    out = _layers(out, away, build, noise).reshape(size, size)
    _things_around(rng, out, build, pixel)
    return out


def _plane(build: Build, middle: np.ndarray, pixel: float, size: int) -> np.ndarray:
    """Return where each pixel lies, `[size * size, 3]` in mm."""

    def flat(step: np.ndarray) -> np.ndarray:
        rows, columns = np.meshgrid(step, step, indexing="ij")
        out = np.stack([-columns, -rows, np.zeros(rows.shape)], axis=-1) @ build.turn.T + middle
        return np.asarray(out)

    half = (size - 1) / 2
    moved = build.warp(flat((np.arange(size // STRIDE + 1) * STRIDE - half) * pixel))
    return (flat((np.arange(size) - half) * pixel) + dense(moved, size)).reshape(-1, 3)


def _heart(patient: Patient, build: Build, at: np.ndarray, size: int) -> np.ndarray:
    """Return the heart's codes `[size * size]`, `NONE` around it."""
    kit = patient.kit
    inside = patient.to_kit(at)
    few = inside.reshape(size, size, 3)[::STRIDE, ::STRIDE]
    inside = inside + dense(build.ripple(few), size).reshape(-1, 3)
    return vote(kit.codes, inside / kit.spacing, NONE)


def _joined(body: np.ndarray, heart: np.ndarray) -> np.ndarray:
    """Lay a heart's codes over the body's: its blood over all that is soft, its walls not over added vessels."""
    soft = ~_HARD[body]
    present = heart != NONE
    over = present & soft & (_BLOOD[heart] | ((heart == t.MYOCARDIUM) & ~_VESSEL[body]))

    over |= present & _LOOSE[heart] & _GIVES_WAY[body]
    out = np.where(over, heart, body)
    return out


def _layers(out: np.ndarray, away: np.ndarray, build: Build, noise: np.ndarray) -> np.ndarray:
    """Fill in what is outside the rib cage: muscle, fat, skin, air."""
    outer = out == WALL
    rim = build.muscle + build.fat
    skin = rim + build.skin
    muscle = build.muscle * (1 + 0.25 * noise)
    layers = np.where(away < skin, t.MUSCLE, t.AIR)
    layers[(away < rim) & (away > muscle)] = t.FAT
    # What has a place of its own outside the ribs (shoulder blades) ends with the body.
    return np.where(outer | (away >= skin), layers, out).astype(np.uint8)


def _things_around(rng: np.random.Generator, out: np.ndarray, build: Build, pixel: float) -> None:
    """Paint the table and, on some slices, an electrode or a line on the skin, in place."""
    size = len(out)
    body = out != t.AIR
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if not len(rows):
        return
    if build.table is not None:
        across = np.arange(size)
        thick = max(1, round(2.5 / pixel))
        line = rows[-1] + build.table / pixel - (across - columns.mean()) ** 2 * 0.0007
        for k in range(thick):
            place = np.round(line).astype(int) + k
            free = (place >= 0) & (place < size)
            r, c = place[free], across[free]
            out[r, c] = np.where(out[r, c] == t.AIR, t.MUSCLE, out[r, c])
    if rng.random() < 0.3:
        column = int(rng.integers(columns[0], columns[-1] + 1))
        front = int(np.argmax(body[:, column])) if body[:, column].any() else 0
        radius = max(1, round(rng.uniform(1.5, 3.5) / pixel))
        if front > radius:
            out[front - 2 * radius : front - radius + 1, column : column + 2 * radius] = t.BONE
