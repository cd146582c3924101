"""The documented import path of dataset folders, for scripts of users; the code itself is in `data/dataset/`."""

import functools

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset import write
from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.data.dataset.records import Dataset, Patient
from heartseg_jax.data.dataset.verify import verify

DatasetWriter = functools.partial(write.DatasetWriter, label_set=HEART)
"""`write.DatasetWriter` of a dataset of hearts; scripts give `label_set=` for another."""

__all__ = ["Dataset", "DatasetWriter", "Patient", "read_dataset", "verify"]
