"""Muon's updates beside arithmetic on singular values: what is orthogonalised, how large it is, and what is Adam's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.config import load
from heartseg_jax.training import phases
from heartseg_jax.training.muon import scale_by_muon_or_adam

TREE = {
    "encoder": {"stage1": {"conv1": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "norm1": {"scale": (4,)}}},
    "decoder": {"stage1": {"up": {"kernel": (2, 2, 3, 6)}}},
    "head": {"kernel": (1, 1, 4, 9), "bias": (9,)},
}


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), TREE, is_leaf=lambda x: isinstance(x, tuple)
    )


def newton_schulz(value):
    """Jordan's five iterations on a singular value."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


@pytest.fixture
def first_update():
    gradients = draw()
    tx = scale_by_muon_or_adam()
    updates, _ = tx.update(gradients, tx.init(draw(1)), draw(1))
    return gradients, updates


@pytest.mark.parametrize(
    ("path", "larger_side"), [(("encoder", "stage1", "conv1"), 18), (("decoder", "stage1", "up"), 12)]
)
def test_a_kernels_singular_values_become_alike_and_its_directions_stay(first_update, path, larger_side):
    gradient, update = (jnp.asarray(tree[path[0]][path[1]][path[2]]["kernel"]) for tree in first_update)
    matrix = np.asarray(gradient, np.float64).reshape(-1, gradient.shape[3])
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = [newton_schulz(value / math.sqrt((values**2).sum())) for value in values]
    expected = left @ np.diag(values) @ right * 0.2 * math.sqrt(larger_side)
    np.testing.assert_allclose(np.asarray(update).reshape(matrix.shape), expected, atol=1e-4)
    assert 0.6 < min(values) <= max(values) < 1.3


def test_the_head_biases_and_batch_norm_are_adams(first_update):
    gradients, updates = first_update
    for part in (
        lambda tree: tree["head"]["kernel"],
        lambda tree: tree["head"]["bias"],
        lambda tree: tree["encoder"]["stage1"]["conv1"]["bias"],
        lambda tree: tree["encoder"]["stage1"]["norm1"]["scale"],
    ):
        np.testing.assert_allclose(part(updates), np.sign(part(gradients)), rtol=1e-4)  # Adam's first step


def test_momentum_outlives_a_gradient_that_turns():
    kernels = {"conv": {"kernel": jnp.zeros((3, 3, 2, 4))}}
    gradient = jax.tree.map(lambda leaf: jnp.asarray(draw()["encoder"]["stage1"]["conv1"]["kernel"]), kernels)
    tx = scale_by_muon_or_adam()
    state = tx.init(kernels)
    for _ in range(20):
        update, state = tx.update(gradient, state, kernels)
    turned, _ = tx.update(jax.tree.map(jnp.negative, gradient), state, kernels)
    one, other = update["conv"]["kernel"], turned["conv"]["kernel"]
    assert float(jnp.vdot(one, other) / jnp.vdot(one, one)) > 0.9


def test_a_group_that_goes_on_keeps_its_momentum_and_one_that_thaws_has_none():
    _, config = load.load("configs/transfer.py", {"train.optimizer": "muon"})
    before, after = phases.plan(config.transfer, 1, 100)
    params, gradients = draw(1), draw()
    old_tx, new_tx = (phases.build_optimizer(config.train, lambda step: 0.1, phase) for phase in (before, after))
    _, old = old_tx.update(gradients, old_tx.init(params), params)
    found = phases.carry_over(before, old, after, new_tx.init(params))
    momentum = {
        group: [np.asarray(leaf) for leaf in jax.tree.leaves(state) if leaf.ndim == 4]
        for group, state in found[-2].inner_states.items()
    }
    norm = math.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradients)))
    # The first step's: the gradient, which the clip has brought to a norm of 1.
    np.testing.assert_allclose(
        momentum["decoder"][0], np.asarray(gradients["decoder"]["stage1"]["up"]["kernel"]) / norm, rtol=1e-4
    )
    assert not momentum["encoder/stage1"][0].any()
