from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import NORMS, Head, UNet, UpConv, he_normal, max_pool_2x2, scaled_normal


def shapes(model, side=16, channels=3):
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def weights(model, image):
    """Weights of the right shapes from numpy: compiling JAX's initialisers would take most of the tests' time."""
    rng = np.random.default_rng(0)
    tree = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    draw = lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)  # noqa: E731
    statistics = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), tree.get("batch_stats", {}))
    return {"params": jax.tree.map(draw, tree["params"]), "batch_stats": statistics}


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_scratch_network_has_the_parameters_worked_out_by_hand():
    encoder = (
        (9 * 3 * 64 + 64) + (9 * 64 * 64 + 64)  # stage 1: 1,792 + 36,928
        + (9 * 64 * 128 + 128) + (9 * 128 * 128 + 128)  # stage 2: 73,856 + 147,584
        + (9 * 128 * 256 + 256) + (9 * 256 * 256 + 256)  # bottom: 295,168 + 590,080
    )  # fmt: skip
    decoder = (
        (4 * 256 * 128 + 128) + (9 * 256 * 128 + 128) + (9 * 128 * 128 + 128)  # 131,200 + 295,040 + 147,584
        + (4 * 128 * 64 + 64) + (9 * 128 * 64 + 64) + (9 * 64 * 64 + 64)  # 32,832 + 73,792 + 36,928
    )  # fmt: skip
    head = 64 * 9 + 9
    assert (encoder, decoder, head) == (1_145_408, 717_376, 585)
    assert count(shapes(UNet(width=64, levels=3, num_classes=9))["params"]) == encoder + decoder + head == 1_863_369


def test_with_norm_in_the_encoder_and_eight_channels_it_is_the_transfer_network_of_the_original():
    variables = shapes(UNet(width=64, levels=5, num_classes=8, norm="encoder"))
    assert count(variables) == 31_048_072
    assert count(variables["params"]) == 31_040_136
    assert count(variables["batch_stats"]) == 7_936


def test_the_tree_has_the_groups_that_freezing_goes_by():
    params = shapes(UNet(width=4, levels=3, num_classes=9, norm="batch"))["params"]
    assert set(params) == {"encoder", "decoder", "head"}
    assert set(params["encoder"]) == {"stage1", "stage2", "stage3"}
    assert set(params["decoder"]) == {"stage1", "stage2"}
    paths = named_leaves(params)
    assert paths["encoder/stage2/conv1/kernel"].shape == (3, 3, 4, 8)
    assert paths["encoder/stage2/conv1/bias"].shape == (8,)
    assert paths["encoder/stage2/norm1/scale"].shape == (8,)
    assert paths["decoder/stage1/up/kernel"].shape == (2, 2, 4, 8)
    assert paths["decoder/stage1/block/conv1/kernel"].shape == (3, 3, 8, 4)
    assert paths["head/kernel"].shape == (1, 1, 4, 9)


@pytest.mark.parametrize("norm", NORMS)
def test_logits_have_the_image_s_size(norm):
    model = UNet(width=4, levels=3, num_classes=9, norm=norm)
    image = jax.ShapeDtypeStruct((2, 16, 24, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), image)
    assert logits.shape == (2, 16, 24, 9)
    assert logits.dtype == jnp.float32


def test_initial_kernels_are_those_of_flax_s_initialisers():
    key = jax.random.key(3)
    shape = (3, 3, 5, 4)
    np.testing.assert_allclose(he_normal(key, shape), nn.initializers.he_normal()(key, shape), rtol=1e-6)
    up = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=(0, 1))
    ours = scaled_normal(lambda shape: 1 / shape[-1])
    np.testing.assert_allclose(ours(key, (2, 2, 4, 5)), up(key, (2, 2, 4, 5)), rtol=1e-6)


def test_logits_start_with_unit_variance():
    # Started near 0, the network learns "all background" first and stays there for long.
    logits, _ = jax.jit(lambda x: Head(9).init_with_output(jax.random.key(0), x))(normal(0, 4, 16, 16, 64))
    assert float(logits.std()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("size", [(18, 16), (16, 18)])
def test_a_size_that_cannot_be_halved_often_enough_is_refused(size):
    with pytest.raises(ValueError, match=r"divisible by 4, got 1[68]x1[68]"):
        jax.eval_shape(
            lambda x: UNet(width=64, levels=3, num_classes=9).init(jax.random.key(0), x, train=False),
            jnp.zeros((1, *size, 3)),
        )


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'group' is unknown"):
        shapes(UNet(width=64, levels=3, num_classes=9, norm="group"))


def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32():
    model = UNet(width=4, levels=2, num_classes=9, norm="batch", dtype=jnp.bfloat16)
    image = normal(0, 2, 8, 8, 3)
    variables = weights(model, image)
    logits, state = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True),
        variables,
        image,
    )
    assert logits.dtype == jnp.float32
    stored = {
        **named_leaves(variables["params"]),
        **named_leaves(variables["batch_stats"]),
        **named_leaves(state["batch_stats"]),
    }
    assert {leaf.dtype for leaf in stored.values()} == {jnp.dtype("float32")}
    encoder = state["intermediates"]["encoder"]["stage1"]
    assert encoder["conv1"]["__call__"][0].dtype == jnp.bfloat16
    assert encoder["norm1"]["__call__"][0].dtype == jnp.bfloat16


def test_head_in_float32_does_not_round_logits_to_bfloat16():
    head = Head(2)
    variables = {"params": {"kernel": jnp.ones((1, 1, 2, 2)), "bias": jnp.zeros(2)}}
    logits = head.apply(variables, jnp.full((1, 1, 1, 2), 1.0, jnp.bfloat16) * jnp.asarray([256, 1], jnp.bfloat16))
    assert logits[0, 0, 0].tolist() == [257.0, 257.0], "257 is not a bfloat16"


def test_batch_norm_keeps_the_share_of_the_old_statistics_it_is_told():
    model = UNet(width=4, levels=1, num_classes=9, norm="batch", batch_norm_momentum=0.75)
    image = normal(0, 2, 8, 8, 3)
    variables = weights(model, image)
    _, state = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))(variables, image)
    conv = variables["params"]["encoder"]["stage1"]["conv1"]
    out = nn.Conv(4, (3, 3)).apply({"params": conv}, image)
    mean = state["batch_stats"]["encoder"]["stage1"]["norm1"]["mean"]
    # The statistics start at 1 here.
    np.testing.assert_allclose(mean, 0.75 + 0.25 * out.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_dropout_is_in_the_decoder_alone_and_only_when_training():
    image = normal(0, 1, 8, 8, 3)
    model = UNet(width=4, levels=2, num_classes=9, dropout=0.5)
    variables = weights(model, image)

    @partial(jax.jit, static_argnames="train")
    def run(train, seed):
        return model.apply(variables, image, train=train, rngs={"dropout": jax.random.key(seed)})

    assert not np.array_equal(run(train=True, seed=0), run(train=True, seed=1))
    np.testing.assert_array_equal(run(train=True, seed=0), run(train=True, seed=0))
    without = jax.jit(partial(UNet(width=4, levels=2, num_classes=9).apply, train=False))
    np.testing.assert_allclose(run(train=False, seed=0), without(variables, image), atol=1e-5)
    without_decoder = UNet(width=4, levels=1, num_classes=9, dropout=0.5)
    variables = weights(without_decoder, image)
    jax.eval_shape(
        partial(without_decoder.apply, train=True), variables, image
    )  # needs no rng: there is nothing to drop


def test_upconv_equals_linen_s_transposed_convolution_with_the_kernel_flipped_and_swapped():
    x, kernel, bias = normal(0, 2, 4, 6, 5), normal(1, 2, 2, 3, 5), normal(2, 3)
    ours = UpConv(3).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    linen = nn.ConvTranspose(3, (2, 2), strides=(2, 2), padding="VALID")
    np.testing.assert_allclose(ours, linen.apply({"params": {"kernel": flipped, "bias": bias}}, x), atol=1e-5)
    lax = jax.lax.conv_transpose(x, kernel, (2, 2), "VALID", transpose_kernel=True)
    np.testing.assert_allclose(ours, lax + bias, atol=1e-5)


def test_pooling_equals_linen_s_and_ties_share_the_gradient():
    x = normal(0, 2, 8, 6, 3)
    np.testing.assert_array_equal(max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2)))
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.zeros((1, 2, 2, 1)))
    assert gradient.ravel().tolist() == [0.25] * 4
    unique = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.asarray([[1.0, 4.0], [3.0, 2.0]]).reshape(1, 2, 2, 1))
    assert unique.ravel().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_the_skip_comes_after_the_upsampled():
    model = UNet(width=2, levels=2, num_classes=9)
    image = normal(0, 1, 4, 4, 3)
    variables = weights(model, image)
    look = partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, state = jax.jit(look)(variables, image)
    seen = state["intermediates"]
    upsampled = seen["decoder"]["stage1"]["up"]["__call__"][0]
    skip = seen["encoder"]["stage1"]["__call__"][0]
    conv = variables["params"]["decoder"]["stage1"]["block"]["conv1"]
    by_hand = nn.Conv(2, (3, 3)).apply({"params": conv}, jnp.concatenate([upsampled, skip], -1))
    found = seen["decoder"]["stage1"]["block"]["conv1"]["__call__"][0]  # the ReLU included, without BatchNorm
    np.testing.assert_allclose(found, nn.relu(by_hand), atol=1e-6)
