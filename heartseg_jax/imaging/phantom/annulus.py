"""Version 2 of the phantom's mitral annulus, by itself: a saddle and a D, between two chambers and an aortic root.

The phantom patients (version 1, frozen) have a round and flat one. No chest, no HU: labels and the true curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from heartseg_jax.imaging.volume import Volume

VERSION = 2
ATRIUM, VENTRICLE, AORTA = 2, 3, 1
CHILD = 0.25
"""Probability of a child."""
SEPTOLATERAL_MM, ASPECT, HEIGHT_MM = (26.0, 36.0), (1.2, 1.4), (3.0, 11.0)
"""Of adults, as published (docs/mitral.md): the shorter diameter, the longer one over it, and the saddle's height."""
CHILD_SCALE = (0.55, 0.85)
POINTS = 720
AORTIC_WALL_MM = 3.0


@dataclass(frozen=True)
class AnnulusSpec:
    """A mitral annulus and what lies around it.

    Attributes:
      septolateral_mm: diameter along the direction to the aortic root.
      intercommissural_mm: diameter across it.
      height_mm: of the saddle, from its valleys at the commissures to the horn at the aortic root, before a plane is
        fitted.
      flatness: depth of the side at the aortic root over that of the other one: 1 for an ellipse, less for a D.
      tent_mm: how far the leaflets bulge into the ventricle.
      opening: width of the wall over the distance from the rim: a wedge between the chambers.
      wall_mm: the wall's greatest width.
    """

    septolateral_mm: float = 30.0
    intercommissural_mm: float = 39.0
    height_mm: float = 6.0
    flatness: float = 0.6
    tent_mm: float = 4.0
    opening: float = 1.5
    wall_mm: float = 4.0


class AnnulusPhantom(NamedTuple):
    """Labels with a known annulus.

    Attributes:
      volume: the grid; its voxels are the labels, uint8 `[Z, Y, X]`.
      curve_mm: `[POINTS, 3]`, the true annulus in mm of the patient.
      septal: `[3]`, unit vector from its centre to the aortic root.
      flow: `[3]`, unit vector from the atrium to the ventricle.
    """

    volume: Volume
    curve_mm: np.ndarray
    septal: np.ndarray
    flow: np.ndarray


def draw_annulus(rng: np.random.Generator) -> AnnulusSpec:
    """Draw an annulus within published ranges, an adult's or a child's."""
    scale = rng.uniform(*CHILD_SCALE) if rng.random() < CHILD else 1.0
    across = scale * rng.uniform(*SEPTOLATERAL_MM)
    return AnnulusSpec(
        septolateral_mm=across,
        intercommissural_mm=across * rng.uniform(*ASPECT),
        height_mm=max(HEIGHT_MM[0], scale * rng.uniform(*HEIGHT_MM)),
        flatness=rng.uniform(0.5, 1.0),
        tent_mm=scale * rng.uniform(0.0, 7.0),
        opening=rng.uniform(0.8, 4.0),
        wall_mm=rng.uniform(3.0, 6.0),
    )


def draw_pose(rng: np.random.Generator) -> np.ndarray:
    """Return rows `[3, 3]` in LPS: the way to the aortic root, across it, and of the flow; as in a patient, varied."""
    flow = np.array([0.60, -0.74, -0.30]) + rng.uniform(-0.2, 0.2, 3)
    flow /= np.linalg.norm(flow)
    septal = np.array([-0.5, -0.6, 0.6]) + rng.uniform(-0.2, 0.2, 3)
    septal -= (septal @ flow) * flow
    septal /= np.linalg.norm(septal)
    return np.stack([septal, np.cross(flow, septal), flow])


def make_annulus(
    spec: AnnulusSpec,
    pose: np.ndarray,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    direction: np.ndarray | None = None,
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> AnnulusPhantom:
    """Return the labels of an annulus on a grid around it.

    Args:
      spec: the annulus.
      pose: rows as of `draw_pose`.
      spacing_mm: (z, y, x) of the grid.
      direction: of the grid, as of a `Volume`.
      shift_mm: of the grid beside the annulus.
    """
    size = spec.intercommissural_mm
    reach = 1.6 * size + 12
    shape = tuple(2 * math.ceil(reach / mm) + 1 for mm in spacing_mm)
    grid = Volume(np.zeros((1, 1, 1), np.uint8), spacing_mm, direction=direction)
    assert grid.direction is not None
    middle = grid.direction @ (np.array([n - 1 for n in shape]) / 2 * spacing_mm)
    origin = np.array(shift_mm) - middle
    labels = np.empty(shape, np.uint8)
    steps = grid.direction * np.array(spacing_mm)
    rest = origin + np.arange(shape[1])[:, None, None] * steps[:, 1] + np.arange(shape[2])[None, :, None] * steps[:, 2]
    for k in range(shape[0]):  # a slice at a time
        labels[k] = _labels(spec, (rest + k * steps[:, 0]) @ pose.T)
    place = (float(origin[0]), float(origin[1]), float(origin[2]))
    return AnnulusPhantom(Volume(labels, spacing_mm, place, grid.direction), _curve(spec) @ pose, pose[0], pose[2])


def _curve(spec: AnnulusSpec) -> np.ndarray:
    """Return the annulus `[POINTS, 3]`: towards the aortic root, across, along the flow."""
    angles = 2 * np.pi * np.arange(POINTS) / POINTS
    depth = spec.septolateral_mm / (1 + spec.flatness)
    x = depth * np.cos(angles) * np.where(np.cos(angles) > 0, spec.flatness, 1.0)
    y = spec.intercommissural_mm / 2 * np.sin(angles)
    # Both horns rise towards the atrium, the one at the aortic root higher.
    z = -spec.height_mm * (0.425 * np.cos(2 * angles) + 0.075 * np.cos(angles) + 0.075)
    curve = np.stack([x, y, z], axis=1)
    return curve - curve.mean(axis=0)


def _labels(spec: AnnulusSpec, local: np.ndarray) -> np.ndarray:
    """Return the labels at places `[..., 3]` in the annulus' own directions."""
    curve = _curve(spec)
    turn = np.arctan2(curve[:, 1], curve[:, 0])
    order = np.argsort(turn)
    x, y, z = np.moveaxis(local, -1, 0)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    rim, height = (
        np.interp(angle, turn[order], values[order], period=2 * np.pi)
        for values in (np.hypot(curve[:, 0], curve[:, 1]), curve[:, 2])
    )
    share = np.minimum(radius / rim, 1) ** 2
    leaflet = height * share + spec.tent_mm * (1 - share)
    wall = np.clip(spec.opening * (radius - rim), 0, spec.wall_mm)
    size = spec.intercommissural_mm
    atrium = _ellipsoid(x, y, z, (0, 0, -0.5 * size), (0.74 * size, 0.8 * size, 0.85 * size))
    ventricle = _ellipsoid(x, y, z, (0, 0, 0.55 * size), (0.62 * size, 0.64 * size, 1.0 * size))
    # The outflow tract runs along the ventricle's side to the aortic valve, and the aorta on from there.
    start, valve = np.array([0.25 * size, 0, 0.5 * size]), np.array([0.62 * size, 0, -0.02 * size])
    way = np.array([0.35, 0, -0.94])
    beyond = (local - valve) @ way
    tract = _capsule(local, start, valve, 0.28 * size)
    aorta = _capsule(local, valve, valve + 0.7 * size * way, 0.28 * size)
    inside, below, above = radius < rim, z > leaflet + wall / 2, z < leaflet - wall / 2
    labels = np.zeros(x.shape, np.uint8)
    labels[(((ventricle < 1) & (z < 1.2 * size)) | ((tract < 0) & (beyond < 0))) & below] = VENTRICLE
    labels[(atrium < 1) & above & ((np.minimum(tract, aorta) > AORTIC_WALL_MM) | inside)] = ATRIUM
    labels[(aorta < 0) & (beyond >= 0) & ~inside] = AORTA
    return labels


def _ellipsoid(x, y, z, centre, radii) -> np.ndarray:
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 + ((z - centre[2]) / radii[2]) ** 2


def _capsule(places: np.ndarray, start: np.ndarray, stop: np.ndarray, radius: float) -> np.ndarray:
    """Return the distance of places from a capsule in mm, negative inside."""
    along = stop - start
    share = np.clip((places - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(places - start - share[..., None] * along, axis=-1) - radius
