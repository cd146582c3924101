"""The documented import path of dataset folders, for scripts of users; the code itself is in `data/dataset/`."""

from heartseg_jax.data.dataset.read import read_dataset, verify
from heartseg_jax.data.dataset.records import Dataset, Patient
from heartseg_jax.data.dataset.write import DatasetWriter

__all__ = ["Dataset", "DatasetWriter", "Patient", "read_dataset", "verify"]
