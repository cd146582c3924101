import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from heartseg_jax.inference.slices import merged
from heartseg_jax.training.counts import confusion_counts, merged_argmax, pixel_shares

IDENTITY = jnp.arange(9)
CAVA_IN_ATRIUM = IDENTITY.at[8].set(4)


def test_merged_argmax_sums_before_it_compares():
    # Right ventricle 0.4 beats right atrium 0.35 and cava 0.25, but not both together.
    logits = jnp.full((2, 1, 1, 9), -20.0).at[..., 5].set(jnp.log(0.4))
    logits = logits.at[..., 4].set(jnp.log(0.35)).at[..., 8].set(jnp.log(0.25))
    assert merged_argmax(logits, jnp.stack([IDENTITY, CAVA_IN_ATRIUM])).ravel().tolist() == [5, 4]


def test_the_host_merges_as_the_device_does():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 9)), jnp.float32)
    for merge in (IDENTITY, CAVA_IN_ATRIUM, jnp.asarray([0, 1, 0, 3, 4, 5, 1, 7, 4])):
        host = merged(np.asarray(jax.nn.softmax(logits)), tuple(merge.tolist())).argmax(axis=-1)
        np.testing.assert_array_equal(merged_argmax(logits, jnp.stack([merge] * 2)), host)


def test_a_merged_channel_is_never_predicted():
    logits = jnp.zeros((1, 1, 1, 9)).at[..., 8].set(9.0)
    assert merged_argmax(logits, CAVA_IN_ATRIUM[None]).item() == 4


def test_confusion_counts_are_scikit_learn_s_over_what_counts():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(3, 16, 16, 9)), jnp.float32)
    label = rng.integers(0, 9, (3, 16, 16))
    label[:, :3] = 255
    counts = jax.jit(confusion_counts)(
        logits, jnp.asarray(label), jnp.tile(IDENTITY, (3, 1)), jnp.asarray([1.0, 1.0, 0.0])
    )
    known = label[:2, 3:].ravel()
    predicted = np.asarray(logits).argmax(axis=-1)[:2, 3:].ravel()
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, confusion_matrix(known, predicted, labels=range(9)))
    assert int(counts.sum()) == 2 * 13 * 16


def test_confusion_counts_merge_both_sides():
    logits = jnp.zeros((1, 1, 2, 9)).at[0, 0, 0, 8].set(9.0).at[0, 0, 1, 4].set(9.0)
    counts = confusion_counts(logits, jnp.asarray([[[4, 8]]]), CAVA_IN_ATRIUM[None], jnp.ones(1))
    assert int(counts[4, 4]) == 2
    assert int(counts.sum()) == 2


def test_pixel_shares_by_hand():
    logits = jnp.zeros((2, 1, 4, 9)).at[0, 0, 0, 3].set(5.0).at[0, 0, 1:, 0].set(5.0)
    label = jnp.asarray([[[3, 1, 0, 255]], [[1, 1, 1, 1]]])
    merge = jnp.tile(IDENTITY, (2, 1))
    shares = jax.jit(pixel_shares)(logits, label, merge, jnp.asarray([1.0, 0.0]))
    # Three pixels count: 3 is found, 1 is missed, 0 is right.
    expected = {"foreground_fraction": 1 / 3, "true_foreground_fraction": 2 / 3, "pixel_accuracy": 2 / 3}
    assert {name: pytest.approx(float(share)) for name, share in shares.items()} == expected
    assert not any(float(share) for share in pixel_shares(logits, label, merge, jnp.zeros(2)).values())
