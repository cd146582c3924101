"""The original's U-Net at its own size: it compiles and takes a step, on a CPU too."""

import jax
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.models.registry import build_model
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import steps
from heartseg_jax.training.phases import plan


@pytest.mark.slow
def test_one_step_at_512():
    _, config = load.load("configs/scratch.py")
    model = build_model(config.model, HEART)
    tx, train_step = steps.compiled_phase(
        model, config.train, PRESETS[config.data.augment], plan(config.transfer, config.model.levels, 100)[0], 100, 0
    )
    state = steps.begin(tx, *steps.init_params(model, jax.random.key(0), config.data.size))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 1_863_369
    rng = np.random.default_rng(0)
    shape = (config.data.batch_size, config.data.size, config.data.size)
    batch = Batch(
        image=rng.integers(-1000, 1000, (*shape, 1)).astype(np.int16),
        window=np.tile(np.array(config.data.window_hu, np.float32), (shape[0], 3, 1)),
        label=rng.integers(0, 9, shape).astype(np.uint8),
        merge=np.tile(np.arange(9, dtype=np.int32), (shape[0], 1)),
        mask=np.ones(shape[0], np.float32),
    )
    before = np.asarray(state.params["head"]["bias"]).copy()
    state, metrics = train_step(state, batch, jax.random.key(0))
    assert np.isfinite(float(metrics["loss"]))
    # The warm-up starts at a rate of 0, so the first step moves nothing; the second does.
    state, metrics = train_step(state, batch, jax.random.key(0))
    assert np.isfinite(float(metrics["loss"]))
    assert not np.array_equal(before, np.asarray(state.params["head"]["bias"]))
