"""Golden numbers: later work must leave them unchanged, or say why they changed.

The phantom's digest is held in tests/imaging/test_phantom.py, the baselines of real slices in
tests/evaluation/test_baselines.py.
"""

import jax
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.models import registry
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import steps
from heartseg_jax.training.phases import plan

FIRST_LOSSES = {"none": (3.409435, 3.234188, 3.171630), "batch": (3.644057, 3.525114, 3.427205)}


@pytest.fixture(scope="module")
def batch():
    """Four slices of phantom patient 0 at 10 mm, through the quickstart's window."""
    phantom = generate(0, 0, PhantomSpec((8, 24, 24), (17.0, 10.0, 10.0)))
    return Batch(
        image=phantom.volume.voxels[2:6, ..., None],
        window=np.tile(np.array([-200, 600], np.float32), (4, 3, 1)),
        label=phantom.labels[2:6],
        merge=np.tile(np.arange(9, dtype=np.int32), (4, 1)),
        mask=np.ones(4, np.float32),
    )


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_loss_of_the_first_three_steps(batch, norm):
    overrides = {"data.size": "24", "model.width": "8", "model.levels": "3", "model.norm": norm}
    overrides |= {"train.warmup_steps": "0", "train.optimizer": "adamw", "train.learning_rate": "4e-3"}
    _, config = load.load("configs/quickstart.py", overrides)
    model = registry.build_model(config.model, HEART)
    tx, train_step = steps.compiled_phase(
        model, config.train, PRESETS["none"], plan(config.transfer, config.model.levels, 100)[0], 100, 0
    )
    state = steps.begin(tx, *steps.init_params(model, jax.random.key(0), 24))
    losses = []
    for _ in range(3):
        state, metrics = train_step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    print(norm, losses)
    np.testing.assert_allclose(losses, FIRST_LOSSES[norm], rtol=2e-4)
