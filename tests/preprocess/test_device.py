"""From a stored batch to what the network receives."""

import jax
import numpy as np

from heartseg_jax.preprocess import synthesis
from heartseg_jax.preprocess.augment_settings import PRESETS, AugmentSettings
from heartseg_jax.preprocess.device import augmented, network_input, prepared
from heartseg_jax.preprocess.host import Batch


def batch(planes, windows):
    """One row of five pixels at -300, -200, 200, 600 and 900 HU, plus 100 in each further plane."""
    row = np.array([-300, -200, 200, 600, 900], np.int16)
    image = np.stack([row + 100 * plane for plane in range(planes)], axis=-1).reshape(1, 1, 5, planes)
    label = np.arange(5, dtype=np.uint8).reshape(1, 1, 5)
    merge = np.arange(9, dtype=np.int32)[None]
    return Batch(image, np.array([windows], np.float32), label, merge, np.ones(1, np.float32))


def test_one_plane_is_shown_through_every_channels_window():
    image = np.asarray(network_input(batch(1, [(-200, 600), (200, 600)])))
    np.testing.assert_allclose(image[0, 0], [[0, 0], [0, 0], [0.5, 0], [1, 1], [1, 1]])


def test_planes_and_windows_go_together():
    image = np.asarray(network_input(batch(2, [(-200, 600), (0, 1000)])))
    np.testing.assert_allclose(image[0, 0, :, 0], [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(image[0, 0, :, 1], [0, 0, 0.3, 0.7, 1], rtol=1e-6)


def test_what_is_prepared_has_no_window_and_int32_labels():
    stored = batch(1, [(-200, 600)])
    for seen in (prepared(stored), augmented(stored, jax.random.key(0), PRESETS["none"])):
        assert seen.window is None
        assert (seen.image.dtype, seen.label.dtype) == (np.float32, np.int32)
        assert np.array_equal(seen.label, stored.label)


def test_the_label_moves_with_the_image():
    stored = batch(1, [(-200, 600)])
    seen = augmented(stored, jax.random.key(3), PRESETS["as_original"])
    flipped = bool(np.asarray(seen.label)[0, 0, 0] == 4)
    assert flipped == (np.asarray(seen.image)[0, 0, 0, 0] > 0.5)
    assert seen.label.shape == stored.label.shape


def test_only_images_of_tissue_codes_are_synthesised(monkeypatch):
    """A stand-in for the synthesis: a tenth of the code."""
    monkeypatch.setattr(synthesis, "synthesise", lambda key, tissue, *chances: tissue / 10)
    one = batch(1, [(-200, 600)] * 3)
    codes = one._replace(image=np.array([0, 1, 2, 3, 10], np.int16).reshape(1, 1, 5, 1))
    both = Batch(*(np.concatenate(pair) for pair in zip(one[:5], codes[:5], strict=True)), np.array([False, True]))
    image = np.asarray(network_input(both))
    np.testing.assert_array_equal(image[:1], network_input(one))
    np.testing.assert_allclose(image[1, 0, :, 0], [0, 0.1, 0.2, 0.3, 1])
    assert image.shape == (2, 1, 5, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert prepared(both).label.shape == (2, 1, 5)


def test_a_step_draws_its_images_by_its_key_and_a_score_always_the_same(monkeypatch):
    monkeypatch.setattr(synthesis, "synthesise", lambda key, tissue, *chances: jax.random.uniform(key, tissue.shape))
    codes = batch(1, [(-200, 600)])._replace(tissue=np.array([True]))
    first, second = (augmented(codes, jax.random.key(n), PRESETS["none"]).image for n in (0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(prepared(codes).image, network_input(codes))


def test_the_augmentation_says_how_often_blood_is_not_of_one_brightness(monkeypatch):
    given = []
    monkeypatch.setattr(synthesis, "synthesise", lambda key, tissue, *chances: given.append(chances) or tissue / 10)
    codes = batch(1, [(-200, 600)])._replace(tissue=np.array([True]))
    settings = AugmentSettings(unmixed_probability=0.4, dissection_probability=0.2)
    augmented(codes, jax.random.key(0), settings)
    prepared(codes)  # what is scored is drawn as it always was
    assert given == [(0.4, 0.2), (0.0, 0.0)]
