"""The walk through a Keras config: what is understood, and what is refused by name."""

import json

import keras
import pytest
from keras import layers

from heartseg_jax.errors import UserError
from heartseg_jax.interop import graph
from tests.interop.keras_models import as_keras_2, of_kind


def config_of(model):
    return json.loads(model.to_json())


def follow(model):
    return graph.follow(graph.layers(config_of(model)))


def chain(*steps, size=16, channels=3):
    """A model that applies layers one after the other."""
    x = inputs = keras.Input((size, size, channels))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def conv(filters=2, **options):
    return layers.Conv2D(filters, 3, **({"padding": "same", "kernel_initializer": "zeros"} | options))


def pair(**options):
    return [layer for _ in range(2) for layer in (conv(**options), layers.BatchNormalization(), layers.ReLU())]


def test_the_way_down_in_the_models_own_names(saved):
    path = follow(saved[4].model)
    convolutions = [layer.name for layer in of_kind(saved[4].model, "Conv2D")]
    assert [block.conv.name for stage in path.stages for block in stage] == convolutions[:6]
    assert path.stopped_at.name == of_kind(saved[4].model, "Conv2DTranspose")[0].name


def test_keras_2_and_keras_3_name_the_same_inputs(saved):
    old, new = config_of(saved[4].model), graph.layers(config_of(saved[4].model))
    as_keras_2(old)
    assert {name: layer.inputs for name, layer in graph.layers(old).items()} == {
        name: layer.inputs for name, layer in new.items()
    }
    joined = next(layer for layer in new.values() if layer.kind == "Concatenate")
    assert [new[name].kind for name in joined.inputs] == ["Conv2DTranspose", "Activation"]


def test_a_sequential_model_is_a_chain():
    model = keras.Sequential([keras.Input((16, 16, 3)), *pair(), layers.MaxPooling2D(), *pair()])
    path = follow(model)
    assert len(path.stages) == 2
    assert path.stopped_at is None


def test_layers_idle_at_inference_are_passed_and_noted():
    model = chain(*pair(), layers.Dropout(0.3, name="rest"), layers.MaxPooling2D(), *pair())
    assert follow(model).notes == ("rest (Dropout) does nothing at inference and was left out",)


def two_inputs():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([a, b], layers.Concatenate()([a, b]))


def fork():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(conv()(x))
    return keras.Model(inputs, [layers.ReLU(name="one")(x), layers.ReLU(name="two")(x)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "2 inputs"),
        (fork, "into one and two"),
        (lambda: chain(*pair(padding="valid")), "padding=valid"),
        (lambda: chain(layers.Conv2D(2, 5, padding="same")), "kernel_size="),
        (lambda: chain(conv(), layers.ReLU()), "BatchNormalization"),
        (lambda: chain(conv(activation="relu"), layers.BatchNormalization()), "applies relu before its"),
        (lambda: chain(conv(), layers.BatchNormalization(axis=1)), "normalises axis 1: a channels-first model"),
        (lambda: chain(conv(), layers.BatchNormalization(), layers.Activation("tanh")), "tanh"),
        (lambda: chain(*pair(), *pair()), "no convolutions with max pooling between them"),
        (lambda: chain(layers.Dropout(0.1)), "no convolution"),
    ],
)
def test_what_would_compute_something_else_is_refused(make, message):
    model = make()
    with pytest.raises(UserError) as caught:
        follow(model)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_name": "Mine", "config": {}}, "the model 'Mine' lists no layers"),
        ({"class_name": "Functional", "config": {"layers": [3]}}, "a layer that cannot be understood"),
        (
            {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": {"name": "f"}}]},
            "'f' is a Lambda",
        ),
        (
            {
                "class_name": "Functional",
                "config": {"layers": [{"class_name": "core>Lambda", "config": {"name": "f"}}]},
            },
            "'f' is a Lambda",
        ),
    ],
)
def test_a_config_that_is_none(config, message):
    with pytest.raises(UserError) as caught:
        graph.layers(config)
    assert message in str(caught.value)
