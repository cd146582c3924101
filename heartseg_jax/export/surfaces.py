"""The surface of each structure: closed, smoothed without shrinking, in the patient's mm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import trimesh
from scipy import ndimage
from skimage.measure import marching_cubes

from heartseg_jax.inference.study import Prediction

FINEST_MM = 1.0
"""Finer voxels are averaged before the surface is drawn: at half of it a mesh is four times as large."""
SMOOTHING_BLOCKS = 0.7
"""Standard deviation of the filter that takes the stairs of the blocks out of the surface."""
SMOOTHING_STEPS = 12
"""Of Taubin's filter, whose steps outwards undo the shrinking of its steps inwards."""
MOST_BLOCKS = 0.1
"""How far the surface is moved, per step, to hold the volume of its voxels; thinner structures stay too small."""


class Surface(NamedTuple):
    """A closed triangle mesh.

    Attributes:
      vertices_mm: `[N, 3]` float64, (x, y, z) in DICOM's LPS.
      faces: `[M, 3]` int64, indices into the vertices; seen from outside they turn counter-clockwise.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray


def surfaces(prediction: Prediction) -> dict[str, Surface]:
    """Return the surface of each structure that is there, by its name.

    Where a structure is cut by the border of the field of view, the surface is closed by the border.
    """
    labels, volume = prediction.labels, prediction.volume
    structures = prediction.contract.label_set.foreground
    boxes = ndimage.find_objects(labels, max_label=max((s.label for s in structures), default=0))
    found = {}
    for structure in structures:
        box = boxes[structure.label - 1]
        if box is None:
            continue
        at, faces = surface_of(labels[box] == structure.label, volume.spacing_mm)
        at += [axis.start for axis in box] * np.array(volume.spacing_mm)
        assert volume.direction is not None
        vertices = at @ volume.direction.T + volume.origin_mm
        if np.linalg.det(volume.direction) < 0:  # to (x, y, z) from (z, y, x) the surface is mirrored
            faces = faces[:, ::-1]
        found[structure.name] = Surface(vertices, np.ascontiguousarray(faces))
    return found


def surface_of(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices `[N, 3]` and faces `[M, 3]` of `mask [Z, Y, X]`, in mm along its axes from voxel 0's middle."""
    factors = [max(round(FINEST_MM / mm), 1) for mm in spacing_mm]
    field = np.pad(mask, [(2 * f, 2 * f + -n % f) for n, f in zip(mask.shape, factors, strict=True)]).astype(np.float32)
    blocks = [part for n, f in zip(field.shape, factors, strict=True) for part in (n // f, f)]
    field = ndimage.gaussian_filter(field.reshape(blocks).mean(axis=(1, 3, 5)), SMOOTHING_BLOCKS)
    spacing = np.array(spacing_mm) * factors
    if field.max() <= 0.5:  # thinner than a block: its densest block stands for it
        field /= 1.9 * field.max()
    vertices, faces, _, _ = marching_cubes(field, 0.5, spacing=tuple(spacing), gradient_direction="ascent")
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=SMOOTHING_STEPS)
    smoothed = np.asarray(mesh.vertices)
    at = hold_volume(smoothed, faces, float(mask.sum() * np.prod(spacing_mm)), MOST_BLOCKS * float(spacing.min()))
    # The middle of the first block of the padding lies (f - 1) / 2 - 2 f voxels from the middle of voxel 0.
    shift = [(f - 1) / 2 - 2 * f for f in factors] * np.array(spacing_mm)
    return at + shift, np.asarray(mesh.faces)


def hold_volume(vertices: np.ndarray, faces: np.ndarray, volume_mm3: float, most_mm: float) -> np.ndarray:
    """Return vertices `[N, 3]` moved along their normals so that the closed surface encloses a volume.

    Both filters shrink what is round. The volume changes by the surface's area times the distance, to first order: a
    second step takes the rest. No step is longer than `most_mm`.
    """
    for _ in range(2):
        a, b, c = vertices[faces].transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)  # as long as twice the triangle's area
        volume = np.einsum("ij,ij->", a, normals) / 6
        area = np.linalg.norm(normals, axis=1).sum() / 2
        corners = faces.ravel()
        along = np.stack([np.bincount(corners, np.repeat(part, 3), len(vertices)) for part in normals.T], axis=1)
        along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        vertices = vertices + np.clip((volume_mm3 - volume) / area, -most_mm, most_mm) * along
    return vertices
