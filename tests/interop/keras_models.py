"""Builders of Keras models of the brain model's layout. Import it after KERAS_BACKEND is set (conftest)."""

import json
import zipfile

import keras
import numpy as np
from keras import layers


def skip_names(convolutions=23, norms=17):
    """Make layers for nothing, so that the next ones are conv2d_23 and batch_normalization_17."""
    for _ in range(convolutions):
        layers.Conv2D(1, 1)
    for _ in range(norms):
        layers.BatchNormalization()


def block(x, filters, norm=True):
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="zeros")(x)
    if norm:
        x = layers.BatchNormalization()(x)
    return layers.Activation("relu")(x)


def build_unet(
    width=4,
    levels=2,
    classes=1,
    channels=3,
    size=32,
    *,
    decoder_norm=True,
    skip_first=False,
    first_stage=2,
    decoder=True,
    between=None,
    seed=0,
):
    """A U-Net with random weights and random BatchNorm statistics (made as zeros: Keras compiles each initialiser).

    `skip_first` joins [skip, upsampled]; `first_stage` is the convolutions of the first stage; `between` makes a
    layer between the two convolutions of each decoder stage.
    """
    x = inputs = keras.Input((size, size, channels))
    skips = []
    for level in range(levels):
        if level:
            skips.append(x)
            x = layers.MaxPooling2D()(x)
        for _ in range(2 if level else first_stage):
            x = block(x, width * 2**level)
    if decoder:
        for level in reversed(range(levels - 1)):
            x = layers.Conv2DTranspose(width * 2**level, 2, strides=2, padding="same", kernel_initializer="zeros")(x)
            x = layers.Concatenate()([skips[level], x] if skip_first else [x, skips[level]])
            x = block(x, width * 2**level, decoder_norm)
            x = between(level)(x) if between else x
            x = block(x, width * 2**level, decoder_norm)
        activation = "sigmoid" if classes == 1 else "softmax"
        x = layers.Conv2D(classes, 1, activation=activation, kernel_initializer="zeros")(x)
    model = keras.Model(inputs, x)
    randomise(model, seed)
    return model


def randomise(model, seed=0):
    """Give every variable values of a plausible size, so that none is left at 0 or 1."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            shape, name = variable.shape, variable.name
            if name == "kernel":
                fan_in = np.prod(shape) / shape[2 if "transpose" in layer.name else 3]
                values.append(rng.normal(0, np.sqrt(2 / fan_in), shape))
            elif name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.5, 1.5, shape))
            else:
                values.append(rng.normal(0, 0.2, shape))
        layer.set_weights([value.astype(np.float32) for value in values])


def of_kind(model, kind):
    return [layer for layer in model.layers if type(layer).__name__ == kind]


def outputs(model, names, image):
    """The outputs of layers named, by Keras itself in inference mode."""
    found = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])(image, training=False)
    return [np.asarray(array) for array in found]


def edit_zip(source, target, change):
    """Copy a .keras file with its config changed by `change(config)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            new.writestr(name, content)
    return target


def as_keras_2(config):
    """Rewrite a Keras 3 config's inbound nodes as Keras 2 kept them: [[["conv2d", 0, 0, {}]]]."""

    def histories(node):
        if isinstance(node, dict):
            if "keras_history" in node.get("config", {}):
                return [[*node["config"]["keras_history"], {}]]
            node = list(node.values())
        return [entry for part in node for entry in histories(part)] if isinstance(node, list) else []

    for layer in config["config"]["layers"]:
        layer["inbound_nodes"] = [histories(node["args"]) for node in layer["inbound_nodes"]]
        layer.pop("module", None)
        layer.pop("build_config", None)
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["axis"] = [3]
