"""The slices of a split as the network sees them, the order of examples, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.dataset.records import DTYPES, Dataset, Patient
from heartseg_jax.preprocess import host
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.host import Batch


class Slices(NamedTuple):
    """M slices at the network's size, numpy or jax arrays.

    Attributes:
      image: `[M, S, S]` int16 HU or uint8.
      window: `[M, C, 2]` float32.
      label: `[M, S, S]` uint8.
      merge: `[M, K]` int32.
    """

    image: Any
    window: Any
    label: Any
    merge: Any


def gather(slices: Slices, rows: Any, planes: Any, mask: Any) -> Batch:
    """Return one batch: of example b, slice `rows[b]` and as planes of its image the slices `planes[b]` (`[B, P]`).

    The same code for numpy arrays on the host and jax arrays on the device.
    """
    image = slices.image[planes].transpose(0, 2, 3, 1)
    return Batch(image, slices.window[rows], slices.label[rows], slices.merge[rows], mask)


class SliceStore:
    """The slices of one split at the network's size, each stored once, loaded on demand and kept where they fit.

    Attributes:
      index: for each example (patient, slice), as `Dataset.examples` gives them.
      patient: `[N]`, the patient of each example.
      planes: `[N, P]`, the rows that the planes of each example's image show. Row n is example n; after the examples
        come their neighbours that belong to another split.
    """

    def __init__(self, dataset: Dataset, split: str, spec: InputSpec, cache_gb: float = 0.0):
        self.dataset, self.spec = dataset, spec
        self.index = dataset.examples(split)
        self.patient = np.array([p for p, _ in self.index], np.int64)
        row_of = {place: row for row, place in enumerate(self.index)}
        planes = []
        for p, z in self.index:
            patient = dataset.patients[p]
            shown = host.neighbours(spec, z, patient.num_slices, patient.contiguous)
            planes.append([row_of.setdefault((p, neighbour), len(row_of)) for neighbour in shown])
        self.planes = np.array(planes, np.int64).reshape(len(planes), len(spec.offsets))
        self._places = list(row_of)
        kept = self._empty(0)
        per_row = spec.size**2 * (kept.image.itemsize + kept.label.itemsize)
        self._cache: Slices | None = None
        if len(self._places) * per_row <= cache_gb * 1e9:
            self._cache, self._cached = self._empty(len(self._places)), np.zeros(len(self._places), bool)

    def __len__(self) -> int:
        return len(self.index)

    def gather(self, numbers: np.ndarray, mask: np.ndarray) -> Batch:
        """Return the batch of the examples `numbers [B]`."""
        planes = self.planes[numbers]
        needed = np.unique(np.concatenate([numbers, planes.ravel()]))
        if self._cache is not None:
            self._fill(self._cache, needed[~self._cached[needed]])
            return gather(self._cache, numbers, planes, mask)
        loaded = self._empty(len(needed))
        for row, number in enumerate(needed):
            self._load(loaded, row, int(number))
        return gather(loaded, np.searchsorted(needed, numbers), np.searchsorted(needed, planes), mask)

    def _empty(self, count: int) -> Slices:
        size, dtype = self.spec.size, DTYPES[self.dataset.intensity]
        return Slices(
            np.empty((count, size, size), dtype),
            np.empty((count, len(self.spec.channels), 2), np.float32),
            np.empty((count, size, size), np.uint8),
            np.empty((count, self.dataset.label_set.num_classes), np.int32),
        )

    def _fill(self, cache: Slices, rows: np.ndarray) -> None:
        for row in rows:
            self._load(cache, row, int(row))
            self._cached[row] = True  # set last: another thread may read this row at any time

    def _load(self, into: Slices, row: int, number: int) -> None:
        """Read slice `number` of the store from the dataset into row `row`."""
        position, z = self._places[number]
        patient = self.dataset.patients[position]
        [image] = host.to_network(self.spec, self.dataset.images(patient)[z : z + 1], patient.spacing_mm)
        [label] = host.labels_to_network(self.spec, self.dataset.labels(patient)[z : z + 1], patient.spacing_mm)
        into.image[row] = image
        into.window[row] = host.windows_of(self.spec, image[None])[0]
        # Such values come here only with `guards.labels=warn`. They are excluded from loss and score: on the device an
        # index out of range would silently become the last class.
        into.label[row] = np.where(label < self.dataset.label_set.num_classes, label, np.uint8(IGNORED))
        into.merge[row] = patient.merge


def misfits(spec: InputSpec, patients: Sequence[Patient]) -> tuple[str, ...]:
    """Return warnings of what the input needs, some patients lack, and what is used instead."""
    found = []
    unknown = [p.id for p in patients if p.spacing_mm is None]
    if spec.mm_per_pixel > 0 and unknown:
        found.append(
            f"the model sees {spec.mm_per_pixel:g} mm per pixel; the spacing of {len(unknown)} of {len(patients)} "
            "patients is unknown, their slices are scaled to fill the image"
        )
    scattered = [p.id for p in patients if not p.contiguous]
    if spec.needs_neighbours and scattered:
        found.append(
            f"the model sees neighbouring slices as channels; {len(scattered)} of {len(patients)} patients have "
            "scattered slices, which replace their neighbours"
        )
    return tuple(found)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of batches that show every example once."""
    return -(-num_examples // batch_size)


def indices(seed: int, epoch: int, step: int, num_examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (example numbers `[B]`, mask `[B]`) of one step of one epoch: the order of examples, for every loader.

    Each epoch is a permutation drawn from (seed, epoch). The last batch is filled up with examples from the front of
    the epoch whose mask is 0.
    """
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(num_examples)
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    return order[places % num_examples], (places < num_examples).astype(np.float32)


def batch_at(store: SliceStore, seed: int, step: int, batch_size: int) -> Batch:
    """Return the training batch of a global step, from 0."""
    epoch, place = divmod(step, steps_per_epoch(len(store), batch_size))
    return store.gather(*indices(seed, epoch, place, len(store), batch_size))


def padded(numbers: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (real numbers, numbers `[B]`, mask `[B]`) over `numbers` in order.

    Every batch has `batch_size` rows, so that nothing compiles twice; the last is filled with masked repeats.
    """
    for start in range(0, len(numbers), batch_size):
        real = numbers[start : start + batch_size]
        filled = np.concatenate([real, np.repeat(real[-1:], batch_size - len(real))])
        yield real, filled, (np.arange(batch_size) < len(real)).astype(np.float32)


def in_order(store: SliceStore, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield (numbers of the real examples, batch) over all examples in order, for evaluation."""
    for real, filled, mask in padded(np.arange(len(store)), batch_size):
        yield real, store.gather(filled, mask)
