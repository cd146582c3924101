import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.models import cost
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import NORMS, UNet


def extents_by_gradient(levels, rows):
    """How many rows of the input each of the output's `rows` depends on, with weights that cannot cancel."""
    model = UNet(width=1, levels=levels, num_classes=1)
    image = jnp.ones((1, 2 * rows[0], 2 ** (levels - 1), 1))
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    # All positive, so every ReLU is open; where a pooling's corners tie they share the gradient.
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), variables)
    outputs = jax.jit(jax.jacrev(lambda x: model.apply(variables, x, train=False)[0, jnp.asarray(rows), 0, 0]))
    return {int(np.count_nonzero(gradient[0].sum(axis=(1, 2)))) for gradient in np.asarray(outputs(image))}


def test_receptive_field_of_the_scratch_network_is_44_pixels_by_gradient_too():
    assert cost.receptive_field(levels=3) == 44
    assert extents_by_gradient(3, range(32, 36)) == {44}


def test_receptive_field_of_four_levels_is_the_largest_over_positions():
    assert cost.receptive_field(levels=4) == 100
    assert extents_by_gradient(4, range(64, 72)) == {92, 100}


def test_receptive_field_of_one_level_is_its_convolutions():
    assert cost.receptive_field(levels=1) == 5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("channels", "width", "levels", "classes"), [(3, 64, 3, 9), (1, 16, 4, 2), (3, 8, 1, 9)])
def test_parameter_count_is_the_real_tree_s(norm, channels, width, levels, classes):
    model = UNet(width=width, levels=levels, num_classes=classes, norm=norm)
    image = jnp.zeros((1, 16, 16, channels))
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    real = [
        sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables.get(group, {})))
        for group in ("params", "batch_stats")
    ]
    costs = cost.layer_costs(16, 16, cost.Shape(channels, width, levels, classes, norm))
    assert [sum(c.parameters for c in costs), sum(c.statistics for c in costs)] == real


@pytest.mark.parametrize(("norm", "fold"), [("none", 1), ("batch", 2), ("encoder", 1)])
def test_the_arrays_are_the_real_tree_s(norm, fold):
    model = UNet(width=4, levels=3, num_classes=9, norm=norm, fold=fold)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, 16, 16, 3)))
    real = [(path, leaf.shape) for path, leaf in named_leaves(variables).items()]
    assert list(cost.array_shapes(cost.Shape(3, 4, 3, 9, norm, fold)).items()) == real


def test_forward_flops_of_two_levels_by_hand():
    # 4x4 image of 1 channel, width 2. Multiply-adds a pixel: 9 * in * out; 1x1: in * out; 2x2 up: 4 * in * out a
    # coarse pixel.
    stage1 = 16 * (9 * 1 * 2 + 9 * 2 * 2)
    bottom = 4 * (9 * 2 * 4 + 9 * 4 * 4)
    up = 4 * (4 * 4 * 2)
    block = 16 * (9 * 4 * 2 + 9 * 2 * 2)
    head = 16 * 2 * 3
    assert cost.forward_flops(4, 4, cost.Shape(1, 2, 2, 3, "none")) == 2 * (stage1 + bottom + up + block + head)


def test_flops_of_a_step_by_hand():
    # The network of the test above. Nothing frozen: each layer three times, the first without its input's gradient.
    shape = cost.Shape(1, 2, 2, 3, "none")
    first, stage1 = 16 * 9 * 1 * 2, 16 * (9 * 1 * 2 + 9 * 2 * 2)
    bottom, up = 4 * (9 * 2 * 4 + 9 * 4 * 4), 4 * (4 * 4 * 2)
    rest = 16 * (9 * 4 * 2 + 9 * 2 * 2) + 16 * 2 * 3
    assert cost.step_flops(4, 4, shape) == 2 * (3 * (stage1 + bottom + up + rest) - first)
    # A frozen encoder has no gradient, and what stands on it needs none for its input.
    frozen = {"encoder/stage1", "encoder/stage2"}
    assert cost.step_flops(4, 4, shape, frozen) == 2 * (stage1 + bottom + 2 * up + 3 * rest)
    # Below stage 2 nothing learns; the kernel of its first convolution does.
    thawed = 4 * 9 * 2 * 4 * 2 + 4 * 9 * 4 * 4 * 3
    assert cost.step_flops(4, 4, shape, {"encoder/stage1"}) == 2 * (stage1 + thawed + 3 * (up + rest))
    assert cost.step_flops(4, 4, shape, {*frozen, "decoder"}) == 2 * (stage1 + bottom + up + rest + 16 * 2 * 3)


def test_flops_of_a_step_agree_with_the_compiler_s_count():
    model = UNet(width=8, levels=3, num_classes=9, dtype=jnp.bfloat16)  # of XLA's own convolutions, without loops
    image = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)["params"]
    gradient = jax.grad(lambda params, x: (model.apply({"params": params}, x, train=True) ** 2).sum())
    counted = jax.jit(gradient).lower(params, image).cost_analysis()["flops"]
    assert cost.step_flops(64, 64, cost.Shape(3, 8, 3, 9, "none")) == pytest.approx(counted, rel=0.15)


def test_forward_flops_agree_with_the_compiler_s_count():
    model = UNet(width=8, levels=3, num_classes=9)
    image = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    lowered = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, image)
    counted = lowered.compile().cost_analysis()["flops"]
    ours = cost.forward_flops(64, 64, cost.Shape(3, 8, 3, 9, "none"))
    # The compiler leaves out what falls on the padding and counts bias, ReLU and pooling.
    assert ours == pytest.approx(counted, rel=0.1)


def test_layers_are_named_as_the_tree_is():
    model = UNet(width=2, levels=2, num_classes=9, norm="batch")
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, 4, 4, 3)))
    modules = {path.rpartition("/")[0] for path in named_leaves(variables["params"])}
    assert {cost.path for cost in cost.layer_costs(4, 4, cost.Shape(3, 2, 2, 9, "batch"))} == modules


def test_step_memory_by_hand():
    # One level, 4x4x1, width 2, 3 classes: two convolutions leave 16 * 2 elements each.
    parameters = (9 * 1 * 2 + 2) + (9 * 2 * 2 + 2) + (2 * 3 + 3)
    expected = 4 * 4 * parameters + 5 * (2 * 32 * 2 + 16 * 1 * 2 + 3 * 16 * 3 * 4)
    assert cost.step_memory_bytes(5, 4, 4, cost.Shape(1, 2, 1, 3, "none"), "bfloat16") == expected


def test_memory_of_a_prediction_by_hand():
    # The network of the test above: one stage, whose output of 16 * 2 elements is counted as a skip.
    parameters = (9 * 1 * 2 + 2) + (9 * 2 * 2 + 2) + (2 * 3 + 3)
    expected = 4 * parameters + 5 * (2 * 32 + 4 * 16 * (1 + 2 * 3))
    assert cost.forward_memory_bytes(5, 4, 4, cost.Shape(1, 2, 1, 3, "none"), "bfloat16") == expected


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'group' is unknown"):
        cost.layer_costs(4, 4, cost.Shape(3, 64, 3, 9, "group"))
