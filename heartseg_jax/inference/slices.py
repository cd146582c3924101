"""From slices to probabilities or labels on their own grid, by one model or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heartseg_jax.anatomy import counts_as
from heartseg_jax.data.examples import padded
from heartseg_jax.inference import across, closer
from heartseg_jax.inference.confidence import sums_on_device, sums_on_host
from heartseg_jax.inference.predictor import WORKERS, Output, Predictor
from heartseg_jax.preprocess import host
from heartseg_jax.preprocess.contract import InputSpec
from heartseg_jax.preprocess.host import Batch, Spacing
from heartseg_jax.threads import map_in_order

_NOTHING = np.empty(0, np.float32)
_Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Which slices a batch shows, as `padded` gives them."""


def predict_slices(
    predictor: Predictor,
    spec: InputSpec,
    images: np.ndarray,
    wanted: Sequence[int] | np.ndarray,
    spacing_mm: Spacing,
    contiguous: bool,
    shared: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the probabilities `[n, H, W, K]` float32 of the slices `wanted`, at most `batch_size` at a time.

    `wanted` are indices into `images [Z, H, W]`, patient-axial, int16 HU or uint8; `spacing_mm` is (z, y, x), or None
    where it is unknown; `contiguous` whether the slices are a whole volume in order, so that they have neighbours. To
    `shared` is added what the members of several share (`Output.shared`), batch by batch.

    Where `spec` averages across slices (`across_mm`), `wanted` ascends, and one slice is yielded at a time.
    """
    study = _Study(spec, images, spacing_mm, contiguous)

    def looked(numbers: _Numbers) -> _Found:
        return _looked(predictor, study, numbers)

    found = map_in_order(looked, padded(np.asarray(wanted), predictor.batch_size), WORKERS)
    yield from _kept(_across(study, wanted, found), shared)


def predict_labels(
    predictor: Predictor,
    spec: InputSpec,
    images: np.ndarray,
    wanted: Sequence[int] | np.ndarray,
    spacing_mm: Spacing,
    contiguous: bool,
    merge: tuple[int, ...],
    shared: list[np.ndarray] | None = None,
    sums: list[np.ndarray] | None = None,
    by_model: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the labels `[n, H, W]` uint8 that the probabilities of `predict_slices`, merged by `merge`, amount to.

    They are brought to the slices' grid and compared on the device: of K probabilities a pixel, one byte comes back.
    To `sums` is added, batch by batch, what a confidence is made of (`confidence.mean_probability`), and to `by_model`
    the labels `[M, n, H, W]` uint8 of each of several models.
    """
    models = by_model is not None
    study = _Study(spec, images, spacing_mm, contiguous)
    rows, columns = host.back_matrices(spec, images.shape[1], images.shape[2], spacing_mm)
    matrix = None if merge == tuple(range(len(merge))) else counts_as(np.array(merge)).astype(np.float32)

    def compared(looked: _Found) -> _Found:
        found = merged(_mean(looked.models) if looked.models else looked.slices, merge)
        labels = found.argmax(axis=-1).astype(np.uint8)
        each = [merged(own, merge).argmax(axis=-1).astype(np.uint8) for own in looked.models]
        return _Found(labels, looked.shared, sums_on_host(found, labels), each)

    def looked(numbers: _Numbers) -> _Found:
        return _looked(predictor, study, numbers, models)

    def labelled(numbers: _Numbers) -> _Found:
        if spec.closer:
            return compared(looked(numbers))
        output, count = predictor.predict(_batch(study, numbers)).checked(), len(numbers[0])
        own, by_slice = _labels(output.probabilities, matrix, rows, columns)
        each = [np.asarray(_labels(one, matrix, rows, columns)[0])[:count] for one in output.models if models]
        in_all = np.asarray(by_slice)[:count].sum(axis=0, dtype=float)
        return _Found(np.asarray(own)[:count], output.shared, in_all, each)

    batches = padded(np.asarray(wanted), predictor.batch_size)
    if study.weights is None:
        found = map_in_order(labelled, batches, WORKERS)
    else:
        found = map(compared, _across(study, wanted, map_in_order(looked, batches, WORKERS)))
    yield from _kept(found, shared, sums, by_model)


class _Found(NamedTuple):
    """What is found in a batch of slices: probabilities or labels, what members share, and the confidence's sums.

    `models` is as `slices`, of each of several models where that was asked for. Of probabilities there is then nothing
    in `slices`: beside theirs the mean would be a third of all memory and time, so it is taken at last.
    """

    slices: np.ndarray
    shared: jax.Array | None
    sums: np.ndarray | None = None
    models: Sequence[np.ndarray] = ()


class _Study(NamedTuple):
    """What slices are taken from: see `predict_slices`."""

    spec: InputSpec
    images: np.ndarray
    spacing_mm: Spacing
    contiguous: bool

    @property
    def weights(self) -> np.ndarray | None:
        """Of slices by their distance in slices; None where each stands alone."""
        if not self.contiguous or self.spacing_mm is None or not self.spec.across_mm:
            return None
        found = across.weights_by_distance(self.spec.across_mm, self.spacing_mm[0])
        return found if len(found) > 1 else None


def _across(study: _Study, wanted: Sequence[int] | np.ndarray, found: Iterator[_Found]) -> Iterator[_Found]:
    """Yield what was found with probabilities averaged across slices, then slice by slice, where the study asks so."""
    weights = study.weights
    if weights is None:
        yield from found
        return
    shared: deque[jax.Array | None] = deque()

    def one_by_one() -> Iterator[list[np.ndarray]]:
        for batch in found:
            shared.append(batch.shared)
            each = batch.models or (batch.slices,)
            yield from ([own[place] for own in each] for place in range(len(each[0])))

    for each in across.smoothed(one_by_one(), wanted, weights):
        yield _found([own[None] for own in each], shared.popleft() if shared else None)


def _found(each: list[np.ndarray], shared: jax.Array | None) -> _Found:
    """Return what was found, of the probabilities of one model or the mean, or of each of several models."""
    return _Found(_NOTHING, shared, models=each) if each[1:] else _Found(each[0], shared)


def _mean(models: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of several models' probabilities."""
    total = models[0] + models[1]
    for own in models[2:]:
        total += own
    total *= np.float32(1 / len(models))
    return total


def _each(output: Output, models: bool) -> list[np.ndarray]:
    """Return the probabilities `[B, S, S, K]` of each of several models where they are asked for; or of their mean."""
    return [np.asarray(own) for own in output.models if models] or [np.asarray(output.probabilities)]


def _looked(predictor: Predictor, study: _Study, numbers: _Numbers, models: bool = False) -> _Found:
    """Return the probabilities `[n, H, W, K]` of one batch of slices, and what members share (`Output.shared`).

    With closer looks: inside a look's window the mean over the closer looks, outside the first look's. What members
    share is counted in the first look, which every slice has. `models`: of each of several models too; all look where
    their mean did.
    """
    height, width = study.images.shape[1:]
    output, count = predictor.predict(_batch(study, numbers)).checked(), len(numbers[0])
    found, shared = [], output.shared
    for seen in _each(output, models):
        found.append(host.to_source(study.spec, seen[:count], height, width, study.spacing_mm))
    if not study.spec.closer:
        return _found(found, shared)
    means = (_mean([own[place] for own in found]) if found[1:] else found[0][place] for place in range(count))
    marked = [closer.marked_box(mean.argmax(axis=-1)) for mean in means]
    looks = [np.array(own) for own in found]  # on the slices' own grid it is the device's, which is not written to
    for share in study.spec.closer:
        windows = {
            place: window
            for place, box in enumerate(marked)
            if box is not None and (window := closer.window_of(box, share, (height, width))) is not None
        }
        if not windows:
            continue
        around = (host.neighbours(study.spec, int(numbers[0][i]), len(study.images), study.contiguous) for i in windows)
        planes = [study.images[np.array(rows)] for rows in around]
        nearer_batch = closer.batch_of(study.spec, planes, list(windows.values()), predictor.batch_size)
        output = predictor.predict(nearer_batch).checked()
        for look, first, nearer in zip(looks, found, _each(output, models), strict=True):
            for (place, window), near in zip(windows.items(), nearer, strict=False):
                own, (rows, columns) = closer.put_back(study.spec, near, window, height, width)
                look[place, rows, columns] += (own - first[place, rows, columns]) / len(study.spec.closer)
    return _found(looks, shared)


def _kept(
    found: Iterator[_Found],
    shared: list[np.ndarray] | None,
    sums: list[np.ndarray] | None = None,
    by_model: list[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield what was found of each batch; the rest is added to the lists."""
    for one in found:
        if shared is not None and one.shared is not None:
            shared.append(np.asarray(one.shared, np.int64))
        if sums is not None and one.sums is not None:
            sums.append(one.sums)
        if by_model is not None and one.models:
            by_model.append(np.stack(one.models))
        yield one.slices


@jax.jit
def _labels(probabilities: Any, matrix: Any, rows: Any, columns: Any) -> tuple[jax.Array, jax.Array]:
    """Return uint8 `[B, H, W]`, of probabilities `[B, S, S, K]`, and the sums `[B, 2, K]` of each slice.

    Where a matrix is None, nothing is to be done. Pixels that the network did not see have only zeros: background.
    """
    exact = jax.lax.Precision.HIGHEST

    def of_slice(found: jax.Array) -> tuple[jax.Array, jax.Array]:
        if matrix is not None:
            found = jnp.einsum("stk,kl->stl", found, matrix, precision=exact)
        if rows is not None:
            found = jnp.einsum("hs,stk->htk", rows, found, precision=exact)
            found = jnp.einsum("wt,htk->hwk", columns, found, precision=exact)
        labels = found.argmax(axis=-1).astype(jnp.uint8)
        return labels, sums_on_device(found, labels)

    return jax.lax.map(of_slice, probabilities)  # slice by slice: on the source's grid a batch fills the caches


def _batch(study: _Study, numbers: _Numbers) -> Batch:
    """Return the batch of some slices; all batches have one shape, so that nothing compiles twice."""
    _, filled, mask = numbers
    spec, images = study.spec, study.images
    planes = np.array([host.neighbours(spec, int(z), len(images), study.contiguous) for z in filled])
    rows = np.unique(np.concatenate([filled, planes.ravel()]))
    seen = host.to_network(spec, images[rows], study.spacing_mm)
    windows = host.windows_of(spec, seen[np.searchsorted(rows, filled)])
    image = seen[np.searchsorted(rows, planes)].transpose(0, 2, 3, 1)
    return Batch(image, windows, None, None, mask, host.tissue_marks(spec, len(filled)))


def merged(probabilities: np.ndarray, merge: tuple[int, ...]) -> np.ndarray:
    """Return `[..., K]` with the probabilities of channels that count as one summed into the label they count as."""
    if merge == tuple(range(len(merge))):
        return probabilities
    return probabilities @ counts_as(np.array(merge)).astype(probabilities.dtype)
