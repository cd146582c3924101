"""Slips, mirrored patients and labels beside their image, on phantoms and on labels made by hand."""

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.audit.label_shapes import Island, islands, on_air, orientation_warnings
from heartseg_jax.imaging.phantom.generator import PhantomSpec, describe, generate

SPEC = PhantomSpec((24, 64, 56), (7.0, 4.0, 5.0))


@pytest.fixture(scope="module", params=[0, 1, next(k for k in range(99) if describe(3, k)["right_arch"])])
def labels(request):
    return generate(3, request.param, SPEC).labels


@pytest.mark.parametrize(
    ("turn", "check"),
    [
        (lambda a: a, None),
        (lambda a: a[:, :, ::-1], "mirrored"),
        (lambda a: a[:, ::-1], "upside_down"),
        (lambda a: a[:, ::-1, ::-1], "turned"),
        (lambda a: a[::-1], "reversed_slices"),
    ],
)
def test_which_way_a_patient_lies(labels, turn, check):
    found = orientation_warnings(turn(labels), contiguous=True)
    assert [finding.check for finding in found] == ([check] if check else [])
    assert all(finding.level == "warn" for finding in found)


def test_scattered_slices_have_no_order(labels):
    assert orientation_warnings(labels[::-1], contiguous=False) == []


def test_nothing_is_said_where_nothing_is_clear():
    labels = np.zeros((3, 50, 50), np.uint8)
    assert orientation_warnings(labels, True) == []
    labels[:, 10:20, 10:20], labels[:, 30:40, 10:20] = 3, 4
    assert orientation_warnings(labels, True) == []


def test_islands_by_hand():
    labels = np.zeros((5, 60, 60), np.uint8)
    labels[:, 10:40, 10:40] = 3
    labels[2, 50:52, 50:53] = 3
    labels[3, 5, 5] = 3
    labels[2, 20:24, 20:24] = 4  # the only one of its kind, however small
    assert islands(labels, HEART, contiguous=True) == [Island(3, 3, 5, 5, 1), Island(3, 2, 50, 50, 6)]
    # Slice by slice the share is that of one slice: 6 of 900 pixels.
    assert islands(labels, HEART, contiguous=False) == [Island(3, 3, 5, 5, 1), Island(3, 2, 50, 50, 6)]


def test_what_is_large_or_leaves_the_volume_is_no_slip():
    labels = np.zeros((5, 60, 60), np.uint8)
    labels[:, 10:40, 10:40] = 3
    labels[2, 50:54, 50:54] = 3  # 16 pixels
    labels[0, 50, 5] = labels[4, 50, 5] = 3  # may be the tip of something
    assert islands(labels, HEART, contiguous=True) == []
    assert [island.slice for island in islands(labels, HEART, contiguous=False)] == [0, 4]


def test_labels_on_air():
    images = np.full((2, 10, 10), -900, np.int16)
    labels = np.zeros((2, 10, 10), np.uint8)
    images[:, :5], labels[:, :5, :5], labels[:, 5:, 5:] = 200, 2, 7
    labels[:, 3:6, 8] = 5  # two thirds lie on the image
    assert on_air(images, labels, HEART) == ["pulmonary_artery"]
