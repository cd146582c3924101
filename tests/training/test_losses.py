import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from heartseg_jax.training.losses import merged_truth, segmentation_loss

IDENTITY = jnp.arange(9)
CAVA_IN_ATRIUM = IDENTITY.at[8].set(4)
NO_CAVA = IDENTITY.at[8].set(0)

loss_of = jax.jit(segmentation_loss)
gradient_of = jax.jit(jax.grad(lambda *args: segmentation_loss(*args)[0]))


def random_batch(batch=2, side=6, seed=0):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=(batch, side, side, 9)) * 2, jnp.float32)
    label = jnp.asarray(rng.integers(0, 9, (batch, side, side)), jnp.int32)
    return logits, label, jnp.tile(IDENTITY, (batch, 1)), jnp.ones(batch)


def logits_of(probabilities):
    """Logits [1, 1, N, 9] of rows of probabilities, given as {label: probability}; the rest shares a hair."""
    table = np.full((len(probabilities), 9), 1e-12)
    for row, given in zip(table, probabilities, strict=True):
        for label, probability in given.items():
            row[label] = probability
    return jnp.log(jnp.asarray(table, jnp.float32))[None, None]


def test_cross_entropy_is_optax_s_where_nothing_is_merged():
    logits, label, merge, mask = random_batch()
    _, parts = loss_of(logits, label, merge, mask)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    np.testing.assert_allclose(parts["cross_entropy"], expected, rtol=1e-6)


def test_cross_entropy_stays_finite_where_optax_s_does():
    logits = jnp.zeros((1, 1, 1, 9)).at[..., 3].set(1000.0)
    label = jnp.full((1, 1, 1), 2)
    batch = (logits, label, IDENTITY[None], jnp.ones(1))
    assert float(loss_of(*batch)[1]["cross_entropy"]) == 1000.0
    assert jnp.isfinite(gradient_of(*batch)).all()


def test_dice_by_hand():
    # Four pixels; truth 1, 1, 2, 0.
    logits = logits_of([{0: 0.2, 1: 0.8}, {0: 0.6, 1: 0.4}, {0: 0.5, 2: 0.5}, {0: 0.7, 1: 0.2, 2: 0.1}])
    label = jnp.asarray([[[1, 1, 2, 0]]])
    loss, parts = loss_of(logits, label, IDENTITY[None], jnp.ones(1))
    one = 2 * (0.8 + 0.4) / ((0.8 + 0.4 + 0.2) + 2)
    two = 2 * 0.5 / ((0.5 + 0.1) + 1)
    # Six other structures are absent and left out.
    np.testing.assert_allclose(parts["dice_loss"], 1 - (one + two) / 2, rtol=1e-5)
    cross_entropy = -np.log([0.8, 0.4, 0.5, 0.7]).mean()
    np.testing.assert_allclose(parts["cross_entropy"], cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(loss, parts["dice_loss"] + parts["cross_entropy"], rtol=1e-6)


def test_dice_sums_over_the_batch_not_by_image():
    logits = logits_of([{0: 0.1, 1: 0.9}, {0: 0.9, 1: 0.1}]).reshape(2, 1, 1, 9)
    label = jnp.asarray([1, 0]).reshape(2, 1, 1)
    _, parts = loss_of(logits, label, jnp.tile(IDENTITY, (2, 1)), jnp.ones(2))
    np.testing.assert_allclose(parts["dice_loss"], 1 - 2 * 0.9 / (0.9 + 0.1 + 1), rtol=1e-5)


def test_weights():
    batch = random_batch()
    _, parts = loss_of(*batch)
    loss, _ = segmentation_loss(*batch, dice_weight=0.5, cross_entropy_weight=3.0)
    np.testing.assert_allclose(loss, 0.5 * parts["dice_loss"] + 3.0 * parts["cross_entropy"], rtol=1e-6)


def test_merged_probabilities_are_summed_before_they_are_compared():
    # The cava counts as the right atrium: p4 + p8 = 0.7 at the first pixel and 0.3 at the second.
    logits = logits_of([{0: 0.3, 4: 0.5, 8: 0.2}, {0: 0.7, 4: 0.1, 8: 0.2}])
    label = jnp.asarray([[[4, 0]]])
    _, parts = loss_of(logits, label, CAVA_IN_ATRIUM[None], jnp.ones(1))
    np.testing.assert_allclose(parts["cross_entropy"], -np.log([0.7, 0.7]).mean(), rtol=1e-5)
    np.testing.assert_allclose(parts["dice_loss"], 1 - 2 * 0.7 / (0.7 + 0.3 + 1), rtol=1e-5)


def test_a_source_without_a_structure_adds_nothing_to_its_dice():
    # The first example knows no cava (it is background there); what it gives the channel is not a false positive.
    logits = logits_of([{0: 0.4, 8: 0.6}, {0: 0.2, 8: 0.8}]).reshape(2, 1, 1, 9)
    label = jnp.asarray([0, 8]).reshape(2, 1, 1)
    _, parts = loss_of(logits, label, jnp.stack([NO_CAVA, IDENTITY]), jnp.ones(2))
    np.testing.assert_allclose(parts["dice_loss"], 1 - 2 * 0.8 / (0.8 + 1), rtol=1e-5)
    np.testing.assert_allclose(parts["cross_entropy"], -np.log([1.0, 0.8]).mean(), rtol=1e-5)


@pytest.mark.parametrize(("merge", "channel", "into"), [(CAVA_IN_ATRIUM, 8, 4), (NO_CAVA, 8, 0)])
def test_merge_gives_no_gradient_between_a_structure_and_what_it_is_merged_into(merge, channel, into):
    """The promise of partial labels, worked out by hand.

    The loss depends on the logits z through q = p_channel + p_into and the other p alone. By the chain rule of the
    softmax, dL/dz_c = p_c (dL/dp_c - sum_k p_k dL/dp_k); dL/dp is the same for both channels, so dL/dz_c / p_c is
    too: a step along the gradient scales both alike and never moves mass from one to the other. And moving mass by
    hand leaves the loss where it was.
    """
    logits, label, _, mask = random_batch(seed=1)
    label = jnp.where(label == channel, into, label)
    merges = jnp.tile(merge, (2, 1))
    ratio = gradient_of(logits, label, merges, mask) / jax.nn.softmax(logits)
    np.testing.assert_allclose(ratio[..., channel], ratio[..., into], rtol=1e-3, atol=1e-4)
    assert float(jnp.abs(ratio[..., into]).max()) > 0.01, "equal because they are zero would prove nothing"
    # With everything known the two are distinguished.
    known = gradient_of(logits, label, jnp.tile(IDENTITY, (2, 1)), mask) / jax.nn.softmax(logits)
    assert float(jnp.abs(known[..., channel] - known[..., into]).max()) > 0.01

    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    moved = probabilities.copy()
    moved[..., into] += 0.5 * moved[..., channel]
    moved[..., channel] *= 0.5
    before = loss_of(jnp.log(probabilities), label, merges, mask)[0]
    after = loss_of(jnp.log(moved), label, merges, mask)[0]
    np.testing.assert_allclose(after, before, rtol=1e-6)
    unmerged = jnp.tile(IDENTITY, (2, 1))
    change = (
        loss_of(jnp.log(moved), label, unmerged, mask)[0] - loss_of(jnp.log(probabilities), label, unmerged, mask)[0]
    )
    assert abs(float(change)) > 1e-3


def test_a_pixel_where_all_that_is_known_is_background_teaches_nothing():
    nothing_known = jnp.zeros((1, 9), jnp.int32)
    logits, label, _, _ = random_batch(batch=1)
    gradient = gradient_of(logits, jnp.zeros_like(label), nothing_known, jnp.ones(1))
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_gradient_agrees_with_finite_differences():
    logits, label, _, mask = random_batch(side=2, seed=2)
    batch = (jnp.where(label == 8, 4, label), jnp.stack([CAVA_IN_ATRIUM, IDENTITY]), mask)
    gradient = gradient_of(logits, *batch)
    for channel in range(9):
        step = jnp.zeros_like(logits).at[0, 1, 0, channel].set(1e-2)
        slope = (loss_of(logits + step, *batch)[0] - loss_of(logits - step, *batch)[0]) / 2e-2
        np.testing.assert_allclose(gradient[0, 1, 0, channel], slope, atol=2e-4)


def test_label_255_gives_no_gradient_at_all_and_no_loss():
    logits, label, merge, mask = random_batch()
    ignored = label.at[:, 2:4].set(255)
    gradient = gradient_of(logits, ignored, merge, mask)
    assert (gradient[:, 2:4] == 0).all()
    assert (jnp.abs(gradient[:, :2]).sum(axis=-1) > 0).all()
    changed = logits.at[:, 2:4].set(7.0)
    assert loss_of(changed, ignored, merge, mask)[0] == loss_of(logits, ignored, merge, mask)[0]
    # The mean is over what is left, not over all pixels.
    kept = optax.softmax_cross_entropy_with_integer_labels(logits, label)[:, np.asarray([0, 1, 4, 5])].mean()
    np.testing.assert_allclose(loss_of(logits, ignored, merge, mask)[1]["cross_entropy"], kept, rtol=1e-6)


def test_masked_examples_give_no_gradient_and_no_loss():
    logits, label, merge, _ = random_batch()
    mask = jnp.asarray([1.0, 0.0])
    gradient = gradient_of(logits, label, merge, mask)
    assert (gradient[1] == 0).all()
    alone = loss_of(logits[:1], label[:1], merge[:1], jnp.ones(1))
    both = loss_of(logits, label, merge, mask)
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-6)


def test_without_foreground_the_dice_term_is_zero_and_gradients_are_finite():
    logits, label, merge, mask = random_batch()
    background = jnp.zeros_like(label)
    assert float(loss_of(logits, background, merge, mask)[1]["dice_loss"]) == 0
    assert jnp.isfinite(gradient_of(logits, background, merge, mask)).all()


def test_a_batch_in_which_nothing_counts_has_loss_and_gradient_zero():
    logits, label, merge, mask = random_batch()
    for batch in ((label, merge, mask * 0), (jnp.full_like(label, 255), merge, mask)):
        assert float(loss_of(logits, *batch)[0]) == 0
        assert (gradient_of(logits, *batch) == 0).all()


def test_bfloat16_logits_are_summed_in_float32():
    logits, label, merge, mask = random_batch()
    loss, _ = loss_of(logits.astype(jnp.bfloat16), label, merge, mask)
    assert loss.dtype == jnp.float32


def test_merged_truth():
    label = jnp.asarray([[[0, 4, 8, 255]], [[8, 8, 1, 255]]])
    merge = jnp.stack([CAVA_IN_ATRIUM, NO_CAVA])
    target, valid = merged_truth(label, merge, jnp.asarray([1.0, 0.0]))
    assert target.tolist() == [[[0, 4, 4, 0]], [[0, 0, 1, 0]]]
    assert valid.tolist() == [[[True, True, True, False]], [[False] * 4]]
