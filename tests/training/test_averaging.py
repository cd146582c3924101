"""The moving average of the weights: its arithmetic, within the step, and what a state without one is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.models import registry
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.training import averaging, steps
from heartseg_jax.training.phases import plan
from tests.tiny import OVERRIDES
from tests.training.test_steps import batch_of

DECAYS = (1 / 10, 2 / 11, 3 / 12)
"""(1 + n) / (10 + n) of the first three steps; a decay of 0.5 is not reached yet."""


def test_the_average_of_three_steps_by_hand():
    average = averaging.begin_average({"w": jnp.zeros(1)}, {})
    found = []
    for step, weight in enumerate((1.0, 2.0, 4.0)):
        latest = {"params": {"w": jnp.full(1, weight)}, "batch_stats": {}}
        average = averaging.follow(average, jnp.int32(step), latest, 0.15, frozenset())
        found.append(float(average["params"]["w"][0]))
    # It keeps 1/10, then min(0.15, 2/11) = 0.15, then 0.15 of the old average.
    assert found == pytest.approx([0.9, 0.15 * 0.9 + 0.85 * 2, 0.15 * 1.835 + 0.85 * 4])


def test_the_share_that_is_kept_rises_to_the_decay():
    kept = [float(averaging.decay_at(jnp.int32(step), 0.999)) for step in (0, 1, 90, 8989, 8990, 100_000)]
    assert kept == pytest.approx([0.1, 2 / 11, 0.91, 8990 / 8999, 0.999, 0.999])


def steps_of(ema_decay, schedule="none", count=3):
    """The model and the states, as host arrays, before and after each of `count` steps."""
    changes = {"model.norm": "batch", "train.ema_decay": str(ema_decay), "transfer.schedule": schedule}
    _, config = load.load("configs/quickstart.py", OVERRIDES | changes | {"train.warmup_steps": "0"})
    model = registry.build_model(config.model, HEART)
    tx, step = steps.compiled_phase(model, config.train, PRESETS["none"], plan(config.transfer, 3, 20)[0], 20, 0)
    params, batch_stats = steps.init_params(model, jax.random.key(0), config.data.size)
    # A negative zero, too, must come out of a frozen group as it went in.
    params["encoder"]["stage1"]["conv1"]["bias"] = params["encoder"]["stage1"]["conv1"]["bias"].at[0].set(-0.0)
    state = steps.begin(tx, params, batch_stats, config.train.ema_decay)
    copied = lambda state: jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)  # noqa: E731
    states = [copied(state)]
    for seed in range(count):
        state, _ = step(state, batch_of(seed), jax.random.key(0))
        states.append(copied(state))
    return config, model, states


def test_the_step_averages_weights_and_statistics():
    _, _, states = steps_of(0.5)
    for kind in ("params", "batch_stats"):
        expected = jax.tree.map(np.float64, getattr(states[0], kind))
        for decay, state in zip(DECAYS, states[1:], strict=True):
            expected = jax.tree.map(lambda a, w, d=decay: d * a + (1 - d) * w, expected, getattr(state, kind))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), states[-1].ema[kind], expected
        )
    assert not np.array_equal(states[-1].ema["params"]["head"]["kernel"], states[-1].params["head"]["kernel"])


def test_training_itself_is_the_same_with_and_without():
    _, _, averaged = steps_of(0.5)
    _, _, plain = steps_of(0.0)
    assert plain[-1].ema is None
    assert set(plain[-1].arrays()) == {"step", "params", "batch_stats", "opt_state"}  # as checkpoints always had
    jax.tree.map(np.testing.assert_array_equal, averaged[0].params, plain[0].params)
    for one, other in zip(averaged, plain, strict=True):
        for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_average_of_a_frozen_group_is_the_group_bit_by_bit():
    _, _, states = steps_of(0.5, "frozen")
    last = states[-1]
    for kind, own in (("params", last.params), ("batch_stats", last.batch_stats)):
        leaves = [jax.tree.leaves(tree["encoder"]) for tree in (last.ema[kind], own, getattr(states[0], kind))]
        assert leaves[0]
        assert all(a.tobytes() == b.tobytes() == c.tobytes() for a, b, c in zip(*leaves, strict=True))
    assert not np.array_equal(last.ema["params"]["head"]["kernel"], last.params["head"]["kernel"])


def test_evaluation_uses_the_average():
    config, model, states = steps_of(0.5)
    evaluation, last = steps.compiled_eval(model, config.train), states[-1]
    as_weights = last._replace(params=last.ema["params"], batch_stats=last.ema["batch_stats"], ema=None)
    found, expected, latest = (
        float(evaluation(state, batch_of(9))["loss"]) for state in (last, as_weights, last._replace(ema=None))
    )
    assert found == pytest.approx(expected, rel=1e-6)
    assert abs(found - latest) > 1e-4


def test_the_weights_to_use_are_the_averages_where_there_are_any():
    plain = {"params": {"w": 1}, "batch_stats": {"m": 2}}
    assert averaging.weights_of(plain) == ({"w": 1}, {"m": 2})
    assert averaging.weights_of({"params": {"w": 1}}) == ({"w": 1}, {})
    averaged = plain | {"ema": {"params": {"w": 3}, "batch_stats": {"m": 4}}}
    assert averaging.weights_of(averaged) == ({"w": 3}, {"m": 4})
    assert [averaging.is_averaged(state) for state in (plain, plain | {"ema": None}, averaged)] == [False, False, True]
