"""Blood that is not of one brightness: what changes, what stays as it was, and between which values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.imaging import tissues
from heartseg_jax.preprocess.flow import dissected, smooth_fields, unmixed
from heartseg_jax.preprocess.synthesis import synthesise

POOL = tissues.FIRST_POOL
ASCENDING, LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE = POOL + 1, POOL + 3, POOL + 4, POOL + 5
BLOOD_HU = 200.0


@pytest.fixture(scope="module")
def codes():
    """[40, 48, 48]: fat, and in each quarter of the slice one pool of blood."""
    found = np.full((40, 48, 48), tissues.FAT, np.int32)
    found[:, 2:22, 2:22] = ASCENDING
    found[:, 2:22, 26:46] = LEFT_VENTRICLE
    found[:, 26:46, 2:22] = RIGHT_ATRIUM
    found[:, 26:46, 26:46] = RIGHT_VENTRICLE
    return found


def changed(function, codes, probability=1.0, seed=0):
    image = jnp.full(codes.shape, BLOOD_HU, jnp.float32)
    return np.asarray(function(jax.random.key(seed), image, image, jnp.asarray(codes), probability))


def test_streams_lie_between_plain_blood_and_the_inflow_and_only_in_the_right_heart(codes):
    image = changed(unmixed, codes)
    for code in (tissues.FAT, ASCENDING, LEFT_VENTRICLE):
        np.testing.assert_array_equal(image[codes == code], BLOOD_HU)
    atrium = image[codes == RIGHT_ATRIUM]
    assert atrium.min() >= 40
    assert atrium.max() <= BLOOD_HU + 400
    assert atrium.std() > 60  # a CT angiography measured 227 in its right atrium
    # In the ventricle half of it has been mixed: no pixel is farther from the mean than half of the atrium's range.
    ventricle = image[codes == RIGHT_VENTRICLE]
    assert ventricle.min() >= (BLOOD_HU + 40) / 2
    assert ventricle.max() <= BLOOD_HU + 200


def test_a_dissection_has_two_lumina_and_a_flap_and_leaves_the_heart(codes):
    image = changed(dissected, codes)
    for code in (tissues.FAT, LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE):
        np.testing.assert_array_equal(image[codes == code], BLOOD_HU)
    divided = 0
    for slice_hu, here in zip(image, codes == ASCENDING, strict=True):
        values = np.unique(slice_hu[here].round(3))
        assert len(values) <= 3  # the true lumen, the false one, and the flap
        assert set(values[values != 40].tolist()) <= {BLOOD_HU, *values[(values > 40) & (values < BLOOD_HU)].tolist()}
        divided += len(values) == 3
    assert divided > 10  # of 40; in the others the whole vessel lies in one lumen


@pytest.mark.parametrize("function", [unmixed, dissected])
def test_the_probability_is_the_share_of_changed_images(function, codes):
    many = np.tile(codes[:, ::4, ::4], (20, 1, 1))
    image = changed(function, many, probability=0.25)
    share = (image != BLOOD_HU).any(axis=(1, 2)).mean()
    # 800 draws: three standard errors are 0.046. A vessel in the true lumen alone is a dissection that does not show.
    assert (0.0 if function is dissected else 0.25 - 0.046) < share < 0.25 + 0.046


def test_without_them_an_image_is_what_it_was(codes):
    plain = np.asarray(synthesise(jax.random.key(4), jnp.asarray(codes[:4])))
    both = np.asarray(synthesise(jax.random.key(4), jnp.asarray(codes[:4]), 1.0, 1.0))
    assert np.abs(both - plain).max() > 0.1
    rarely = np.asarray(synthesise(jax.random.key(4), jnp.asarray(codes[:4]), 1e-9, 1e-9))
    np.testing.assert_allclose(rarely, plain, atol=1e-6)  # nothing else is drawn differently


def test_a_field_has_unit_variance_at_its_nodes_and_is_smooth_between_them():
    (field,) = np.asarray(smooth_fields(jax.random.key(0), 400, 17, (5,)))
    nodes = field[:, ::4, ::4]
    assert abs(nodes.std() - 1) < 0.03  # 10,000 draws
    np.testing.assert_allclose(field[:, 0, 2], (field[:, 0, 0] + field[:, 0, 4]) / 2, atol=1e-5)
