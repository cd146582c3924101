"""The slices of a split as the network sees them, the order of examples, and batches of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.dataset.records import DTYPES, Dataset, Patient
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.tissues import LABEL_OF
from heartseg_jax.preprocess import host
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.progress import Progress

Rows = np.ndarray | slice
"""Which rows of a batch a process loads."""
ALL_ROWS = slice(None)


class Slices(NamedTuple):
    """M slices at the network's size, numpy or jax arrays.

    Attributes:
      image: `[M, S, S]` int16 HU or uint8.
      window: `[M, C, 2]` float32.
      label: `[M, S, S]` uint8.
      merge: `[M, K]` int32.
      tissue: `[M]` bool, which images are tissue codes; None where none is.
    """

    image: Any
    window: Any
    label: Any
    merge: Any
    tissue: Any = None


def gather(slices: Slices, rows: Any, planes: Any, mask: Any) -> Batch:
    """Return one batch: of example b, slice `rows[b]` and as planes of its image the slices `planes[b]` (`[B, P]`).

    The same code for numpy arrays on the host and jax arrays on the device.
    """
    image = slices.image[planes].transpose(0, 2, 3, 1)
    tissue = None if slices.tissue is None else slices.tissue[rows]
    return Batch(image, slices.window[rows], slices.label[rows], slices.merge[rows], mask, tissue)


class SliceStore:
    """The slices of one split at the network's size, each stored once, loaded on demand and kept where they fit.

    Attributes:
      index: for each example (patient, slice), as `Dataset.examples` gives them.
      patient: `[N]`, the patient of each example.
      planes: `[N, P]`, the rows that the planes of each example's image show. Row n is example n; after the examples
        come their neighbours that belong to another split.
      mixture: of the training slices of joined datasets with shares; None where every example comes once per epoch.
    """

    def __init__(self, dataset: Dataset, split: str, spec: InputSpec, cache_gb: float = 0.0):
        self.dataset, self.spec = dataset, spec
        self.index = dataset.examples(split)
        self.patient = np.array([p for p, _ in self.index], np.int64)
        self.mixture = mixture_of(dataset) if split == "train" and dataset.shares else None
        shown_parts = [dataset.part_of(int(p)) for p in np.unique(self.patient)] or list(dataset.parts)
        self._units = {part.intensity for part in shown_parts}
        self._specs = {unit: spec.for_intensity(unit)[0] for unit in self._units}
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

    def whole(self, rows: int = 0, threads: int = 1, progress: Progress | None = None) -> Slices:
        """Return all slices, those that only neighbours show included, read by `threads`; then zeros up to `rows`."""
        count = len(self._places)
        into = self._empty(max(rows, count))
        for part in into:
            if part is not None:
                part[count:] = 0
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(lambda row: self._load(into, row, row), range(count)), 1):
                if progress:
                    progress(done, count)
        return into

    def blank(self, rows: int = 0) -> Slices:
        """Return shapes, types and size in bytes of `whole(rows)`: views that take no memory, to be read by nobody."""
        count = max(rows, len(self._places))
        parts = (None if part is None else np.broadcast_to(part, (count, *part.shape[1:])) for part in self._empty(1))
        return Slices(*parts)

    def _empty(self, count: int) -> Slices:
        # The codes and grey values of 8 bits have room among HU.
        size, dtype = self.spec.size, DTYPES["HU" if "HU" in self._units else "uint8"]
        return Slices(
            np.empty((count, size, size), dtype),
            np.empty((count, len(self.spec.channels), 2), np.float32),
            np.empty((count, size, size), np.uint8),
            np.empty((count, self.dataset.label_set.num_classes), np.int32),
            np.empty(count, bool) if "tissue" in self._units else None,
        )

    def _fill(self, cache: Slices, rows: np.ndarray) -> None:
        for row in rows:
            self._load(cache, row, int(row))
            self._cached[row] = True  # set last: another thread may read this row at any time

    def _load(self, into: Slices, row: int, number: int) -> None:
        """Read slice `number` of the store from the dataset into row `row`."""
        position, z = self._places[number]
        patient = self.dataset.patients[position]
        spec = self._specs[self.dataset.part_of(patient).intensity]
        [image] = host.to_network(spec, self.dataset.images(patient)[z : z + 1], patient.spacing_mm)
        [label] = host.labels_to_network(spec, self.dataset.labels(patient)[z : z + 1], patient.spacing_mm)
        if into.tissue is not None:
            into.tissue[row] = spec.intensity == "tissue"
        if spec.intensity == "tissue":
            # Resampled apart from its image, a label would lie up to a pixel beside the tissue that is drawn.
            label = np.where(label == IGNORED, label, LABEL_OF[image])
        into.image[row] = image
        into.window[row] = host.windows_of(spec, image[None])[0]
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


class Mixture(NamedTuple):
    """How an epoch is shared among the parts of joined datasets, whose examples follow each other.

    Attributes:
      sizes: examples of each part.
      places: places that each part has in an epoch; together as many as there are examples.
    """

    sizes: tuple[int, ...]
    places: tuple[int, ...]


def mixture_of(dataset: Dataset) -> Mixture:
    """Return the mixture of the training examples by `dataset.shares`: by largest remainder, of equal ones the first.

    Raises:
      UserError: a part has a share and no training examples, examples and no share, or a share of less than one place.
    """
    parts, shares = dataset.parts, np.array(dataset.shares) / sum(dataset.shares)
    sizes = np.array([len(part.examples("train")) for part in parts])
    exact = shares * sizes.sum()
    places = np.floor(exact + 1e-9).astype(int)
    left = int(sizes.sum() - places.sum())
    places[np.argsort(-(exact - places), kind="stable")[:left]] += 1
    for part, size, count, share in zip(parts, sizes, places, shares, strict=True):
        if size == 0 and share > 0:
            raise UserError(f"{part.name} has no training patients: its share in data.shares must be 0")
        if size and share == 0:
            raise UserError(
                f"{part.name} has training patients: its share in data.shares must be above 0, or leave it out"
            )
        if size and count == 0:
            raise UserError(
                f"the share of {part.name} in data.shares is less than one of the {sizes.sum()} slices of an epoch; "
                "raise it"
            )
    return Mixture(tuple(sizes.tolist()), tuple(places.tolist()))


def indices(
    seed: int, epoch: int, step: int, num_examples: int, batch_size: int, mixture: Mixture | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (example numbers `[B]`, mask `[B]`) of one step of one epoch: the order of examples, for every loader.

    Each epoch is a permutation drawn from (seed, epoch); with a `mixture` see `_mixed_order`. The last batch is filled
    up with examples from the front of the epoch whose mask is 0.
    """
    order = order_of(seed, epoch, num_examples, mixture)
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    return order[places % num_examples], (places < num_examples).astype(np.float32)


def order_of(seed: int, epoch: int, num_examples: int, mixture: Mixture | None) -> np.ndarray:
    """Return the example at each place of an epoch, read-only."""
    return _plain_order(num_examples, seed, epoch) if mixture is None else _mixed_order(mixture, seed, epoch)


@functools.lru_cache(maxsize=8)
def _plain_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    order = _permutation(num_examples, seed, epoch)
    order.setflags(write=False)
    return order


def _permutation(count: int, *entropy: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).permutation(count)


@functools.lru_cache(maxsize=8)
def _mixed_order(mixture: Mixture, seed: int, epoch: int) -> np.ndarray:
    """Return the example at each place of an epoch.

    The part at each place is a permutation drawn from (seed, epoch). The k-th place of a part takes the next example of
    the part's own permutations, drawn from (seed, round, part): they go on where the epoch before left them, so that a
    part shows all its examples before it shows one again, whatever its share.
    """
    parts = np.repeat(np.arange(len(mixture.places)), mixture.places)[_permutation(sum(mixture.places), seed, epoch)]
    order = np.empty(len(parts), np.int64)
    first = 0
    for part, (size, count) in enumerate(zip(mixture.sizes, mixture.places, strict=True)):
        if count:
            begin, offset = divmod(epoch * count, size)
            rounds = range(begin, begin + -(-(offset + count) // size))
            # SeedSequence takes (seed, epoch) and (seed, epoch, 0) for one: parts count from 1.
            own = np.concatenate([_permutation(size, seed, number, part + 1) for number in rounds])
            order[parts == part] = first + own[offset : offset + count]
        first += size
    order.setflags(write=False)
    return order


def examples_at(store: SliceStore, seed: int, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (example numbers `[B]`, mask `[B]`) of a global step, from 0."""
    epoch, place = divmod(step, steps_per_epoch(len(store), batch_size))
    return indices(seed, epoch, place, len(store), batch_size, store.mixture)


def batch_at(store: SliceStore, seed: int, step: int, batch_size: int, rows: Rows = ALL_ROWS) -> Batch:
    """Return the training batch of a global step, from 0, or only `rows` of it."""
    numbers, mask = examples_at(store, seed, step, batch_size)
    return store.gather(numbers[rows], mask[rows])


def padded(numbers: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (real numbers, numbers `[B]`, mask `[B]`) over `numbers` in order.

    Every batch has `batch_size` rows, so that nothing compiles twice; the last is filled with masked repeats.
    """
    for start in range(0, len(numbers), batch_size):
        real = numbers[start : start + batch_size]
        filled = np.concatenate([real, np.repeat(real[-1:], batch_size - len(real))])
        yield real, filled, (np.arange(batch_size) < len(real)).astype(np.float32)


def in_order(store: SliceStore, batch_size: int, rows: Rows = ALL_ROWS) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield (numbers of the real examples, batch) over all examples in order, for evaluation.

    The batch may be only `rows` of the whole one; the numbers are always those of the whole one.
    """
    for real, filled, mask in padded(np.arange(len(store)), batch_size):
        yield real, store.gather(filled[rows], mask[rows])
