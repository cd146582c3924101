"""Reading Keras files with h5py only: the layouts, recognised by content, with the arrays that Keras put in."""

import hashlib
import io

import h5py
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.interop import keras_file as files
from tests.interop.keras_models import edit_zip, of_kind


def variables(model):
    """Layer's name -> variable's name -> array, as Keras has them."""
    return {
        layer.name: {variable.name: np.asarray(variable.value) for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("width", [4, 8])
def test_every_variable_is_read_under_its_layers_own_name(saved, width, form):
    read = files.read(saved[width].files[form])
    expected = variables(saved[width].model)
    assert read.format == form
    assert read.weights.keys() == expected.keys()
    for layer, arrays in expected.items():
        assert read.weights[layer].keys() == arrays.keys()
        assert all(np.array_equal(read.weights[layer][name], array) for name, array in arrays.items())


def test_weights_alone_come_in_order_under_the_files_own_names(saved):
    read = files.read(saved[4].files["weights.h5"])
    assert (read.format, read.config) == ("weights", None)
    convolutions = of_kind(saved[4].model, "Conv2D")
    named = ["conv2d", *(f"conv2d_{number}" for number in range(1, len(convolutions)))]
    assert [name for name in read.weights if name.startswith("conv2d") and "transpose" not in name] == named
    for name, layer in zip(named, convolutions, strict=True):
        assert np.array_equal(read.weights[name]["kernel"], np.asarray(layer.kernel.value))
    assert {"gamma", "beta", "moving_mean", "moving_variance"} == set(read.weights["batch_normalization_3"])


def test_the_content_decides_not_the_name(saved, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(saved[4].files["keras"].read_bytes())
    read = files.read(path)
    assert read.format == "keras"
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_variables_numbered_beyond_nine_keep_their_order(tmp_path):
    path = tmp_path / "net.weights.h5"
    arrays = {f"layers/dense/vars/{number}": np.full(2, number, np.float32) for number in range(12)}
    files.write_hdf5(path, arrays)
    with h5py.File(path) as file:
        assert [int(array[0]) for array in files._numbered(path, file)["dense"]] == list(range(12))


def test_what_write_hdf5_wrote_is_read_again(tmp_path):
    stream = io.BytesIO()
    arrays = {"layers/conv2d/vars/0": np.ones((3, 3, 1, 2), np.float32), "layers/conv2d/vars/1": np.zeros(2)}
    files.write_hdf5(stream, arrays, {"layers/conv2d": {"name": "first"}, "empty/group": {"n": 3}})
    with h5py.File(stream) as file:
        assert (file["layers/conv2d"].attrs["name"], file["empty/group"].attrs["n"]) == ("first", 3)
    path = tmp_path / "a.weights.h5"
    path.write_bytes(stream.getvalue())
    read = files.read(path)
    assert np.array_equal(read.weights["conv2d"]["kernel"], arrays["layers/conv2d/vars/0"])
    assert read.weights["conv2d"]["bias"].shape == (2,)


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Conv2D", "conv2d"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("BatchNormalization", "batch_normalization"),
        ("MaxPooling2D", "max_pooling2d"),
        ("ReLU", "re_lu"),
    ],
)
def test_class_names_as_keras_writes_them(name, snake):
    assert files.snake_case(name) == snake


def test_an_array_of_implausible_size_is_not_read(tmp_path):
    path = tmp_path / "vast.weights.h5"
    with h5py.File(path, "w") as file:  # no byte of it is stored
        file.create_dataset("layers/conv2d/vars/0", (2**20, 2**20), "f4", chunks=(1024, 1024))
    with pytest.raises(UserError, match="no plausible array"):
        files.read(path)


def test_groups_that_hold_themselves_are_not_walked_for_ever(tmp_path):
    path = tmp_path / "loop.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group["again"] = group
    with pytest.raises(UserError, match="damaged"):
        files.read(path)


@pytest.mark.parametrize("config", ["{", "3", '{"class_name": "Functional"}', "[" * 100_000])
def test_a_config_that_is_no_model(config, saved, tmp_path):
    path = tmp_path / "net.h5"
    path.write_bytes(saved[4].files["h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
        file.attrs["model_config"] = config[:60_000]
    with pytest.raises(UserError, match="config that"):
        files.read(path)


def test_a_variable_that_the_config_leaves_out_is_added_with_the_value_that_changes_nothing(saved, tmp_path):
    """The numbered form tells variables by their place: the config says which are there."""

    def change(config):
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "BatchNormalization")
        layer["config"]["center"] = False

    read = files.read(edit_zip(saved[4].files["keras"], tmp_path / "net.keras", change))
    name = of_kind(saved[4].model, "BatchNormalization")[0].name
    assert set(read.weights[name]) == {"gamma", "moving_mean", "moving_variance", "beta"}
    assert read.added == (f"{name}/beta",)
    assert not read.weights[name]["beta"].any()
