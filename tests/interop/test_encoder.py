"""The encoder against Keras itself, on models made here and on a brain model that was trained."""

import functools
import json
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.interop.encoder import load_encoder, regrey, save_folder
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import ConvBlock, Encoder
from tests.interop.keras_models import as_keras_2, build_unet, edit_zip, of_kind, outputs


def stages(encoder, image):
    """The outputs of this project's encoder, a stage each."""
    with jax.default_matmul_precision("highest"):
        network = Encoder(encoder.width, encoder.levels, functools.partial(ConvBlock, norm=True))
        return network.apply({"params": encoder.params, "batch_stats": encoder.batch_stats}, image, False)


def differ(ours, theirs):
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("form", ["keras", "h5", "weights.h5"])
@pytest.mark.parametrize(("width", "levels"), [(4, 3), (8, 2), (16, 2)])
def test_every_stage_equals_keras(saved, image, width, levels, form):
    model = saved[width].model
    first = of_kind(model, "Conv2D")[0].name
    assert int(first.split("_")[1]) >= 23
    encoder = load_encoder(saved[width].files[form])
    assert (encoder.width, encoder.levels, encoder.channels) == (width, levels, 3)
    activations = [layer.name for layer in of_kind(model, "Activation")][1 : 2 * levels : 2]
    for ours, theirs in zip(stages(encoder, image), outputs(model, activations, image), strict=True):
        assert differ(ours, theirs) < 2e-6


def test_the_report_names_every_array_kept_and_every_layer_left(saved):
    report = load_encoder(saved[4].files["keras"]).report
    model = saved[4].model
    convolution, norm = of_kind(model, "Conv2D")[0].name, of_kind(model, "BatchNormalization")[5].name
    rows = {row["flax"]: row for row in report["layers"]}
    assert len(rows) == 3 * 2 * 6
    assert rows["encoder/stage1/conv1/kernel"] == {
        "keras": f"{convolution}/kernel",
        "flax": "encoder/stage1/conv1/kernel",
        "shape": [3, 3, 3, 4],
    }
    assert rows["encoder/stage3/norm2/var"]["keras"] == f"{norm}/moving_variance"
    weighted = {layer.name for layer in model.layers if layer.weights}
    kept = {row["keras"].split("/")[0] for row in report["layers"]}
    assert {row["layer"] for row in report["left_out"]} == weighted - kept
    assert all(of_kind(model, "Conv2DTranspose")[0].name in row["reason"] for row in report["left_out"])


@pytest.mark.parametrize("form", ["h5", "keras"])
def test_the_trained_brain_model_computes_what_keras_computed(shared, form):
    with np.load(shared / "weights" / "brain_unet16_activations.npz") as stored:
        image = np.repeat(stored["input"][:1, ..., None], 3, axis=-1)
        bottleneck, skip = stored["bottleneck"][:1], stored["skip3"][:1].astype(np.float32)
    found = stages(load_encoder(shared / "weights" / f"brain_unet16.{form}"), image)
    assert differ(found[4], bottleneck) < 1e-5
    assert differ(found[3], skip) < 1e-3  # stored as float16


def test_the_shipped_encoder_goes_by_its_name():
    encoder = load_encoder(Path("brain16"))
    assert (encoder.width, encoder.levels, encoder.channels) == (16, 5, 3)


def test_a_grey_image_gives_the_same_through_one_channel(saved, image):
    grey = image[..., :1]
    path = saved[8].files["keras"]
    for channels in (1, 2):
        there = stages(load_encoder(path, channels=channels), np.repeat(grey, channels, axis=-1))[-1]
        here = stages(load_encoder(path), np.repeat(grey, 3, axis=-1))[-1]
        assert differ(there, np.asarray(here)) < 2e-6
    notes = load_encoder(path, channels=1).report["notes"]
    assert any(note.startswith("3 input channels became 1; first kernel: summed") for note in notes)


def test_regrey_by_hand():
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    kernel[1, 1, :, 0] = 1.0, 2.0, 6.0
    assert regrey(kernel, 1)[1, 1, :, 0].tolist() == [9.0]
    assert regrey(kernel, 3)[1, 1, :, 0].tolist() == [3.0, 3.0, 3.0]


def test_a_folder_of_convert_goes_round(saved, tmp_path):
    encoder = load_encoder(saved[4].files["h5"])
    save_folder(encoder, tmp_path)
    again = load_encoder(tmp_path)
    for tree, other in ((encoder.params, again.params), (encoder.batch_stats, again.batch_stats)):
        ours, theirs = named_leaves(tree), named_leaves(other)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert again.report["sha256"] == encoder.report["sha256"]
    grey = load_encoder(tmp_path, channels=1)
    assert grey.params["stage1"]["conv1"]["kernel"].shape == (3, 3, 1, 4)
    assert (grey.report["channels"], grey.report["layers"][0]["shape"]) == (1, [3, 3, 1, 4])


def test_a_folder_whose_arrays_were_changed_is_refused(saved, tmp_path):
    save_folder(load_encoder(saved[4].files["h5"]), tmp_path)
    content = bytearray((tmp_path / "encoder.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "encoder.npz").write_bytes(content)
    with pytest.raises(UserError, match="is not what conversion.json describes"):
        load_encoder(tmp_path)
    (tmp_path / "conversion.json").write_text("{}")
    with pytest.raises(UserError, match="convert the file again"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.pop("npz_sha256"),
        lambda report: report.update(layers=3),
        lambda report: report.update(layers=[3]),
        lambda report: report.update(notes=None),
        lambda report: report.update(left_out={"a": 1}),
        lambda report: report.update(sha256=None),
        lambda report: report.update(width="x"),
        lambda report: report.update(levels=2),
    ],
)
def test_a_report_of_another_shape_is_refused(saved, tmp_path, change):
    save_folder(load_encoder(saved[4].files["h5"]), tmp_path)
    report = json.loads((tmp_path / "conversion.json").read_text())
    change(report)
    (tmp_path / "conversion.json").write_text(json.dumps(report))
    for channels in (1, 3):
        with pytest.raises(UserError, match="convert the file again"):
            load_encoder(tmp_path, channels=channels)


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{"])
def test_a_report_that_is_no_object_is_refused(saved, tmp_path, content):
    save_folder(load_encoder(saved[4].files["h5"]), tmp_path)
    (tmp_path / "conversion.json").write_text(content)
    with pytest.raises(UserError, match=r"conversion\.json"):
        load_encoder(tmp_path)


def test_a_config_as_keras_2_wrote_it_gives_the_same(saved, tmp_path):
    new = load_encoder(saved[4].files["keras"])
    old = load_encoder(edit_zip(saved[4].files["keras"], tmp_path / "old.keras", as_keras_2))
    path = tmp_path / "old.h5"
    path.write_bytes(saved[4].files["h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        as_keras_2(config)
        nodes = [layer["inbound_nodes"] for layer in config["config"]["layers"]]
        assert nodes[1] == [[[config["config"]["layers"][0]["name"], 0, 0, {}]]]
        file.attrs["model_config"] = json.dumps(config)
    for other in (old, load_encoder(path)):
        theirs = named_leaves(other.params)
        assert all(np.array_equal(array, theirs[name]) for name, array in named_leaves(new.params).items())
        assert other.report["left_out"] == new.report["left_out"]


def test_weights_as_keras_2_saved_them_are_placed_by_order(saved, tmp_path):
    """`save_weights` of Keras 2: layer_names, weight_names, and variables that end in :0."""
    path = tmp_path / "legacy.h5"
    model = saved[4].model
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = np.asarray(variable.value)
    encoder = load_encoder(path)
    expected = load_encoder(saved[4].files["keras"])
    assert (encoder.width, encoder.levels, encoder.report["format"]) == (4, 3, "weights")
    for tree, other in ((encoder.params, expected.params), (encoder.batch_stats, expected.batch_stats)):
        ours, theirs = named_leaves(tree), named_leaves(other)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert any("cannot be checked" in note for note in encoder.report["notes"])


def test_an_encoder_without_a_decoder_is_taken_too(tmp_path):
    path = tmp_path / "encoder.keras"
    build_unet(4, 2, decoder=False).save(path)
    assert load_encoder(path).levels == 2
