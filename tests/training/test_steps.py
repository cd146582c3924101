"""The state and the jitted steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.compilation_cache import requests
from heartseg_jax.config import load
from heartseg_jax.models import registry
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import steps
from heartseg_jax.training.phase_steps import phase_program
from heartseg_jax.training.phases import plan
from tests.tiny import OVERRIDES, tile_images, tile_labels


@pytest.fixture(scope="module")
def config():
    return load.load("configs/quickstart.py", OVERRIDES)[1]


def batch_of(seed: int) -> Batch:
    labels = np.concatenate([tile_labels(shift)[:1] for shift in (0, 1, 2, 1)])
    return Batch(
        image=tile_images(labels, seed)[..., None],
        window=np.tile(np.array([-200, 600], np.float32), (4, 3, 1)),
        label=labels,
        merge=np.tile(np.arange(9, dtype=np.int32), (4, 1)),
        mask=np.ones(4, np.float32),
    )


def build(config, preset="as_original"):
    model = registry.build_model(config.model, HEART)
    tx, train_step = steps.compiled_phase(
        model, config.train, PRESETS[preset], plan(config.transfer, config.model.levels, 20)[0], 20, 0
    )
    state = steps.begin(tx, *steps.init_params(model, jax.random.key(0), config.data.size))
    return model, state, train_step


def test_nothing_recompiles_after_the_first_step_and_the_loss_falls(config):
    _, state, train_step = build(config, "none")
    losses = []
    for seed in range(12):
        state, metrics = train_step(state, batch_of(seed), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert train_step._cache_size() == 1
    assert int(state.step) == 12
    assert losses[-1] < 0.9 * losses[0]


def test_the_same_state_batch_and_key_give_the_same_step(config):
    results = []
    for _ in range(2):
        _, state, train_step = build(config)
        for seed in range(2):
            state, _ = train_step(state, batch_of(seed), jax.random.key(5))
        results.append(jax.tree.leaves(jax.tree.map(np.asarray, state)))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_the_first_state_is_made_by_one_program_and_its_initialiser_let_go(config):
    """Each program keeps memory of its compiler, and one for each shape would be dozens."""
    model = registry.build_model(config.model, HEART)
    program = phase_program(config, model, plan(config.transfer, 3, 21), 0)
    params, stats = steps.init_params(model, jax.random.key(0), config.data.size)
    jnp.zeros((), jnp.int32)
    with requests() as asked:
        steps.begin(program, params, stats)
    assert asked.made <= 1
    steps.forget_initialiser(model, config.data.size, 3)
    with requests() as asked:
        again, _ = steps.init_params(model, jax.random.key(0), config.data.size)
    assert asked.made == 1
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, again)), strict=True))


def test_the_state_is_donated(config):
    _, state, train_step = build(config, "none")
    train_step(state, batch_of(0), jax.random.key(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth(config):
    train = config.train
    schedule = steps.learning_rate_schedule(train, 1000)
    rates = [float(schedule(step)) for step in (0, 1, 2, 501, 1000)]
    np.testing.assert_allclose(rates, [0, 0.005, 0.01, 0.01 * (0.01 + 0.99 * 0.5), 0.0001], rtol=1e-3)


def test_keys_differ_by_name_and_by_step():
    root = jax.random.key(0)
    data = {
        tuple(jax.random.key_data(steps.named_key(root, name, step)).tolist())
        for name in ("augment", "dropout")
        for step in (0, 1)
    }
    assert len(data) == 4


def test_evaluation_counts_each_example_apart_and_leaves_padding_out(config):
    model, state, _ = build(config)
    batch = batch_of(0)._replace(mask=np.array([1, 1, 1, 0], np.float32))
    found = steps.compiled_eval(model, config.train)(state, batch)
    assert found["confusion"].shape == (4, 9, 9)
    assert found["confusion"].sum(axis=(1, 2)).tolist() == [32 * 32] * 3 + [0]
    assert np.array_equal(found["confusion"][0].sum(axis=1), np.bincount(batch.label[0].ravel(), minlength=9))


def test_bfloat16_computes_in_it_and_keeps_parameters_and_loss_in_float32(config):
    _, config = load.load("configs/quickstart.py", OVERRIDES | {"model.dtype": "bfloat16"})
    _, state, train_step = build(config, "none")
    state, metrics = train_step(state, batch_of(0), jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {"float32"}
    assert metrics["loss"].dtype == jnp.float32
