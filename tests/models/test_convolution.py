"""The convolution in the form that a CPU computes fastest: XLA's own numbers, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.models import convolution


def plain(image, kernel):
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=convolution.LAYOUT)


@pytest.mark.parametrize(
    "shape", [(2, 6, 5, 3, 4), (1, 1, 1, 2, 2), (3, 8, 8, 1, 5), (1, 2, 3, 5, 16), (2, 1, 2, 3, 8)]
)
def test_value_and_both_gradients_are_those_of_xla(shape):
    batch, height, width, inside, outside = shape
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], (batch, height, width, inside))
    kernel = jax.random.normal(keys[1], (3, 3, inside, outside))
    change = jax.random.normal(keys[2], (batch, height, width, outside))
    ours, back = jax.vjp(lambda i, k: convolution.conv_general_dilated(i, k, (1, 1), "SAME"), image, kernel)
    theirs, expected = jax.vjp(plain, image, kernel)
    if not convolution._is_deep(image, kernel):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, right in zip(back(change), expected(change), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5)


def test_a_tap_is_the_sum_over_pixels_by_hand():
    image = jnp.zeros((1, 3, 3, 1)).at[0, 0, 1, 0].set(2.0)
    change = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(5.0)
    # The output at (1, 1) sees the image at (0, 1) through the tap above its middle.
    gradient = convolution._kernel_gradient(image, change)[:, :, 0, 0]
    np.testing.assert_array_equal(gradient, [[0, 10, 0], [0, 0, 0], [0, 0, 0]])


def test_a_layer_is_deep_where_its_kernel_is_twice_the_taps():
    image = jnp.zeros((2, 2, 2, 3))
    assert convolution._is_deep(image, jnp.zeros((3, 3, 3, 16)))
    assert not convolution._is_deep(image, jnp.zeros((3, 3, 3, 15)))


def test_other_kernels_and_dtypes_keep_xlas_way():
    for kernel, dtype in (((1, 1), jnp.float32), ((3, 3), jnp.bfloat16)):
        image, weights = jnp.ones((1, 4, 4, 2), dtype), jnp.ones((*kernel, 2, 2), dtype)
        found = convolution.conv_general_dilated(image, weights, (1, 1), "SAME", dimension_numbers=convolution.LAYOUT)
        assert found.dtype == dtype
