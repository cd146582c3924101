"""What each tissue of the phantom looks like in a scanner: HU, contrast phase, blur and noise. No geometry here.

Sources of the ranges stand in docs/phantom.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Tissue(NamedTuple):
    """A tissue: the range of a patient's mean HU, and the spread (SD, HU) of texture within it."""

    name: str
    low: float
    high: float
    spread: float


TISSUES: tuple[Tissue, ...] = (
    Tissue("air", -1000, -990, 0),
    Tissue("lung", -880, -750, 12),
    Tissue("fat", -115, -80, 5),
    Tissue("muscle", 40, 75, 5),
    Tissue("myocardium", 70, 150, 6),
    Tissue("vessel_wall", 30, 70, 4),
    Tissue("liver", 55, 115, 5),
    Tissue("abdomen", 30, 90, 8),
    Tissue("spongy_bone", 130, 280, 25),
    Tissue("cortical_bone", 450, 900, 40),
    Tissue("disc", 70, 120, 5),
    Tissue("airway", -990, -940, 4),
    Tissue("oesophagus", 25, 60, 4),
    Tissue("table", -650, -350, 10),
    Tissue("blood_aa", 100, 500, 6),
    Tissue("blood_la", 100, 500, 6),
    Tissue("blood_lv", 100, 500, 6),
    Tissue("blood_da", 100, 500, 6),
    Tissue("blood_ra", 60, 550, 6),
    Tissue("blood_rv", 60, 550, 6),
    Tissue("blood_pa", 60, 550, 6),
    Tissue("superior_cava", 60, 1000, 20),
    Tissue("inferior_cava", 50, 250, 8),
    Tissue("left_appendage", 100, 500, 6),
    Tissue("right_appendage", 60, 550, 6),
    Tissue("pulmonary_vein", 100, 500, 6),
    Tissue("lung_artery", 60, 550, 6),
    Tissue("small_artery", 100, 500, 6),
    Tissue("small_vein", 60, 1000, 12),
    Tissue("left_leaflet", 60, 450, 4),
    Tissue("right_leaflet", 45, 450, 4),
)

ID: dict[str, int] = {tissue.name: i for i, tissue in enumerate(TISSUES)}

LEFT = ("blood_aa", "blood_la", "blood_lv", "blood_da", "left_appendage", "pulmonary_vein", "small_artery")
RIGHT = ("blood_ra", "blood_rv", "blood_pa", "right_appendage", "lung_artery")

PHASES: tuple[
    tuple[str, float, tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]], ...
] = (
    # name, probability, left side, right side, superior cava, inferior cava (HU of the patient's mean)
    ("coronary", 0.30, (300, 480), (90, 220), (70, 300), (70, 120)),
    ("triphasic", 0.30, (300, 450), (230, 420), (400, 950), (80, 150)),
    ("pulmonary", 0.15, (160, 320), (320, 520), (500, 1000), (60, 110)),
    ("venous", 0.25, (120, 190), (115, 190), (115, 190), (110, 190)),
)


class Contrast(NamedTuple):
    """One patient's look: HU of each tissue `[len(TISSUES)]`, texture SD, noise, blur."""

    phase: str
    mean: np.ndarray
    spread: np.ndarray
    noise_hu: float
    noise_blur_mm: float
    psf_mm: float
    streak_hu: float


def draw_contrast(rng: np.random.Generator, randomised: bool) -> Contrast:
    """Draw the contrast phase and the scanner. `randomised`: any tissue may take any brightness."""
    u = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    mean = np.array([u(t.low, t.high) for t in TISSUES])
    spread = np.array([t.spread for t in TISSUES], np.float64)
    pick, total = u(0, 1), 0.0
    phase = PHASES[-1]
    for candidate in PHASES:
        total += candidate[1]
        if pick < total:
            phase = candidate
            break
    name, _, left_range, right_range, superior, inferior = phase
    left, right = u(*left_range), u(*right_range)
    mean[[ID[n] for n in LEFT]] = left
    mean[[ID[n] for n in RIGHT]] = right
    mean[ID["superior_cava"]] = mean[ID["small_vein"]] = u(*superior)
    mean[ID["inferior_cava"]] = u(*inferior)
    mean[ID["myocardium"]] = min(max(70 + 0.15 * left + u(-15, 15), 70), 150)
    mean[ID["left_leaflet"]] = 0.55 * left + 0.45 * 50
    mean[ID["right_leaflet"]] = 0.55 * right + 0.45 * 50
    streak = 0.06 * max(mean[ID["superior_cava"]] - 400, 0)
    noise, noise_blur, psf = u(8, 26), u(0.5, 1.0), u(0.6, 1.2)
    if randomised:
        name = "randomised"
        soft = [i for i, t in enumerate(TISSUES) if t.low > -200]
        for i in soft:
            mean[i] = u(-100, 250)
        bright, contrast = u(60, 350), u(0, 90)
        for n in LEFT + RIGHT + ("superior_cava", "inferior_cava", "small_vein"):
            mean[ID[n]] = bright + u(-1, 1) * contrast
        wall = bright + u(-220, -15) if u(0, 1) < 0.85 else bright + u(15, 150)
        for n in ("myocardium", "muscle", "vessel_wall", "left_leaflet", "right_leaflet"):
            mean[ID[n]] = wall + u(-25, 25)
        mean[ID["fat"]] = wall - u(40, 160)
        mean[ID["cortical_bone"]] = bright + u(50, 700)
        mean[ID["spongy_bone"]] = bright + u(-150, 300)
        mean[ID["lung"]] = u(-950, -400)
        spread = spread * u(0.5, 3)
        noise, noise_blur, psf = u(2, 45), u(0.4, 1.6), u(0.4, 2.2)
    return Contrast(name, np.round(mean, 4), np.round(spread, 4), noise, noise_blur, psf, streak)


def kernel(sigma: float) -> np.ndarray:
    """A normalised Gaussian of `sigma` samples, rounded so that its last bit means nothing."""
    if sigma < 0.15:
        return np.array([1.0])
    reach = max(1, math.ceil(3 * sigma))
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    return np.array([round(w / sum(weights), 9) for w in weights])


def blur(image: np.ndarray, sigmas: tuple[float, float, float]) -> np.ndarray:
    """Gaussian blur of `image [Z, Y, X]` float32 by `sigmas` in voxels, edges repeated."""
    for axis, sigma in enumerate(sigmas):
        weights = kernel(sigma)
        if len(weights) > 1:
            image = ndimage.correlate1d(image, weights, axis, mode="nearest")
    return image


def scan(rng: np.random.Generator, image: np.ndarray, contrast: Contrast, spacing_mm) -> np.ndarray:
    """A scanner's picture of `image [Z, Y, X]` float32 HU: blurred, with correlated noise, int16."""
    _, sy, sx = spacing_mm
    image = blur(image, (0.28, contrast.psf_mm / sy, contrast.psf_mm / sx))
    noise = rng.standard_normal(image.shape, np.float32)
    sigmas = (0.0, contrast.noise_blur_mm / sy, contrast.noise_blur_mm / sx)
    gain = 1.0
    for sigma in sigmas:
        gain *= math.sqrt(sum(float(w) ** 2 for w in kernel(sigma)))
    image = image + blur(noise, sigmas) * np.float32(contrast.noise_hu / gain)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
