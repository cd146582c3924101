"""Contacts of blocks: area and gap by hand, and the reasons where there is none."""

import numpy as np
import pytest

from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.contact import NoContact, find_contact, indices_of, places_of

OBLIQUE = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]


def blocks(gap=0, spacing=(1.0, 1.0, 1.0), direction=None, wide=24):
    """Two blocks of 24 x 24 mm one above the other, the lower as deep as 20 mm; `gap` slices between them."""
    labels = np.zeros((60, 44, 44), np.uint8)
    labels[10:20, 10 : 10 + wide, 10:34] = 2
    labels[20 + gap : 40 + gap, 10:34, 10:34] = 3
    return Volume(labels, spacing, (5.0, -7.0, 3.0), direction)


@pytest.mark.parametrize("direction", [None, OBLIQUE])
def test_touching_blocks(direction):
    volume = blocks(direction=direction)
    found = find_contact(volume, volume.voxels, (2, 3))
    assert found.gap_mm == pytest.approx(0, abs=0.1)
    assert found.area_cm2 == pytest.approx(24 * 24 / 100, rel=0.1)
    expected = places_of(volume, np.array([[19.5, 21.5, 21.5]]))[0]
    np.testing.assert_allclose(found.centre, expected, atol=0.3)
    assert found.normal @ volume.direction[:, 0] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(indices_of(volume, expected), [19.5, 21.5, 21.5])


def test_a_gap_is_measured_between_surfaces_not_voxels():
    volume = blocks(gap=4, spacing=(0.5, 1.0, 1.0))
    assert find_contact(volume, volume.voxels, (2, 3)).gap_mm == pytest.approx(2.0, abs=0.25)


@pytest.mark.parametrize("gap", [6, 30])
def test_blocks_apart(gap):
    volume = blocks()
    volume.voxels[10:20] = 0
    volume.voxels[max(20 - gap - 5, 0) : 20 - gap if gap < 20 else 2, 10:34, 10:34] = 2
    with pytest.raises(NoContact):
        find_contact(volume, volume.voxels, (2, 3))


def test_a_contact_of_three_voxels_is_too_small():
    volume = blocks()
    volume.voxels[10:20] = 0
    volume.voxels[19, 20, 20:23] = 2
    with pytest.raises(NoContact, match="cm2"):
        find_contact(volume, volume.voxels, (2, 3))
