"""One patient: a heart set into the thorax, with the vessels that its source lacks, and the vessels of the lungs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.inside import add_coronaries, add_trabeculae
from heartseg_jax.imaging.body.kit import ASCENDING, CHAMBERS, DESCENDING, LEFT_ATRIUM, PULMONARY, Kit
from heartseg_jax.imaging.body.thorax import SPACING, WALL, Thorax
from heartseg_jax.imaging.body.tubes import sweep
from heartseg_jax.imaging.body.vessels import LOOSE, WHOLE, add_vessels, pulmonary_branches, vessels_of_lungs

LOOKED_AT = 900
"""Positions of a heart that placement looks at."""
ROOT_ML = 16.0
"""A pulmonary artery smaller than this is only its root."""
PRICE = {WALL: 1.0, t.BONE: 1.0, t.MARROW: 1.0, t.MUSCLE: 1.0, t.LIVER: 0.3, t.AIRWAY: 0.3, t.ORGAN: 0.1}
"""What it costs to lay a part of the heart over a tissue."""
STEPS_MM = np.array([(x, y, z) for x in range(-24, 25, 8) for y in range(-16, 17, 4) for z in range(-16, 17, 8)])
AORTA_MM = 13.0
"""Around the course of the descending aorta, where a heart that lacks one must not lie."""
FITS = 0.05
"""The cost below which a heart need not be made smaller."""


@dataclass(frozen=True)
class Patient:
    """A heart in a thorax. Positions in mm of the thorax's grid.

    Attributes:
      codes: `[X, Y, Z]` uint8: the thorax with added vessels.
      outside: see `Thorax`.
      ribs: see `Thorax.width`.
      kit: the heart.
      turn: `[3, 3]` rotation times scale, from the kit's space to the thorax's.
      centre, kit_centre: `[3]`: where the centre of the kit's chambers lies, and where it was.
      top, bottom: level of the highest great vessel, and of the lowest chamber, in mm.
    """

    codes: np.ndarray
    outside: np.ndarray
    ribs: float
    kit: Kit
    turn: np.ndarray
    centre: np.ndarray
    kit_centre: np.ndarray
    top: float = 0.0
    bottom: float = 0.0

    def to_kit(self, at: np.ndarray) -> np.ndarray:
        """Return positions `[N, 3]` of the thorax, in mm of the kit's own grid."""
        back = np.linalg.inv(self.turn).T
        return np.asarray(at @ back + (self.kit_centre - self.centre @ back))

    def moved(self, codes: int | tuple[int, ...]) -> np.ndarray:
        """Return where the kit's voxels of some tissues lie in the thorax, `[N, 3]` in mm."""
        return np.asarray((self.kit.points(codes) - self.kit_centre) @ self.turn.T + self.centre)


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return the rotation `[3, 3]` by three angles in radians, about the axes in their order."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (a for a in range(3) if a != axis)
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        out = one @ out
    return out


def compose(rng: np.random.Generator, thorax: Thorax, kit: Kit, scale: float, angles: np.ndarray) -> Patient:
    """Set a heart into a thorax. Only a heart that is not the thorax's own is moved.

    Args:
      rng: draws the vessels of the lungs and the courses of added vessels.
      thorax: where to.
      kit: the heart.
      scale: size of its chambers, 1 for that of the thorax's own, as a length.
      angles: rotation about the three axes in radians.
    """
    own = kit is thorax.own
    home = thorax.own.points(CHAMBERS).mean(axis=0)
    chambers = kit.points((*CHAMBERS, t.JOINED_BLOOD))
    middle = chambers.mean(axis=0)
    patient = Patient(thorax.codes.copy(), thorax.outside, thorax.width, _varied(rng, kit), np.eye(3), home, middle)
    if not own:
        size = (thorax.own.ml(thorax.own.points(CHAMBERS)) / kit.ml(chambers)) ** (1 / 3)
        patient = _placed(rng, thorax, patient, rotation(angles) * scale * size)
        add_vessels(rng, patient.codes, thorax, patient.moved, patient.centre - home)
    pulmonary = patient.moved(PULMONARY)
    if 0 < kit.ml(pulmonary) < ROOT_ML and not own:
        pulmonary = pulmonary_branches(rng, patient.codes, thorax, pulmonary)
    vessels_of_lungs(rng, patient.codes, pulmonary, patient.moved(LEFT_ATRIUM))
    high = patient.moved((ASCENDING, PULMONARY, *CHAMBERS, t.JOINED_BLOOD))[:, 2].max()
    top = float(max(high, thorax.tracks["descending"][0, 2] + 8))
    limit = (patient.codes.shape[2] - 12) * SPACING
    low = float(patient.moved((*CHAMBERS, t.JOINED_BLOOD))[:, 2].min())
    return dataclasses.replace(patient, top=min(top, limit), bottom=low)


def _varied(rng: np.random.Generator, kit: Kit) -> Kit:
    """Return a heart with the fine structure that sources smooth away, drawn at random."""
    codes = kit.codes.copy()
    add_trabeculae(rng, codes, kit.spacing)
    add_coronaries(rng, codes, kit.spacing)
    return dataclasses.replace(kit, codes=codes)


def _placed(rng: np.random.Generator, thorax: Thorax, patient: Patient, turn: np.ndarray) -> Patient:
    """Return the patient with the heart where, and as small as, the least of it lies in bones, chest wall or liver."""
    price = np.zeros(256)
    price[list(PRICE)] = list(PRICE.values())
    kit = patient.kit
    tissue = thorax.codes
    if len(kit.points(DESCENDING)) < WHOLE:
        # The descending aorta comes later: the heart leaves its course free.
        tissue = tissue.copy()
        sweep(tissue, SPACING, thorax.tracks["descending"][::4], AORTA_MM, WALL, LOOSE)
    heart = kit.points([code for code in range(t.NUM_CODES) if code != t.FAT])
    some = heart[rng.choice(len(heart), LOOKED_AT)] - patient.kit_centre
    detour = 2e-3 * np.linalg.norm(STEPS_MM, axis=1) / 8
    best: tuple[float, np.ndarray, np.ndarray] = (np.inf, patient.centre, turn)
    for smaller in (1.0, 0.93, 0.86, 0.8):
        at = some @ (turn * smaller).T + patient.centre
        where = np.round((at + STEPS_MM[:, None]) / SPACING).astype(int).clip(0, np.array(tissue.shape) - 1)
        cost = price[tissue[tuple(np.moveaxis(where, -1, 0))]].mean(axis=1) + detour
        step = int(cost.argmin())
        if cost[step] < best[0] - 0.01:
            best = (float(cost[step]), patient.centre + STEPS_MM[step], turn * smaller)
        if best[0] < FITS:
            break
    return dataclasses.replace(patient, centre=best[1], turn=best[2])
