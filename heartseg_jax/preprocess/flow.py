"""Blood that is not of one brightness: contrast medium that streams unmixed through the right heart, and dissections.

A bolus reaches the right atrium from the superior vena cava while blood without contrast medium comes from below, so
bright and dark streams lie beside each other, with borders as sharp as a vessel's. A dissected aorta has two lumina
that fill at different times, with a thin flap between them. Both keep their label.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.tissues import FIRST_POOL, NUM_CODES

PLAIN_BLOOD_HU = 40.0
"""Blood that no contrast medium has reached."""
STREAMED = {FIRST_POOL + 8: 1.0, t.OTHER_VEIN: 1.0, FIRST_POOL + 4: 1.0, FIRST_POOL + 5: 0.5, FIRST_POOL + 7: 0.2}
"""How far the streams still are from mixed, by pool: venae cavae, right atrium, right ventricle, pulmonary artery."""
AORTIC = (FIRST_POOL + 1, FIRST_POOL + 6, t.OTHER_ARTERY)
INFLOW_HU = 400.0
"""How much brighter than its pool the inflow is, at most."""
STEEPNESS = 3.0
FLAP = 0.06
"""Half a flap's width, in units of the field that divides the lumina: one or two pixels."""


def unmixed(key: jax.Array, image: jax.Array, blood: jax.Array, code: jax.Array, probability: float) -> jax.Array:
    """Return images [B, S, S] in HU, a share of them with bright and dark streams in the right heart.

    Args:
      key: of the batch.
      image: [B, S, S] HU.
      blood: [B, S, S] HU, the mean of the tissue at each pixel.
      code: [B, S, S] int, tissue codes.
      probability: share of the images that are changed.
    """
    batch, side = code.shape[:2]
    chance, inflow, level = _draws(key, batch)
    coarse, fine = smooth_fields(jax.random.fold_in(key, 1), batch, side, (9, max(side // 10, 2)))
    filled = jax.nn.sigmoid(STEEPNESS * (coarse + 0.6 * fine + 2 * level - 1))
    streams = PLAIN_BLOOD_HU + (blood + INFLOW_HU * inflow - PLAIN_BLOOD_HU) * filled
    share = _table(STREAMED)[code] * (chance < probability)
    return image + share * (streams - blood)


def dissected(key: jax.Array, image: jax.Array, blood: jax.Array, code: jax.Array, probability: float) -> jax.Array:
    """Return images [B, S, S] in HU, a share of them with a false lumen in the aorta. Arguments as for `unmixed`."""
    batch, side = code.shape[:2]
    chance, contrast, level = _draws(key, batch)
    (field,) = smooth_fields(jax.random.fold_in(key, 1), batch, side, (9,))
    field = field + level - 0.5
    lumen = PLAIN_BLOOD_HU + (blood - PLAIN_BLOOD_HU) * (0.15 + 0.8 * contrast)
    changed = jnp.where(jnp.abs(field) < FLAP, PLAIN_BLOOD_HU, jnp.where(field > 0, lumen, blood))
    share = _table(dict.fromkeys(AORTIC, 1.0))[code] * (chance < probability)
    return image + share * (changed - blood)


def _draws(key: jax.Array, batch: int) -> jax.Array:
    """[3, B, 1, 1] in 0..1, by image."""
    return jax.random.uniform(key, (batch * 3,)).reshape(3, batch, 1, 1)


def _table(shares: dict[int, float]) -> jax.Array:
    """[NUM_CODES] float32."""
    table = np.zeros(NUM_CODES, np.float32)
    table[list(shares)] = list(shares.values())
    return jnp.asarray(table)


def smooth_fields(key: jax.Array, batch: int, side: int, nodes: Sequence[int]) -> jax.Array:
    """Return [len(nodes), B, S, S]: one random field for each number of nodes per side, of unit variance at its nodes.

    The more nodes, the finer the field.
    """
    fields = []
    for number, count in enumerate(nodes):
        drawn = jax.random.normal(jax.random.fold_in(key, number), (batch * count * count,))
        matrix = _upsampling(count, side)
        coarse = drawn.reshape(batch, count, count)
        fields.append(jnp.einsum("ia,bac,jc->bij", matrix, coarse, matrix))
    return jnp.stack(fields)


def _upsampling(nodes: int, side: int) -> np.ndarray:
    """[side, nodes]: linear interpolation between nodes."""
    position = np.linspace(0, nodes - 1, side)
    return np.clip(1 - np.abs(position[:, None] - np.arange(nodes)[None, :]), 0, 1).astype(np.float32)
