"""BatchNorm with ReLU, by Flax's own as the standard."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.models.norm import BATCH_NORM_EPSILON, NormReLU, scale_and_shift


def both(train, x, momentum=0.8):
    """This project's and Flax's: what they give, what they keep, and their gradients by parameters and image."""
    flax = nn.BatchNorm(use_running_average=not train, momentum=momentum, epsilon=BATCH_NORM_EPSILON, dtype=x.dtype)
    ours = NormReLU(momentum, x.dtype)
    draws = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(draws.uniform(0, 0.5, leaf.shape), jnp.float32), flax.init(jax.random.key(0), x)
    )
    weights = jnp.asarray(draws.normal(size=x.shape), jnp.float32)

    def loss(apply, params, x):
        out, kept = apply(variables | {"params": params}, x)
        return (out.astype(jnp.float32) * weights).sum(), (out, kept)

    found = []
    for apply in (
        lambda given, x: ours.apply(given, x, train, mutable=["batch_stats"]),
        lambda given, x: (lambda out, kept: (nn.relu(out), kept))(*flax.apply(given, x, mutable=["batch_stats"])),
    ):
        found.append(jax.grad(lambda p, x: loss(apply, p, x), (0, 1), has_aux=True)(variables["params"], x))  # noqa: B023
    return found


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 5, 3), (4, 16, 16, 8), (1, 1, 1, 4)])
def test_as_flax(train, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, shape), jnp.float32)
    mine, theirs = both(train, x)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(right).max()))


def test_in_bfloat16_statistics_are_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 16, 16, 8)), jnp.bfloat16)
    (mine, (out, kept)), (theirs, (right, others)) = both(True, x)
    assert out.dtype == right.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, right)
    for own, other in zip(jax.tree.leaves(kept), jax.tree.leaves(others), strict=True):
        assert own.dtype == jnp.float32
        np.testing.assert_allclose(own, other, rtol=1e-6)
    for own, other in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert own.dtype == other.dtype
        own, other = np.asarray(own, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(own, other, rtol=0.02, atol=0.02 * np.abs(other).max())


def test_by_hand():
    """Two pixels of one channel, 1 and 3: mean 2, variance 1, so -1 and 1 by the deviation, the first cut at zero."""
    out, kept = NormReLU(0.0).apply(
        NormReLU(0.0).init(jax.random.key(0), jnp.zeros((1, 1, 2, 1)), True),
        jnp.asarray([[[[1.0], [3.0]]]]),
        True,
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(np.ravel(out), [0.0, 1 / np.sqrt(1 + BATCH_NORM_EPSILON)], rtol=1e-6)
    assert kept["batch_stats"] == {"mean": 2.0, "var": 1.0}


def test_scale_and_shift_by_hand():
    variables = {"params": {"scale": 3.0, "bias": 1.0}, "batch_stats": {"mean": 2.0, "var": 4.0 - BATCH_NORM_EPSILON}}
    found = scale_and_shift(variables)
    assert float(found["scale"]) == pytest.approx(1.5)
    assert float(found["shift"]) == pytest.approx(-2.0)
