"""Pixels folded into channels: the inverse, the shapes, and a network that draws every pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.models import cost
from heartseg_jax.models.unet import UNet, fold_pixels, unfold_pixels


def test_a_square_becomes_the_channels_of_one_pixel_row_by_row():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    folded = fold_pixels(image, 2)
    assert folded.shape == (1, 2, 2, 4)
    np.testing.assert_array_equal(folded[0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(unfold_pixels(folded, 2), image)


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_a_folded_network_draws_the_size_that_it_reads(fold):
    model = UNet(4, 2, 9, norm="batch", fold=fold)
    image = jnp.ones((2, 16, 16, 3))
    variables = model.init(jax.random.key(0), image, train=False)
    assert variables["params"]["encoder"]["stage1"]["conv1"]["kernel"].shape == (3, 3, 3 * fold**2, 4)
    assert model.apply(variables, image, train=False).shape == (2, 16, 16, 9)
    shape = cost.Shape(3, 4, 2, 9, "batch", fold)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert sum(layer.parameters for layer in cost.layer_costs(16, 16, shape)) == numbers


def test_folding_costs_a_quarter_beside_its_first_and_last_layer():
    plain, folded = cost.Shape(1, 16, 5, 9, "batch"), cost.Shape(1, 16, 5, 9, "batch", 2)
    inner = {
        shape: {c.path: c.flops for c in cost.layer_costs(160, 160, shape)}["encoder/stage2/conv2"]
        for shape in (plain, folded)
    }
    assert inner[plain] == 4 * inner[folded]
    assert cost.receptive_field(5, 2) == 2 * cost.receptive_field(5)


def test_a_size_that_does_not_fold_is_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        UNet(4, 2, 9, fold=2).init(jax.random.key(0), jnp.ones((1, 18, 18, 1)), train=False)
