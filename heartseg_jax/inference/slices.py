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
        found = merged(looked.slices, merge)
        labels = found.argmax(axis=-1).astype(np.uint8)
        each = [merged(own, merge).argmax(axis=-1).astype(np.uint8) for own in looked.models]
        return _Found(labels, looked.shared, sums_on_host(found, labels), each)

    def looked(numbers: _Numbers) -> _Found:
        found = _looked(predictor, study, numbers, models)
        # Of several models their mean is taken at last: kept until then it would be a third of all memory.
        return found._replace(slices=np.empty(0)) if found.models and study.weights is not None else found

    def labelled(numbers: _Numbers) -> _Found:
        if spec.closer:
            return compared(looked(numbers))
        output, count = predictor.predict(_batch(study, numbers)), len(numbers[0])
        own, by_slice = _labels(output.probabilities, matrix, rows, columns)
        each = [np.asarray(_labels(one, matrix, rows, columns)[0])[:count] for one in _of_models(output, models)]
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

    `models` is as `slices`, of each of several models where that was asked for.
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
            each = batch.models or [batch.slices]
            yield from ([own[place] for own in each] for place in range(len(each[0])))

    for each in across.smoothed(one_by_one(), wanted, weights):
        models = [own[None] for own in each]
        mean = sum(models[1:], start=models[0]) * np.float32(1 / len(models)) if models[1:] else models[0]
        yield _Found(mean, shared.popleft() if shared else None, models=models if models[1:] else ())


def _of_models(output: Output, asked: bool) -> Sequence[jax.Array]:
    """Return the probabilities `[B, S, S, K]` of each of several models, where they are asked for."""
    return list(output.models) if asked and output.models is not None else []


def _looked(predictor: Predictor, study: _Study, numbers: _Numbers, models: bool = False) -> _Found:
    """Return the probabilities `[n, H, W, K]` of one batch of slices, and what members share (`Output.shared`).

    With closer looks: inside a look's window the mean over the closer looks, outside the first look's. What members
    share is counted in the first look, which every slice has. `models`: of each of several models too; all look where
    their mean did.
    """
    height, width = study.images.shape[1:]
    output = predictor.predict(_batch(study, numbers))
    found, shared = [], output.shared
    for seen in (output.probabilities, *_of_models(output, models)):
        found.append(host.to_source(study.spec, np.asarray(seen)[: len(numbers[0])], height, width, study.spacing_mm))
    if not study.spec.closer:
        return _Found(found[0], shared, models=found[1:])
    marked = [closer.marked_box(own.argmax(axis=-1)) for own in found[0]]
    means = [np.array(own) for own in found]  # on the slices' own grid it is the device's, which is not written to
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
        output = predictor.predict(closer.batch_of(study.spec, planes, list(windows.values()), predictor.batch_size))
        each = (output.probabilities, *_of_models(output, models))
        for mean, first, nearer in zip(means, found, each, strict=True):
            for (place, window), near in zip(windows.items(), np.asarray(nearer), strict=False):
                own, (rows, columns) = closer.put_back(study.spec, near, window, height, width)
                mean[place, rows, columns] += (own - first[place, rows, columns]) / len(study.spec.closer)
    return _Found(means[0], shared, models=means[1:])


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
