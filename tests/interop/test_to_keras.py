"""A network written for Keras: Keras itself must load it and compute the same."""

import json
import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.interop import to_keras
from heartseg_jax.interop.encoder import load_encoder
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import UNet


def network(norm, levels=3, width=4, seed=0, fold=1):
    """A U-Net of random weights and statistics that are not 0 and 1."""
    shape = {"width": width, "levels": levels, "num_classes": 9, "norm": norm, "dropout": 0.2, "fold": fold}
    model, module = SimpleNamespace(**shape, batch_norm_momentum=0.9), UNet(**shape)
    variables = module.init(jax.random.key(seed), np.zeros((1, 16, 16, 3), np.float32), train=False)
    rng = np.random.default_rng(seed)
    vary = lambda leaf: (np.asarray(leaf) + rng.uniform(0.05, 0.3, leaf.shape)).astype(np.float32)  # noqa: E731
    params = jax.tree.map(vary, variables["params"])
    stats = jax.tree.map(vary, variables.get("batch_stats", {}))
    return model, module, params, stats


def compare(keras_model, module, params, stats):
    image = np.random.default_rng(1).uniform(0, 1, (2, 16, 24, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        logits = module.apply({"params": params, "batch_stats": stats}, image, train=False)
        ours = np.asarray(jax.nn.softmax(logits))
        theirs = np.asarray(keras_model(image))
    assert theirs.shape == (2, 16, 24, 9)
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() <= 1e-4


@pytest.mark.parametrize(
    ("norm", "levels", "fold"), [("none", 2, 1), ("batch", 3, 1), ("encoder", 4, 1), ("batch", 2, 2)]
)
def test_keras_computes_the_same(norm, levels, fold, tmp_path):
    import keras

    model, module, params, stats = network(norm, levels, fold=fold)
    target = tmp_path / "heart.keras"
    to_keras.export(params, stats, model=model, size=16, channels=3, target=target)
    loaded = keras.models.load_model(target, safe_mode=True, compile=False)
    compare(loaded, module, params, stats)
    assert sum(leaf.size for leaf in jax.tree.leaves((params, stats))) == loaded.count_params()
    assert not [path for path in tmp_path.iterdir() if path != target]


def test_weights_alone_load_into_the_rebuilt_model(tmp_path):
    import keras

    model, module, params, stats = network("encoder")
    for suffix in (".keras", ".weights.h5"):
        to_keras.export(params, stats, model=model, size=16, channels=3, target=tmp_path / f"heart{suffix}")
    config = json.loads(zipfile.ZipFile(tmp_path / "heart.keras").read("config.json"))
    rebuilt = keras.Model.from_config(config["config"])
    rebuilt.load_weights(tmp_path / "heart.weights.h5")
    compare(rebuilt, module, params, stats)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_what_was_written_is_read_back_bit_for_bit(suffix, tmp_path):
    model, _, params, stats = network("encoder")
    target = tmp_path / f"heart{suffix}"
    to_keras.export(params, stats, model=model, size=16, channels=3, target=target)
    found = load_encoder(target)
    for ours, theirs in ((params["encoder"], found.params), (stats["encoder"], found.batch_stats)):
        ours, theirs = named_leaves(ours), named_leaves(theirs)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    model, _, params, stats = network("encoder")
    model.levels = 5
    with pytest.raises(UserError, match="lacks 'stage4'"):
        to_keras.export(params, stats, model=model, size=16, channels=3, target=tmp_path / "heart.keras")
    assert not list(tmp_path.iterdir())


def test_the_shipped_encoder_is_genuine_small_and_gives_what_keras_gave(shared):
    import keras

    from heartseg_jax.interop.encoder import SHIPPED

    path = SHIPPED["brain16"]
    assert path.stat().st_size <= 5_000_000
    assert "keras_version" in json.loads(zipfile.ZipFile(path).read("metadata.json"))
    model = keras.models.load_model(path, safe_mode=True, compile=False)
    reference = np.load(shared / "weights" / "brain_unet16_activations.npz")
    image = np.repeat(reference["input"][:1, ..., None].astype(np.float32), 3, axis=-1)
    found = np.asarray(model(image))
    assert np.abs(found - reference["bottleneck"][:1]).max() / np.abs(reference["bottleneck"][:1]).max() <= 1e-4
    ours, source = load_encoder(path), load_encoder(shared / "weights" / "brain_unet16.keras")
    for one, other in ((ours.params, source.params), (ours.batch_stats, source.batch_stats)):
        a, b = named_leaves(one), named_leaves(other)
        assert all(np.array_equal(a[name], b[name]) for name in b)
    notice = (path.parents[2] / "NOTICE").read_text()
    assert "1512427" in notice
    assert "CC BY 4.0" in notice
