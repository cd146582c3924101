"""Images synthesised from tissue maps on the device: `(key, tissue maps) -> images`, inside the jitted step.

In the way of SynthSeg (Billot et al. 2023, doi 10.1016/j.media.2023.102789), with CT's own ranges: every image draws
its contrast phase, tissue values, mixing of blood, blur, noise, and the window it was stored with. Geometry is left to
the augmentation, which moves image and label together. Where it is asked for, a share of the images has a right heart
through which contrast medium streams unmixed, or a dissected aorta (`preprocess/flow.py`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.tissues import FIRST_POOL, NUM_CODES
from heartseg_jax.preprocess.flow import dissected, smooth_fields, unmixed

AIR_HU = -1000.0

RANGES_HU: dict[int, tuple[float, float]] = {
    t.AIR: (-1010.0, -990.0),
    t.LUNG: (-920.0, -650.0),
    t.FAT: (-125.0, -60.0),
    t.MUSCLE: (25.0, 90.0),
    t.BONE: (350.0, 1100.0),
    t.MARROW: (120.0, 380.0),
    t.LIVER: (45.0, 150.0),
    t.MYOCARDIUM: (60.0, 170.0),
    t.ORGAN: (30.0, 150.0),
    t.AIRWAY: (-1005.0, -930.0),
}
"""By tissue that contrast medium does not fill: the lowest and the highest mean, in HU."""

LEFT = tuple(FIRST_POOL + label for label in (1, 2, 3, 6)) + (t.OTHER_ARTERY,)
RIGHT = tuple(FIRST_POOL + label for label in (4, 5)) + (t.JOINED_BLOOD,)
CAVA = (FIRST_POOL + 8, t.OTHER_VEIN)
BETWEEN = (FIRST_POOL + 7, t.LUNG_VESSEL)
BLOOD_HU = (90.0, 620.0)
ANY_HU = (-150.0, 700.0)
RANDOM_SHARE = 0.15
"""Share of images in which every tissue of the body gets any value at all, so that shapes are learned too."""
PERCENTILES = (1.0, 99.0)
UNMIXED, DISSECTED = 1, 2
"""Folded into the key, so that these draw nothing that the others draw."""
STRIDE = 3
"""Percentiles are taken of every third pixel of every third row: sorting all of them would cost more than the blur."""


def synthesise(
    key: jax.Array, tissue: jax.Array, unmixed_probability: float = 0.0, dissection_probability: float = 0.0
) -> jax.Array:
    """Return images [B, S, S] float32 in 0..1 of tissue maps [B, S, S] (codes of `imaging.tissues`, any integer dtype).

    They are normalised as stored slices are: by their own percentiles, over what is brighter than air. The two
    probabilities, by image, are static: at 0 nothing is compiled for them, and the images are what they are without.
    """
    keys = jax.random.split(key, 6)
    batch, side = tissue.shape[0], tissue.shape[1]
    code = tissue.astype(jnp.int32)
    draws = jax.random.uniform(keys[0], (batch, NUM_CODES + 24))
    means, spreads, mixing = _tissue_values(draws)
    rows = jnp.arange(batch)[:, None, None]
    fields = smooth_fields(keys[1], batch, side, (side // 3, 9, side // 5, 4))
    grain = jax.random.normal(keys[2], (batch * side * side,)).reshape(batch, side, side)
    image = means[rows, code] + spreads[rows, code] * fields[0] + mixing[rows, code] * fields[1]
    blood = means[rows, code]
    if unmixed_probability > 0:
        image = unmixed(jax.random.fold_in(key, UNMIXED), image, blood, code, unmixed_probability)
    if dissection_probability > 0:
        image = dissected(jax.random.fold_in(key, DISSECTED), image, blood, code, dissection_probability)
    image = image + _share(draws, -1, 0.0, 90.0)[:, None, None] * (code == t.LUNG) * jnp.maximum(fields[2], 0.0)
    sigma = _share(draws, -2, 0.3, 1.1)
    image = _blurred(image, sigma)
    # The noise of a reconstruction is smoother than pixel by pixel.
    noise = _blurred(grain, _share(draws, -3, 0.05, 0.8))
    noise = noise / jnp.std(noise, axis=(1, 2), keepdims=True)
    image = image + _share(draws, -4, 4.0, 45.0, log=True)[:, None, None] * noise
    image = image * (1 + _share(draws, -5, 0.0, 0.06)[:, None, None] * fields[3])
    return _windowed(image, draws)


def _share(draws: jax.Array, column: int, low: float, high: float, log: bool = False) -> jax.Array:
    """[B]: one drawn value in low..high."""
    u = draws[:, column]
    return low * (high / low) ** u if log else low + (high - low) * u


def _tissue_values(draws: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return by image and code, `[B, NUM_CODES]` HU: the mean, the spread inside it, and how strongly blood mixes."""
    limits = np.tile(np.asarray(ANY_HU, np.float32), (NUM_CODES, 1))
    for code, ends in RANGES_HU.items():
        limits[code] = ends
    own = draws[:, :NUM_CODES]
    means: jax.Array = jnp.asarray(limits[:, 0]) + (limits[:, 1] - limits[:, 0]) * own
    low, high = BLOOD_HU
    left, right = _share(draws, -6, low, high)[:, None], _share(draws, -7, low, high)[:, None]
    # In half of the images both sides are filled alike, as in children's studies; else each as its phase has it.
    alike = draws[:, -8][:, None] < 0.5
    right = jnp.where(alike, left + 120 * (_share(draws, -9, -1.0, 1.0)[:, None]), right)
    right = jnp.maximum(right, 40.0)
    part = own[:, FIRST_POOL + 7][:, None]
    between = right * part + left * (1 - part)
    cava = right * (0.6 + 0.9 * _share(draws, -10, 0.0, 1.0)[:, None])
    jitter = 60 * (own - 0.5)
    for codes, value, scale in ((LEFT, left, 0.7), (RIGHT, right, 1.5), (CAVA, cava, 3.0), (BETWEEN, between, 1.0)):
        chosen = np.isin(np.arange(NUM_CODES), codes)
        means = jnp.where(chosen, value + scale * jitter, means)
    # What lies in the body may have any value; air and lung stay dark.
    body = ~np.isin(np.arange(NUM_CODES), (t.AIR, t.LUNG, t.AIRWAY))
    anything = ANY_HU[0] + (ANY_HU[1] - ANY_HU[0]) * own
    means = jnp.where((draws[:, -11][:, None] < RANDOM_SHARE) & body, anything, means)
    spreads = np.full(NUM_CODES, 10.0, np.float32)
    spreads[[t.LUNG, t.BONE, t.MARROW]] = 35.0, 120.0, 60.0
    mixes = np.zeros(NUM_CODES, np.float32)
    mixes[list(LEFT)], mixes[list(RIGHT + BETWEEN)], mixes[list(CAVA)] = 12.0, 45.0, 90.0
    strength = _share(draws, -12, 0.0, 1.0)[:, None] ** 2
    return means, jnp.broadcast_to(spreads, means.shape), strength * mixes


def _blurred(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """[B, S, S] blurred by a Gaussian of `sigma [B]` pixels, by seven taps along each axis."""
    offsets = np.arange(-3, 4)
    weights = jnp.exp(-0.5 * (offsets[None, :] / sigma[:, None]) ** 2)
    weights = weights / weights.sum(axis=1, keepdims=True)
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (3, 3)
        wide = jnp.pad(image, pads, mode="edge")
        side = image.shape[axis]
        parts = (
            weights[:, k, None, None] * jax.lax.slice_in_dim(wide, k, k + side, axis=axis) for k in range(len(offsets))
        )
        image = sum(parts, start=jnp.zeros_like(image))
    return image


def _windowed(image: jax.Array, draws: jax.Array) -> jax.Array:
    """Store the image in a window that it may come in, and normalise it by its percentiles."""
    narrow = draws[:, -13] < 0.4
    low = jnp.where(narrow, _share(draws, -14, -400.0, -100.0), -1024.0)[:, None, None]
    high = jnp.where(draws[:, -15] < 0.5, _share(draws, -16, 450.0, 1000.0), 3000.0)[:, None, None]
    image = jnp.clip(image, low, jnp.maximum(high, low + 500))
    sample = image[:, ::STRIDE, ::STRIDE].reshape(image.shape[0], -1)
    floor = jnp.maximum(low[:, :, 0], AIR_HU + 15)
    above = jnp.sort(jnp.where(sample > floor, sample, jnp.inf), axis=1)
    count = jnp.sum(sample > floor, axis=1)
    at = [jnp.clip((count * share / 100).astype(jnp.int32), 0, jnp.maximum(count - 1, 0)) for share in PERCENTILES]
    bottom, top = (jnp.take_along_axis(above, place[:, None], axis=1)[:, :, None] for place in at)
    return jnp.clip((image - bottom) / jnp.maximum(top - bottom, 1.0), 0.0, 1.0)
