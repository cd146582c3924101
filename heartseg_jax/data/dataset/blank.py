"""A dataset of black images: what a dataset that is still being made will look like, for whoever needs its shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heartseg_jax.data.dataset.records import DTYPES, Dataset, Patient


@dataclass(frozen=True)
class BlankDataset(Dataset):
    """A single dataset without files. Every image is 0 and every pixel background."""

    def open(self, patient: Patient | int, kind: str) -> np.ndarray:
        """Return an array `[N, H, W]` of zeros that takes no memory."""
        who = self.patients[patient] if isinstance(patient, int) else patient
        dtype = DTYPES[self.intensity] if kind == "images" else np.dtype(np.uint8)
        return np.broadcast_to(np.zeros((), dtype), (who.num_slices, self.height, self.width))
