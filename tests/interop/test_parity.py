"""Parity with Keras, block by block; and that a network which differs is not passed."""

import builtins

import keras
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.interop import parity
from tests.interop.keras_models import build_unet, edit_zip, of_kind


@pytest.mark.parametrize(("width", "form"), [(4, "keras"), (8, "h5"), (16, "keras")])
def test_every_block_and_the_output_equal_keras(saved, width, form):
    found = parity.verify(saved[width].files[form])
    levels = {4: 3, 8: 2, 16: 2}[width]
    assert not found.why
    assert len(found.rows) == 2 * levels + 3 * (levels - 1) + 1
    assert [row.flax for row in found.rows][-3:] == [
        "decoder/stage1/block/conv1",
        "decoder/stage1/block/conv2",
        "output",
    ]
    assert all(row.peak > 0.01 and row.shape[0] == 1 for row in found.rows)
    assert found.worst.difference < 5e-6
    parity.check(found)
    shown = parity.table(found).splitlines()
    assert len(shown) == 2 + len(found.rows)
    assert parity.summary(found)["worst"] == found.worst.difference


def test_another_number_of_channels_is_verified_on_grey_images(saved):
    found = parity.verify(saved[8].files["keras"], channels=1)
    assert not found.why
    assert found.worst.difference < 5e-6


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"decoder": False}, "not with a transposed convolution"),
        ({"skip_first": True}, "joins [skip, upsampled], this project's decoder [upsampled, skip]"),
    ],
)
def test_the_encoder_alone_is_verified_where_the_decoder_is_another(options, why, tmp_path):
    path = tmp_path / "net.keras"
    build_unet(4, 2, **options).save(path)
    found = parity.verify(path)
    assert found.why
    assert why in found.why
    assert [row.flax for row in found.rows] == [f"encoder/stage{k}/conv{i}" for k in (1, 2) for i in (1, 2)]
    assert found.worst.difference < 5e-6


def test_open_sizes_are_given_one(tmp_path):
    path = tmp_path / "net.keras"
    build_unet(4, 2, size=None).save(path)
    assert parity.verify(path).rows[0].shape == (1, parity.FREE_SIZE, parity.FREE_SIZE, 4)


def test_a_difference_is_found_and_named(saved, monkeypatch):
    """The ReLU of our side is left out: the first block differs."""
    monkeypatch.setattr(parity.nn, "relu", lambda x: x)
    found = parity.verify(saved[4].files["keras"])
    assert found.worst.difference > 0.1
    with pytest.raises(UserError, match=r"not verified: encoder/stage1/conv1 differs from Keras's 'activation"):
        parity.check(found)


def test_differences_by_hand():
    theirs = np.array([4.0, -8.0])
    assert parity._differ(np.array([4.0, -6.0]), theirs) == (8.0, 0.25)
    assert parity._differ(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
    assert parity._differ(np.ones(2), np.zeros(2)) == (0.0, float("inf"))
    assert parity._differ(np.array([np.nan, 1.0]), theirs)[1] == float("inf")
    assert parity._differ(np.array([4.0, -6.0]), theirs, 16.0) == (8.0, 0.125)
    assert parity._differ(np.zeros(3), theirs)[1] == float("inf")


def test_a_sigmoid_behind_large_logits_is_no_difference(tmp_path):
    """Rounding of logits in the thousands moves a sigmoid near 0.5 by more than 1e-4 of its own peak."""
    model = build_unet(4, 3, size=128)
    head = of_kind(model, "Conv2D")[-1]
    head.kernel.assign(head.kernel * 2e3)
    features = keras.Model(model.inputs, head.input)(np.random.default_rng(0).random((1, 128, 128, 3), np.float32))
    head.bias.assign(-np.median(np.asarray(features) @ np.asarray(head.kernel)[0, 0], axis=(0, 1, 2)))
    model.save(tmp_path / "net.keras")
    found = parity.verify(tmp_path / "net.keras")
    assert not found.why
    parity.check(found)


def test_weights_alone_cannot_be_verified(saved):
    with pytest.raises(UserError, match="has only weights"):
        parity.verify(saved[4].files["weights.h5"])


def test_an_image_that_our_network_would_refuse(tmp_path):
    path = tmp_path / "net.keras"
    build_unet(4, 2, size=31, decoder=False).save(path)
    with pytest.raises(UserError, match="takes images of 31x31, not divisible by 2"):
        parity.verify(path)


def test_without_keras_the_mend_is_named(saved, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "keras":
            raise ImportError("No module named 'keras'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install keras"):
        parity.verify(saved[4].files["keras"])


def test_what_keras_itself_cannot_load_is_one_line(saved, tmp_path):
    def change(config):
        config["config"]["layers"][1]["config"]["unheard_of"] = 1

    path = edit_zip(saved[4].files["keras"], tmp_path / "odd.keras", change)
    with pytest.raises(UserError, match=f"cannot be loaded by Keras {keras.__version__} itself") as caught:
        parity.verify(path)
    assert "\n" not in str(caught.value)


def test_a_name_that_does_not_fit_the_content_is_no_hindrance(saved, tmp_path):
    path = tmp_path / "net.hdf5"
    path.write_bytes(saved[8].files["h5"].read_bytes())
    assert not parity.verify(path).why
