"""The surfaces as compressed MZ3 files, the smallest form that NiiVue reads."""

from __future__ import annotations

import gzip
import struct

import numpy as np

from heartseg_jax.export.surfaces import surfaces
from heartseg_jax.inference.study import Prediction


def packed_surfaces(prediction: Prediction) -> dict[int, bytes]:
    """Return a compressed MZ3 file for each label that is there, in NIfTI's axes: to Right, Anterior, Superior."""
    found = surfaces(prediction)
    return {
        structure.label: mz3(found[structure.name].vertices_mm * [-1, -1, 1], found[structure.name].faces)
        for structure in prediction.contract.label_set.foreground
        if structure.name in found
    }


def mz3(points: np.ndarray, faces: np.ndarray) -> bytes:
    """Return triangles as a compressed MZ3 file: `points [N, 3]` in mm, `faces [M, 3]` of their numbers."""
    head = struct.pack("<HHIII", MAGIC, FACES | POINTS, len(faces), len(points), 0)
    return gzip.compress(head + faces.astype("<i4").tobytes() + points.astype("<f4").tobytes(), 6, mtime=0)


MAGIC, FACES, POINTS = 0x5A4D, 1, 2
