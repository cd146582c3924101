"""Labels of an unlabelled volume, on its own grid."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.intake import of_volume
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.identity import ModelIdentity
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.inference.study import predict_volume
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.training.steps import init_params
from tests.preprocess.specs import spec

MODEL = UNet(width=4, levels=2, num_classes=9, norm="batch")
CONTRACT = Contract(spec("-1,0,1", size=16, mm_per_pixel=14.0), "heart", "/data/ds", "abc", 5)


@pytest.fixture(scope="module")
def volume():
    """A phantom of 6 axial slices of 24 x 20 pixels; every axis has a spacing of its own."""
    return generate(0, 0, PhantomSpec((6, 24, 20), (22.0, 10.0, 12.0))).volume


@pytest.fixture(scope="module")
def predictor():
    """A network of random weights: what it says depends on which way up its image is."""
    weights = init_params(MODEL, jax.random.key(0), 16)
    return make_predictor(MODEL, [weights], 4, (ModelIdentity("runs/a", 10),))


@pytest.fixture(scope="module")
def expected(volume, predictor):
    return predict_volume(predictor, of_volume(volume), CONTRACT, keep_probabilities=True)


def reordered(volume, axes, flips):
    """The same patient with voxel axes exchanged, some of them running the other way."""
    direction, origin = volume.direction[:, axes].copy(), np.array(volume.origin_mm)
    voxels, spacing = volume.voxels.transpose(axes), [volume.spacing_mm[axis] for axis in axes]
    for k, is_flipped in enumerate(flips):
        if is_flipped:
            voxels = np.flip(voxels, k)
            origin += (voxels.shape[k] - 1) * spacing[k] * direction[:, k]
            direction[:, k] *= -1
    return Volume(voxels, tuple(spacing), tuple(origin), direction)


def test_labels_lie_on_the_source_grid(volume, expected):
    assert (expected.labels.shape, expected.labels.dtype) == (volume.voxels.shape, np.uint8)
    assert len(np.unique(expected.labels)) > 2
    assert np.array_equal(expected.volume.voxels, volume.voxels)
    assert expected.models == (ModelIdentity("runs/a", 10),)
    np.testing.assert_allclose(expected.probabilities.sum(axis=-1, dtype=np.float32), 1, atol=0.01)
    best = np.take_along_axis(expected.probabilities, expected.labels[..., None], axis=-1)[..., 0]
    assert np.all(best >= expected.probabilities.max(axis=-1) - 1e-3)
    present = np.unique(expected.labels[expected.labels > 0])
    own = [best[expected.labels == k].mean(dtype=np.float64) for k in present]
    np.testing.assert_allclose(expected.confidence[present], own, atol=1e-3)
    assert np.isnan(np.delete(expected.confidence, present)).all()


def test_labels_are_the_most_probable_structure_whether_probabilities_are_kept_or_not(volume, predictor, expected):
    found = predict_volume(predictor, of_volume(volume), CONTRACT)
    sure = np.diff(np.sort(expected.probabilities, axis=-1)[..., -2:], axis=-1)[..., 0] > 0.002
    assert sure.mean() > 0.5  # a random network is seldom sure
    assert np.array_equal(found.labels[sure], expected.labels[sure])
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-4)


def test_a_patient_gets_the_same_labels_in_every_order_of_axes(volume, predictor, expected):
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((0, 1), repeat=3)):
        found = predict_volume(predictor, of_volume(reordered(volume, axes, flips)), CONTRACT)
        same = np.flip(expected.labels.transpose(axes), [k for k in range(3) if flips[k]])
        assert np.array_equal(found.labels, same), (axes, flips)


def test_an_oblique_volume_is_predicted_along_its_own_axes_with_a_warning(volume, predictor, expected):
    angle = np.radians(20)
    turned = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    oblique = dataclasses.replace(volume, direction=turned @ volume.direction)
    found = predict_volume(predictor, of_volume(oblique), CONTRACT)
    assert np.array_equal(found.labels, expected.labels)
    assert "oblique" in {finding.check for finding in found.findings} - {f.check for f in expected.findings}


def test_several_models_give_the_labels_of_their_mean(volume, predictor, expected):
    members = [init_params(MODEL, jax.random.key(seed), 16) for seed in (0, 1)]
    other = predict_volume(make_predictor(MODEL, members[1:], 4), of_volume(volume), CONTRACT, keep_probabilities=True)
    found = predict_volume(make_predictor(MODEL, members, 4), of_volume(volume), CONTRACT, keep_probabilities=True)
    mean = (expected.probabilities.astype(np.float32) + other.probabilities) / 2
    np.testing.assert_allclose(found.probabilities, mean, atol=2e-3)
    sure = np.diff(np.sort(mean, axis=-1)[..., -2:], axis=-1)[..., 0] > 0.005
    assert sure.mean() > 0.5
    assert np.array_equal(found.labels[sure], mean.argmax(axis=-1)[sure])


@pytest.mark.parametrize("closer", [(), (0.6, 0.9)])
def test_the_labels_of_each_model_are_kept(volume, predictor, expected, closer):
    contract = dataclasses.replace(CONTRACT, input=dataclasses.replace(CONTRACT.input, closer=closer))
    members = [init_params(MODEL, jax.random.key(seed), 16) for seed in (0, 1)]
    given = reordered(volume, (1, 0, 2), (1, 0, 1))
    twice = predict_volume(make_predictor(MODEL, [members[0]] * 2, 4), of_volume(given), contract)
    assert (twice.by_model.shape, twice.by_model.dtype) == ((2, *given.voxels.shape), np.uint8)
    assert np.array_equal(twice.by_model, [twice.labels] * 2)
    both = predict_volume(make_predictor(MODEL, members, 4), of_volume(volume), contract)
    alone = [predict_volume(make_predictor(MODEL, [one], 4), of_volume(volume), contract) for one in members]
    assert [one.by_model for one in alone] == [None, None]
    if not closer:  # else all look closer where their mean found something
        for own, by_itself in zip(both.by_model, alone, strict=True):
            assert (own == by_itself.labels).mean() > 0.999
    assert (both.by_model[0] != both.by_model[1]).mean() > 0.1


def test_only_the_heart_s_valves_need_each_model_s_labels(volume):
    members = [init_params(MODEL, jax.random.key(seed), 16) for seed in (0, 1)]
    predictor = make_predictor(MODEL, members, 4)
    assert predict_volume(predictor, of_volume(volume), dataclasses.replace(CONTRACT, task="tumour")).by_model is None
    assert predict_volume(predictor, of_volume(volume), CONTRACT, keep_probabilities=True).by_model is None


def test_the_unit_of_the_values_must_be_the_trained_one_or_percentiles(volume, predictor):
    pictures = dataclasses.replace(volume, voxels=np.clip(volume.voxels / 8 + 128, 0, 255).astype(np.uint8))
    with pytest.raises(UserError, match="uint8"):
        predict_volume(predictor, of_volume(pictures), CONTRACT)
    by_percentiles = dataclasses.replace(CONTRACT, input=spec("-1,0,1", window=None, size=16))
    assert "intensity" in {f.check for f in predict_volume(predictor, of_volume(pictures), by_percentiles).findings}
    with pytest.raises(UserError, match="HU"):
        predict_volume(predictor, of_volume(dataclasses.replace(volume, voxels=volume.voxels + 5000)), CONTRACT)


def test_channels_without_a_structure_are_background(volume, predictor, expected):
    """The tumour's networks have nine channels for two structures."""
    tumour = dataclasses.replace(CONTRACT, task="tumour")
    found = predict_volume(predictor, of_volume(volume), tumour, keep_probabilities=True)
    assert set(np.unique(found.labels)) <= {0, 1}
    others = [k for k in range(9) if k != 1]
    background = expected.probabilities[..., others].sum(axis=-1, dtype=np.float32)
    np.testing.assert_allclose(found.probabilities[..., 0], background, atol=5e-3)
    assert not found.probabilities[..., 2:].any()


def test_unknown_spacing_is_a_warning_where_the_model_sees_millimetres(volume, predictor, expected):
    unknown = predict_volume(predictor, dataclasses.replace(of_volume(volume), spacing_known=False), CONTRACT)
    assert {f.check for f in unknown.findings} - {f.check for f in expected.findings} == {"spacing"}
    assert not np.array_equal(unknown.labels, expected.labels)
