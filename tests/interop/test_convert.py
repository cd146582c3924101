"""The verb `convert` through the front door: what it leaves, and twelve kinds of broken files."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import main
from heartseg_jax.interop.encoder import load_encoder
from heartseg_jax.verbs import convert
from tests.interop.keras_models import build_unet, edit_zip, of_kind


def call(*words):
    return main.main(["convert", *map(str, words)])


def refused(capsys, *words):
    """Run a command that must fail by one line on stderr, and return the line."""
    assert call(*words) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


def copy_h5(saved, path, change):
    """A copy of the model of width 4 as HDF5, changed by `change(file)`."""
    path.write_bytes(saved[4].files["h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def first(saved, kind):
    return of_kind(saved[4].model, kind)[0].name


def variable(file, layer, name):
    """The HDF5 path of a layer's variable."""
    found = []
    file[f"model_weights/{layer}"].visit(lambda path: found.append(path) if path.split("/")[-1] == name else None)
    return f"model_weights/{layer}/{found[0]}"


def test_it_lists_every_layer_and_leaves_a_folder(saved, tmp_path, capsys):
    assert call(f"--input={saved[4].files['keras']}", f"--output={tmp_path / 'out'}", "--channels=1") == 0
    shown = capsys.readouterr().out
    convolution, up = first(saved, "Conv2D"), first(saved, "Conv2DTranspose")
    row = next(line for line in shown.splitlines() if line.startswith(f"{convolution}/kernel"))
    assert row.split() == [f"{convolution}/kernel", "encoder/stage1/conv1/kernel", "3x3x1x4", "kept"]
    assert shown.count(" kept\n") == 36
    left = shown[shown.index("left out, after the deepest block") :]
    assert up in left
    assert "note: 3 input channels became 1" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"conversion.json", "encoder.npz"}
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert (report["source"], report["channels"], len(report["layers"])) == ("net4.keras", 1, 36)
    assert load_encoder(tmp_path / "out", channels=1).width == 4


def test_verify_is_written_down(saved, tmp_path, capsys):
    assert call(f"--input={saved[8].files['h5']}", f"--output={tmp_path}", "--verify") == 0
    shown = capsys.readouterr().out
    assert "verified: at most" in shown
    verification = json.loads((tmp_path / "conversion.json").read_text())["verification"]
    assert verification["whole_model"] is True
    assert verification["worst"] < 1e-5
    assert set(verification["differences"]) >= {"encoder/stage2/conv2", "decoder/stage1/up", "output"}


def test_verify_of_weights_alone_says_why_it_cannot(saved, tmp_path, capsys):
    line = refused(capsys, f"--input={saved[4].files['weights.h5']}", f"--output={tmp_path / 'out'}", "--verify")
    assert "only weights" in line
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_there_is_kept(saved, tmp_path, capsys):
    words = [f"--input={saved[4].files['h5']}", f"--output={tmp_path / 'out'}"]
    assert call(*words) == 0
    assert "give --overwrite" in refused(capsys, *words)
    assert call(*words, "--overwrite") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "other files in it" in refused(capsys, words[0], f"--output={tmp_path / 'mine'}", "--overwrite")
    assert "is a file" in refused(capsys, words[0], f"--output={tmp_path / 'mine' / 'notes.txt'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output=x"], "needs --input=FILE (or --to=keras --workdir=RUN)"),
        (["--input=x"], "needs --output=DIR"),
        (["--to=keras", "--output=x.keras"], "needs --workdir=RUN"),
        (["--to=torch", "--output=x"], "--to=torch"),
        (["--to=keras", "--workdir=nowhere", "--output=x.h6"], "must end in .keras"),
        (["--to=keras", "--workdir=nowhere", "--output=x.keras", "--input=y"], "takes no --input"),
        (["--input=x", "--output=y", "--step=3"], "takes no --step, which belongs to --to=keras"),
        (["--input=x", "--output=y", "--channels=three"], "--channels needs an integer"),
        (["--input=x", "--output=y", "--channels=0"], "[1, 64]"),
        (["--input=nowhere.h5", "--output=y"], "no weights file at nowhere.h5"),
    ],
)
def test_flags_that_do_not_go_together(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


def truncated_h5(saved, path):
    path.write_bytes(saved[4].files["h5"].read_bytes()[:-9000])
    return "is damaged or truncated"


def truncated_zip(saved, path):
    path.write_bytes(saved[4].files["keras"].read_bytes()[:-200])
    return "is damaged or truncated (File is not a zip file)"


def not_hdf5(saved, path):
    path.write_text("weights, honestly")
    return "neither HDF5 nor a .keras zip"


def no_encoder(saved, path):
    keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.Dense(2)]).save(path.with_suffix(".keras"))
    path.with_suffix(".keras").rename(path)
    return "the model has no encoder"


def extra_block(saved, path):
    build_unet(4, 2, first_stage=3).save(path.with_suffix(".keras"))
    path.with_suffix(".keras").rename(path)
    return "stage 1 of the encoder has 3 convolutions"


def no_statistics(saved, path):
    def change(file):
        del file[variable(file, first(saved, "BatchNormalization"), "moving_mean")]

    copy_h5(saved, path, change)
    return "lacks moving_mean: its BatchNorm statistics are missing"


def nan_inside(saved, path):
    def change(file):
        file[variable(file, first(saved, "Conv2D"), "kernel")][0, 0, 0, :2] = np.nan

    copy_h5(saved, path, change)
    return "kernel holds 2 NaN or infinite values"


def zip_without_weights(saved, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    return "a zip without model.weights.h5"


def empty(saved, path):
    path.touch()
    return "is empty (0 bytes)"


def folder(saved, path):
    path.mkdir()
    return "is a folder, not a weights file"


def saved_model(saved, path):
    path.mkdir()
    (path / "saved_model.pb").touch()
    code = f"import tf_keras; tf_keras.models.load_model('{path}', compile=False).save('model.h5')"
    return f'pip install tensorflow tf_keras && python -c "{code}"'


def with_lambda(saved, path):
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda image: image / 2, name="halve")(x)
    keras.Model(inputs, layers.Conv2D(4, 3)(x)).save(path.with_suffix(".keras"))
    path.with_suffix(".keras").rename(path)
    return "layer 'halve' is a Lambda: code stored in the file, which is never run"


def channels_first_config(saved, path):
    def change(config):
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Conv2D":
                layer["config"]["data_format"] = "channels_first"

    edit_zip(saved[4].files["keras"], path, change)
    return "is of a channels-first model; save the model with data_format='channels_last'"


def channels_first_kernels(saved, path):
    def change(file):
        place = variable(file, first(saved, "Conv2D"), "kernel")
        kernel = file[place][()].transpose(3, 2, 0, 1)
        del file[place]
        file[place] = kernel

    copy_h5(saved, path, change)
    return "kernel is 4x3x3x3: out, in, rows, columns, as in a channels-first model"


def channels_first_weights_alone(saved, path):
    with h5py.File(saved[4].files["weights.h5"]) as old, h5py.File(path, "w") as new:

        def copy(name, node):
            if isinstance(node, h5py.Dataset):
                array = node[()]
                new[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array

        old.visititems(copy)
    return "kernel is 4x3x3x3: out, in, rows, columns, as in a channels-first model"


def link_elsewhere(saved, path):
    def change(file):
        place = variable(file, first(saved, "Conv2D"), "kernel")
        del file[place]
        file[place] = h5py.ExternalLink(str(saved[4].files["h5"]), place)

    copy_h5(saved, path, change)
    return "in place of data; save the model again"


def layer_linked_elsewhere(saved, path):
    def change(file):
        place = f"model_weights/{first(saved, 'Conv2D')}"
        del file[place]
        file[place] = h5py.ExternalLink(str(saved[4].files["h5"]), place)

    copy_h5(saved, path, change)
    return "in place of data; save the model again"


def everything_linked_elsewhere(saved, path):
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(str(saved[4].files["weights.h5"]), "layers")
    return "has a link at /layers in place of data"


def stored_elsewhere(saved, path):
    def change(file):
        place = variable(file, first(saved, "Conv2D"), "bias")
        del file[place]
        file.create_dataset(place, (4,), "f4", external=[(str(saved[4].files["h5"]), 0, 16)])

    copy_h5(saved, path, change)
    return "in another file, which is not read"


def git_lfs_pointer(saved, path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8010616\n")
    return "run git lfs pull"


BROKEN = (
    truncated_h5, truncated_zip, not_hdf5, no_encoder, extra_block, no_statistics, nan_inside,
    zip_without_weights, empty, folder, saved_model, with_lambda, channels_first_config, channels_first_kernels,
    channels_first_weights_alone, link_elsewhere, layer_linked_elsewhere, everything_linked_elsewhere,
    stored_elsewhere, git_lfs_pointer,
)  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_file_is_one_line_that_names_the_cause(broken, saved, tmp_path, capsys):
    source = tmp_path / "source"
    expected = broken(saved, source)
    capsys.readouterr()
    line = refused(capsys, f"--input={source}", f"--output={tmp_path / 'out'}")
    assert expected in line
    assert str(source) in line
    assert not (tmp_path / "out").exists()


def test_export_gets_the_checkpoints_arrays(tmp_path, monkeypatch, capsys):
    """The other way, with the writer, the run and its checkpoints stood in for: what is handed on."""
    import types

    from heartseg_jax.inference.identity import ModelIdentity
    from heartseg_jax.training import networks

    kernel = np.zeros((3, 3, 12, 4), np.float32)  # of three channels, in squares of 2 x 2 pixels
    params = {"encoder": {"stage1": {"conv1": {"kernel": kernel}}}}

    def read(path, step):
        assert (path, step) == (tmp_path / "run", 7)
        identity = ModelIdentity(str(path), step)
        return networks.Network(path, config, None, ((params, {}),), (identity,), path, True, False)

    model = types.SimpleNamespace(fold=2)
    config = types.SimpleNamespace(model=model, data=types.SimpleNamespace(size=32))
    seen = {}
    writer = types.ModuleType("heartseg_jax.interop.to_keras")
    writer.export = lambda *trees, **rest: seen.update(rest, trees=trees)
    monkeypatch.setitem(__import__("sys").modules, writer.__name__, writer)
    monkeypatch.setattr(networks, "read_network", read)
    target = tmp_path / "new" / "net.keras"
    flags = {"to": "keras", "workdir": str(tmp_path / "run"), "step": 7, "output": str(target)}
    convert.convert(flags)
    assert seen == {"trees": (params, {}), "model": model, "size": 32, "channels": 3, "target": target}
    assert "step 7 of" in capsys.readouterr().out
    target.touch()
    assert "give --overwrite" in refused(capsys, *(f"--{name}={value}" for name, value in flags.items()))
