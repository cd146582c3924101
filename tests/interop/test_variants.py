"""Keras models that are written in another way: taken where that changes nothing, refused by the layer's name else."""

import json
import shutil

import keras
import numpy as np
import pytest
from keras import layers

from heartseg_jax.errors import UserError
from heartseg_jax.interop import parity
from heartseg_jax.interop.encoder import load_encoder
from tests.interop.keras_models import build_unet, edit_zip, randomise
from tests.interop.test_encoder import differ, stages

SIZE = 16


def conv(filters, kind=layers.Conv2D, **options):
    return kind(filters, 3, **({"padding": "same"} | options))


def network(
    *,
    before=(),
    kind=layers.Conv2D,
    norm=layers.BatchNormalization,
    between=None,
    act=layers.ReLU,
    pool=layers.MaxPooling2D,
    bottom=lambda x: x,
    channels=3,
    options=None,
):
    """An encoder of two stages, each part of it made by the function given; weights at random."""
    x = inputs = keras.Input((SIZE, SIZE, channels))
    for layer in before:
        x = layer(x)
    for level in (0, 1):
        x = pool()(x) if level else x
        for _ in range(2):
            x = norm()(conv(4 * 2**level, kind, **(options or {}))(x))
            x = act()(between()(x) if between else x)
    model = keras.Model(inputs, bottom(x))
    randomise(model)
    return model


def same_object(layer):
    """A function that returns one and the same layer at each call."""
    return lambda: layer


EXACT = {
    "relu by name": lambda: network(act=lambda: layers.Activation("relu")),
    "relu as an object": lambda: network(act=lambda: layers.Activation(layers.ReLU())),
    "relu as an operation": lambda: network(act=lambda: keras.ops.relu),
    "leaky without a slope": lambda: network(act=lambda: layers.LeakyReLU(0.0)),
    "relu without a ceiling": lambda: network(act=lambda: layers.ReLU(max_value=None, negative_slope=0.0)),
    "one relu for all": lambda: network(act=same_object(layers.ReLU())),
    "one pooling for all": lambda: network(pool=same_object(layers.MaxPooling2D())),
    "dropout before the relu": lambda: network(between=lambda: layers.Dropout(0.2)),
    "noise first": lambda: network(before=[layers.GaussianNoise(0.1)]),
    "augmentation first": lambda: network(before=[layers.RandomFlip(), layers.RandomRotation(0.1)]),
    "no bias": lambda: network(options={"use_bias": False}),
    "no scale": lambda: network(norm=lambda: layers.BatchNormalization(scale=False)),
    "no centre": lambda: network(norm=lambda: layers.BatchNormalization(center=False)),
    "rescaling": lambda: network(before=[layers.Rescaling(1 / 255)]),
    "rescaling by one": lambda: network(before=[layers.Rescaling(1.0)]),
    **{f"{n} channels": lambda n=n: network(channels=n) for n in (1, 2, 4)},
}


@pytest.mark.parametrize("name", EXACT)
def test_what_changes_nothing_gives_what_keras_gives(name, tmp_path):
    model = EXACT[name]()
    model.save(tmp_path / "m.keras")
    channels = model.input_shape[-1]
    image = np.random.default_rng(1).random((2, SIZE, SIZE, channels), dtype=np.float32)
    theirs = np.asarray(model(image * (255 if name == "rescaling" else 1), training=False))
    ours = stages(load_encoder(tmp_path / "m.keras", channels=channels), image)[-1]
    assert differ(ours, theirs) < 1e-5
    assert parity.verify(tmp_path / "m.keras", channels=channels).worst.difference < 1e-5


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_grey_slice_gives_the_same_whatever_the_channels_of_the_file(channels, tmp_path):
    model = network(channels=channels)
    model.save(tmp_path / "m.keras")
    grey = np.random.default_rng(1).random((2, SIZE, SIZE, 1), dtype=np.float32)
    theirs = np.asarray(model(np.repeat(grey, channels, axis=-1), training=False))
    ours = stages(load_encoder(tmp_path / "m.keras"), np.repeat(grey, 3, axis=-1))[-1]
    assert differ(ours, theirs) < 1e-5


def test_a_whole_unet_without_biases_converts_with_its_decoder(tmp_path, monkeypatch):
    for kind in ("Conv2D", "Conv2DTranspose"):
        made = getattr(layers, kind)
        monkeypatch.setattr(layers, kind, lambda *a, made=made, **k: made(*a, **(k | {"use_bias": False})))
    build_unet(4, 2, size=SIZE).save(tmp_path / "m.keras")
    found = parity.verify(tmp_path / "m.keras")
    assert not found.why
    assert found.worst.difference < 1e-5


def shared_in_the_middle():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(layers.BatchNormalization()(conv(4)(x)))
    shared, norm = conv(4, name="twice"), layers.BatchNormalization()
    x = layers.ReLU()(norm(shared(layers.ReLU()(norm(shared(x))))))
    x = layers.MaxPooling2D()(x)
    for _ in range(2):
        x = layers.ReLU()(layers.BatchNormalization()(conv(8)(x)))
    return keras.Model(inputs, x)


def recurrent_bottom(x):
    shared, norm = conv(8, name="again"), layers.BatchNormalization()
    y = layers.ReLU()(norm(shared(x)))
    return layers.ReLU()(norm(shared(layers.Add()([x, y]))))


def joined(kind):
    """A third convolution at the bottom whose output is joined with its input, and a way up behind."""

    def bottom(x):
        y = layers.ReLU()(layers.BatchNormalization()(conv(8)(x)))
        return layers.Conv2DTranspose(4, 2, strides=2)(kind(name="joint")([x, y]))

    return bottom


def residual_pair():
    """An identity residual around the bottom's pair: the way ends in a merge after exactly two convolutions."""
    x = inputs = keras.Input((SIZE, SIZE, 8))
    for level in (0, 1):
        x = start = layers.MaxPooling2D()(x) if level else x
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(conv(8)(x)))
        x = layers.Add(name="joint")([start, x]) if level else x
    return keras.Model(inputs, layers.Conv2DTranspose(4, 2, strides=2)(x))


def time_distributed():
    x = inputs = keras.Input((2, SIZE, SIZE, 3))
    return keras.Model(inputs, layers.TimeDistributed(conv(4), name="over_time")(x))


def nested():
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), conv(4)], name="inner")
    x = inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, layers.MaxPooling2D()(inner(x)))


def point_convolution():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for level in (0, 1, 2):
        x = layers.MaxPooling2D()(x) if level else x
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(conv(4 * 2**level)(x)))
        x = layers.Conv2D(8, 1, name="point")(x) if level == 1 else x
    return keras.Model(inputs, x)


REFUSED = {
    "a shared layer in the middle": (shared_in_the_middle, "twice"),
    "a recurrent bottom": (lambda: network(bottom=recurrent_bottom), "again"),
    "a residual bottom": (lambda: network(bottom=joined(layers.Add)), "joint"),
    "a dense bottom": (lambda: network(bottom=joined(layers.Concatenate)), "joint"),
    "a gated bottom": (lambda: network(bottom=joined(layers.Multiply)), "joint"),
    "a residual pair": (residual_pair, "joint"),
    "PReLU": (lambda: network(act=lambda: layers.PReLU(name=None)), "PReLU"),
    "leaky": (lambda: network(act=lambda: layers.LeakyReLU(0.1)), "negative_slope=0.1"),
    "leaky by default": (lambda: network(act=layers.LeakyReLU), "LeakyReLU"),
    "relu6": (lambda: network(act=lambda: layers.ReLU(max_value=6)), "max_value=6"),
    "relu of ceiling 0": (lambda: network(act=lambda: layers.ReLU(max_value=0)), "max_value=0"),
    "relu with a threshold": (lambda: network(act=lambda: layers.Activation(layers.ReLU(threshold=0.5))), "threshold"),
    "relu6 by name": (lambda: network(act=lambda: layers.Activation("relu6")), "relu6"),
    "no activation": (lambda: network(act=same_object(layers.Identity())), "Identity"),
    "separable": (lambda: network(kind=layers.SeparableConv2D), "SeparableConv2D"),
    "dilation": (lambda: network(options={"dilation_rate": 2}), "dilation_rate"),
    "strides": (lambda: network(options={"strides": 2}), "strides"),
    "groups": (lambda: network(channels=4, options={"groups": 2}), "groups"),
    "average pooling": (lambda: network(pool=lambda: layers.AveragePooling2D(2)), "AveragePooling2D"),
    "pooling by three": (lambda: network(pool=lambda: layers.MaxPooling2D(3, 2, "same")), "pool_size"),
    "group norm": (lambda: network(norm=lambda: layers.GroupNormalization(2)), "GroupNormalization"),
    "epsilon": (lambda: network(norm=lambda: layers.BatchNormalization(epsilon=1e-5)), "epsilon"),
    "a shifting rescaling": (lambda: network(before=[layers.Rescaling(1 / 127.5, -1, name="first")]), "first"),
    "another rescaling": (lambda: network(before=[layers.Rescaling(0.5, name="first")]), "first"),
    "normalization": (lambda: network(before=[layers.Normalization(mean=0.5, variance=0.1, name="first")]), "first"),
    "norm first": (lambda: network(before=[layers.BatchNormalization(name="first")]), "first"),
    "padding first": (lambda: network(before=[layers.ZeroPadding2D(name="first")]), "first"),
    "a model in the model": (nested, "inner"),
    "over time": (time_distributed, "over_time"),
    "a point convolution on the way": (point_convolution, "point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_computes_something_else_is_refused_by_name(name, tmp_path):
    make, word = REFUSED[name]
    make().save(tmp_path / "m.keras")
    with pytest.raises(UserError, match=word):
        load_encoder(tmp_path / "m.keras")


def of_another_package(config):
    next(x for x in config["config"]["layers"] if x["class_name"] == "Conv2D")["registered_name"] = "mine>Conv2D"


def channels_first(config):
    for layer in config["config"]["layers"]:
        if "data_format" in layer["config"]:
            layer["config"]["data_format"] = "channels_first"


@pytest.mark.parametrize(("change", "word"), [(of_another_package, "mine>Conv2D"), (channels_first, "channels-first")])
def test_what_only_the_config_shows_is_refused(saved, tmp_path, change, word):
    with pytest.raises(UserError, match=word):
        load_encoder(edit_zip(saved[4].files["keras"], tmp_path / "m.keras", change))


WEIGHTS_THAT_TELL = {
    "p_re_lu": lambda: network(act=layers.PReLU),
    "leaky_re_lu": lambda: network(act=lambda: layers.LeakyReLU(0.1)),
    "rescaling": lambda: network(before=[layers.Rescaling(1 / 127.5)]),
    "group_normalization": lambda: network(norm=lambda: layers.GroupNormalization(2)),
    "average_pooling2d": lambda: network(pool=lambda: layers.AveragePooling2D(2)),
    "separable_conv2d": lambda: network(kind=layers.SeparableConv2D),
    "add": lambda: network(bottom=joined(layers.Add)),
    "functional": lambda: keras.Sequential([keras.Input((SIZE, SIZE, 3)), network()]),
}


@pytest.mark.parametrize("name", WEIGHTS_THAT_TELL)
def test_names_in_a_file_of_weights_are_evidence(name, tmp_path):
    WEIGHTS_THAT_TELL[name]().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(UserError, match=f"'{name}'"):
        load_encoder(tmp_path / "m.weights.h5")


def test_weights_without_biases_are_taken(tmp_path):
    model = network(options={"use_bias": False})
    model.save_weights(tmp_path / "m.weights.h5")
    image = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    ours = stages(load_encoder(tmp_path / "m.weights.h5"), image)[-1]
    assert differ(ours, np.asarray(model(image, training=False))) < 1e-5


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A U-Net's weights in several shards, and in one file."""
    folder = tmp_path_factory.mktemp("sharded")
    model = build_unet(4, 3)
    model.save_weights(folder / "m.weights.json", max_shard_size=1e-5)
    model.save_weights(folder / "whole.weights.h5")
    shards = sorted(folder.glob("m_*.weights.h5"))
    assert len(shards) > 2
    return folder, shards


def test_shards_are_read_through_their_index(sharded, image):
    folder, _ = sharded
    ours, whole = (load_encoder(folder / name) for name in ("m.weights.json", "whole.weights.h5"))
    assert ours.levels == 3
    assert all(np.array_equal(a, b) for a, b in zip(stages(ours, image), stages(whole, image), strict=True))


def test_one_shard_is_recognised_by_its_name_and_by_its_content(sharded, tmp_path):
    for shard in sharded[1]:
        with pytest.raises(UserError, match=r"m\.weights\.json"):
            load_encoder(shard)
        renamed = shutil.copy(shard, tmp_path / "renamed.weights.h5")
        with pytest.raises(UserError, match=r"renamed\.weights\.h5"):
            load_encoder(renamed)


def test_a_layer_divided_between_shards_and_without_biases_is_read_whole(tmp_path):
    model = network(options={"use_bias": False})
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=2400 / 2**30)
    index = json.loads((tmp_path / "m.weights.json").read_text())
    assert any(isinstance(names, list) and len(names) > 1 for names in index["weight_map"].values())
    image = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    ours = stages(load_encoder(tmp_path / "m.weights.json"), image)[-1]
    assert differ(ours, np.asarray(model(image, training=False))) < 1e-5


def test_a_damaged_shard_is_named(sharded, tmp_path):
    folder, shards = sharded
    shutil.copytree(folder, tmp_path / "copy")
    shard = tmp_path / "copy" / shards[1].name
    shard.write_bytes(shard.read_bytes()[:-3000])
    with pytest.raises(UserError, match=shards[1].name):
        load_encoder(tmp_path / "copy" / "m.weights.json")


def test_a_norm_whose_missing_variable_only_the_graph_shows_is_refused(tmp_path):
    network(norm=lambda: layers.BatchNormalization(scale=False)).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(UserError, match="without scale or center"):
        load_encoder(tmp_path / "m.weights.h5")


@pytest.mark.parametrize(
    ("weight_map", "word"),
    [
        ({"/layers/conv2d/vars": ["gone.weights.h5"]}, "gone"),
        ({"/layers/conv2d/vars": ["../up.weights.h5"]}, "index"),
        ({"/layers/conv2d/vars": 3}, "index"),
        ({}, "index"),
        ([], "index"),
    ],
)
def test_an_index_without_its_shards_is_refused(tmp_path, weight_map, word):
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=word):
        load_encoder(path)


@pytest.mark.parametrize("form", ["keras", "h5", "weights.h5"])
@pytest.mark.parametrize("policy", ["bfloat16", "float16", "mixed_bfloat16"])
def test_half_precision_is_read_as_the_numbers_it_holds(tmp_path, policy, form):
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model = network()
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    path = tmp_path / f"m.{form}"
    model.save_weights(path) if form == "weights.h5" else model.save(path)
    if form == "keras":
        assert parity.verify(path).worst.difference < 1e-5
    kernel = np.asarray(keras.ops.cast(model.layers[1].kernel, "float32"))
    assert len(np.unique(kernel)) > 50
    assert np.array_equal(load_encoder(path).params["stage1"]["conv1"]["kernel"], kernel)
