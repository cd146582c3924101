"""A whole Keras U-Net in this project's network, against Keras's own output; and decoders of another kind."""

import jax
import keras
import numpy as np
import pytest
from keras import layers

from heartseg_jax.errors import UserError
from heartseg_jax.interop.keras_file import read
from heartseg_jax.interop.unet_file import unet_from_file
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import UNet
from tests.interop.keras_models import build_unet, edit_zip, of_kind


def unet_of(path):
    return unet_from_file(read(path))


def run(unet, image):
    """This project's network, with the Keras model's own last activation behind it."""
    with jax.default_matmul_precision("highest"):
        logits = unet.model.apply(unet.variables, image, train=False)
    return {"sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax}[unet.activation](logits)


@pytest.mark.parametrize(
    ("width", "norm", "classes", "activation"),
    [(4, "batch", 1, "sigmoid"), (8, "encoder", 9, "softmax"), (16, "batch", 3, "softmax")],
)
@pytest.mark.parametrize("form", ["keras", "h5"])
def test_the_output_equals_keras(saved, image, width, norm, classes, activation, form):
    unet = unet_of(saved[width].files[form])
    assert unet.model == UNet(width, {4: 3, 8: 2, 16: 2}[width], classes, norm=norm)
    assert unet.activation == activation
    expected = np.asarray(saved[width].model(image, training=False))
    assert np.abs(np.asarray(run(unet, image)) - expected).max() < 2e-6


def test_the_tree_is_the_networks_own(saved, image):
    unet = unet_of(saved[4].files["keras"])
    shapes = jax.eval_shape(lambda key: unet.model.init(key, image, train=False), jax.random.key(0))
    for kind, tree in unet.variables.items():
        wanted = {
            "/".join(str(part.key) for part in path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(shapes[kind])
        }
        assert {path: array.shape for path, array in named_leaves(tree).items()} == wanted
    assert sum(array.size for array in named_leaves(unet.variables).values()) == (saved[4].model.count_params())
    kernel = of_kind(saved[4].model, "Conv2DTranspose")[0].kernel
    assert np.array_equal(unet.variables["params"]["decoder"]["stage2"]["up"]["kernel"], np.asarray(kernel.value))


def test_the_trained_brain_model_gives_the_output_keras_gave(shared):
    with np.load(shared / "weights" / "brain_unet16_activations.npz") as stored:
        image, expected = np.repeat(stored["input"][:1, ..., None], 3, axis=-1), stored["output"][:1]
    unet = unet_of(shared / "weights" / "brain_unet16.keras")
    assert unet.model == UNet(16, 5, 1, norm="batch")
    assert np.abs(np.asarray(run(unet, image)) - expected).max() / expected.max() < 2e-5


def test_dropout_between_the_convolutions_is_idle(tmp_path, image):
    model = build_unet(4, 2, between=lambda level: layers.Dropout(0.3))
    model.save(tmp_path / "net.keras")
    expected = np.asarray(model(image, training=False))
    assert np.abs(np.asarray(run(unet_of(tmp_path / "net.keras"), image)) - expected).max() < 2e-6


def upsampled(path):
    bottom = build_unet(2, 2, size=16, decoder=False)
    low = layers.UpSampling2D(name="grow")(bottom.output)
    joined = layers.Concatenate()([low, of_kind(bottom, "Activation")[1].output])
    keras.Model(bottom.inputs, layers.Conv2D(1, 1)(joined)).save(path)


def changed(kind, **settings):
    """A maker of a U-Net whose first layer of a kind has other settings in its config."""

    def make(path):
        source = path.with_name("source.keras")
        build_unet(4, 2).save(source)

        def change(config):
            layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind)
            layer["config"].update(settings)

        edit_zip(source, path, change)

    return make


def save(**options):
    return lambda path: build_unet(4, 2, **options).save(path)


def behind_the_head(path):
    model = build_unet(4, 2)
    keras.Model(model.inputs, layers.MaxPooling2D(name="shrink")(model.output)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (save(skip_first=True), "joins [skip, upsampled], this project's decoder [upsampled, skip]"),
        (save(decoder=False), "not with a transposed convolution"),
        (upsampled, "begins with layer 'grow' (UpSampling2D)"),
        (save(between=lambda level: layers.LayerNormalization(name="other")), "layer 'other' (LayerNormalization)"),
        (changed("Conv2DTranspose", strides=[1, 1]), "strides=[1, 1], this project's has 2"),
        (changed("Conv2DTranspose", activation="relu"), "activation=relu, this project's has linear"),
        (changed("Concatenate", axis=1), "joins along axis 1, not along the channels"),
        (behind_the_head, "layer 'shrink' (MaxPooling2D) follows the head"),
    ],
)
def test_another_decoder_is_refused_by_name(make, message, tmp_path):
    path = tmp_path / "net.keras"
    make(path)
    with pytest.raises(UserError) as caught:
        unet_of(path)
    assert message in str(caught.value)


def test_weights_alone_have_no_decoder_to_be_known(saved):
    with pytest.raises(UserError, match="the file has only weights, no graph"):
        unet_of(saved[4].files["weights.h5"])
