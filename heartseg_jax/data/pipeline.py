"""From a dataset folder to batches, by grain: one pure order of examples, loaded by threads, checkpointable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain.python as grain
import numpy as np

from heartseg_jax.anatomy import IGNORED
from heartseg_jax.data.dataset.write import Dataset, Patient
from heartseg_jax.imaging import volume

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class View:
    """What the network sees of a slice: the preprocessing contract, saved with every checkpoint.

    Attributes:
      intensity: unit of the stored values, 'HU' or 'uint8'.
      size: pixels; the network sees `size x size`.
      mm_per_pixel: mm, or 0 where the slice's longer side is scaled to `size`.
      channels: 'repeat' (one slice three times) or 'adjacent' (slices z-1, z, z+1).
      normalise: 'window' (`window_hu` to 0..1) or 'percentile' (each slice by its own `percentiles`).
    """

    intensity: str
    size: int
    mm_per_pixel: float
    channels: str
    normalise: str
    window_hu: tuple[float, float]
    percentiles: tuple[float, float]

    @property
    def fill(self) -> int:
        """The stored value of air: what lies outside of a slice."""
        return volume.AIR_HU if self.intensity == "HU" else 0


def view_of(config: Any, intensity: str) -> View:
    """Return the preprocessing contract of a config for data of this intensity unit.

    8-bit images have no known window, so they are normalised by percentiles whatever the config says.
    """
    return View(
        intensity=intensity,
        size=config.size,
        mm_per_pixel=config.mm_per_pixel,
        channels=config.channels,
        normalise=config.normalise if intensity == "HU" else "percentile",
        window_hu=tuple(config.window_hu),
        percentiles=tuple(config.percentiles),
    )


def intensity_window(view: View, images: np.ndarray) -> np.ndarray:
    """Return `[N, 2]` float32: for each slice of `[N, H, W]` the stored values that become 0 and 1.

    Percentiles are taken over the pixels brighter than air: the share of air around a patient is the
    field of view's, not the patient's.
    """
    if view.normalise == "window":
        return np.tile(np.asarray(view.window_hu, np.float32), (len(images), 1))
    windows = np.empty((len(images), 2), np.float32)
    for row, image in zip(windows, images, strict=True):
        body = image[image > view.fill]
        row[:] = np.percentile(body if body.size else image, view.percentiles)
    windows[:, 1] = np.maximum(windows[:, 1], windows[:, 0] + 1)
    return windows


class Examples:
    """The slices of one split as the network sees them, loaded on demand and kept where they fit."""

    def __init__(self, dataset: Dataset, split: str, view: View, cache_gb: float = 0.0):
        self.dataset, self.view = dataset, view
        self.index = dataset.examples(split)
        merges = [dataset.patients[p].merge for p, _ in self.index]
        self.merge = np.array(merges, np.int32).reshape(-1, dataset.label_set.num_classes)
        self.patient = np.array([p for p, _ in self.index], np.int64)
        self._steps = [
            volume.step_for(dataset.height, dataset.width, patient.spacing_mm, view.size, view.mm_per_pixel)
            for patient in dataset.patients
        ]
        dtype = np.int16 if dataset.intensity == "HU" else np.uint8
        pixels = view.size * view.size
        needed = len(self.index) * pixels * (np.dtype(dtype).itemsize * self.channels + 1)
        self._cache: Batch | None = None
        if needed <= cache_gb * 1e9:
            shape = (len(self.index), view.size, view.size)
            self._cache = {
                "image": np.empty((*shape, self.channels), dtype),
                "window": np.empty((len(self.index), 2), np.float32),
                "label": np.empty(shape, np.uint8),
            }
            self._cached = np.zeros(len(self.index), bool)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def channels(self) -> int:
        """Stored channels of an example: 1, or 3 with neighbouring slices."""
        return 3 if self.view.channels == "adjacent" else 1

    def load(self, number: int) -> Batch:
        """Return `image [S, S, C]`, `window [2]` and `label [S, S]` of one example, read from the dataset."""
        position, z = self.index[number]
        patient = self.dataset.patients[position]
        images, labels = self.dataset.images(patient), self.dataset.labels(patient)
        neighbours = [z]
        if self.channels == 3:
            # Scattered slices have no neighbours: the slice stands in for them, as at the ends of a volume.
            reach = 1 if patient.contiguous else 0
            neighbours = [max(z - reach, 0), z, min(z + reach, len(images) - 1)]
        step, size = self._steps[position], self.view.size
        image = volume.resample_slices(np.stack([images[n] for n in neighbours]), size, step, self.view.fill)
        label = volume.resample_labels(labels[z : z + 1], size, step)[0]
        # Only where `guards.labels` was told to warn can such values come here: they count as nobody's, since
        # on the device an index out of range would become the last class without a word.
        label = np.where(label < self.dataset.label_set.num_classes, label, np.uint8(IGNORED))
        middle = image[len(neighbours) // 2]
        window = intensity_window(self.view, middle[None])[0]
        return {"image": np.moveaxis(image, 0, -1), "window": window, "label": label}

    def gather(self, numbers: np.ndarray, mask: np.ndarray) -> Batch:
        """Return one batch: `image [B, S, S, C]`, `window [B, 2]`, `label [B, S, S]`, `merge [B, 9]`, `mask [B]`."""
        if self._cache is None:
            rows = [self.load(int(number)) for number in numbers]
            batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        else:
            for number in np.unique(numbers[~self._cached[numbers]]):
                for name, value in self.load(int(number)).items():
                    self._cache[name][number] = value
                self._cached[number] = True  # set last: another thread may read this example at any time
            batch = {name: values[numbers] for name, values in self._cache.items()}
        return {**batch, "merge": self.merge[numbers], "mask": mask}


def misfits(view: View, patients: Sequence[Patient]) -> tuple[str, ...]:
    """Say where patients lack what the view asks for and something else stands in for it."""
    found = []
    unknown = [p.id for p in patients if p.spacing_mm is None]
    if view.mm_per_pixel > 0 and unknown:
        found.append(
            f"the model sees {view.mm_per_pixel:g} mm a pixel; the spacing of {len(unknown)} of {len(patients)} "
            "patients is unknown, their slices are scaled to fill the image"
        )
    scattered = [p.id for p in patients if not p.contiguous]
    if view.channels == "adjacent" and scattered:
        found.append(
            f"the model sees neighbouring slices as channels; {len(scattered)} of {len(patients)} patients have "
            "scattered slices, which stand in for their neighbours"
        )
    return tuple(found)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of batches that show every example once."""
    return -(-num_examples // batch_size)


def indices(seed: int, epoch: int, step: int, num_examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (example numbers `[B]`, mask `[B]`) of one step of one epoch: the order of examples, for everyone.

    Each epoch is a permutation of its own, drawn from (seed, epoch) alone. The last batch is filled up
    with examples from the front of the epoch whose mask is 0.
    """
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(num_examples)
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    return order[places % num_examples], (places < num_examples).astype(np.float32)


class _LoadStep:
    """Turns a global step into its batch; a class so that grain can name it."""

    def __init__(self, examples: Examples, seed: int, batch_size: int):
        self._examples, self._seed, self._batch_size = examples, seed, batch_size
        self._per_epoch = steps_per_epoch(len(examples), batch_size)

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(int(step), self._per_epoch)
        numbers, mask = indices(self._seed, epoch, place, len(self._examples), self._batch_size)
        return self._examples.gather(numbers, mask)


def train_batches(examples: Examples, seed: int, batch_size: int, steps: int, threads: int) -> Any:
    """Return a grain iterator over the batches of global steps 0 .. steps-1.

    It has `get_state()` and `set_state(state)` (JSON-able), for checkpoints. `threads` load ahead.
    """
    dataset = grain.MapDataset.range(steps).map(_LoadStep(examples, seed, batch_size))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))


def in_order(
    examples: Examples, numbers: Sequence[int] | np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield (example numbers of the real ones, batch) over `numbers` in their order, for evaluation.

    Every batch has `batch_size` rows, so that nothing compiles twice; the last is filled with masked repeats.
    """
    for start in range(0, len(numbers), batch_size):
        real = np.asarray(numbers[start : start + batch_size])
        padded = np.concatenate([real, np.repeat(real[-1:], batch_size - len(real))])
        mask = (np.arange(batch_size) < len(real)).astype(np.float32)
        yield real, examples.gather(padded, mask)


def as_contract(view: View) -> Mapping[str, Any]:
    """Return the view as plain JSON, as it is saved in a checkpoint."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(view).items()}


def from_contract(contract: Mapping[str, Any]) -> View:
    """Return the view that `as_contract` wrote."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in contract.items()}
    return View(**fields)
