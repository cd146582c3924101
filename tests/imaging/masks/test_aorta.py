"""The aorta's halves against those of phantoms: whole, cropped, with an arch to the right, and undecided ones."""

import numpy as np
import pytest

from heartseg_jax.imaging.masks.aorta import divide_aorta
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.phantom.generator import PhantomSpec, describe, generate

SPACING = (2.5, 2.0, 2.0)
SPEC = PhantomSpec((90, 110, 110), SPACING)
RIGHT = next(k for k in range(99) if describe(3, k)["right_arch"])


@pytest.fixture(scope="module", params=[0, 4, RIGHT], ids=["", "steep", "right arch"])
def labels(request):
    labels = generate(3, request.param, SPEC).labels
    return np.where((labels == 1) | (labels == 6), labels, 0)


def agreement(labels, spacing=SPACING):
    divided = divide_aorta(labels > 0, spacing)
    assert divided.reason == ""
    assert not divided.ascending[labels == 0].any()
    return float((divided.ascending == (labels == 1))[labels > 0].mean())


def top(labels):
    return int(np.flatnonzero(labels.any(axis=(1, 2)))[-1])


def test_a_whole_aorta_is_divided_at_the_middle_of_its_arch(labels):
    assert agreement(labels) > 0.95


def test_two_limbs_without_their_arch(labels):
    """Most cardiac scans end below the arch: the limbs are the parts exactly."""
    below = labels[: top(labels) - 12]
    assert agreement(below) == 1.0


def test_an_arch_with_the_beginnings_of_its_limbs(labels):
    assert agreement(labels[top(labels) - 24 :]) > 0.9


def test_a_coarse_and_a_fine_grid(labels):
    assert agreement(labels[::2], (5.0, 2.0, 2.0)) > 0.94
    fine = labels[top(labels) - 30 :].repeat(2, axis=1).repeat(2, axis=2)
    assert agreement(fine, (2.5, 1.0, 1.0)) > 0.9


def test_specks_go_where_their_neighbours_go(labels):
    aorta = labels > 0
    for value in (1, 6):
        places = np.argwhere(labels == value)
        z, _, x = (int(v) for v in places[len(places) // 4])
        rows = np.flatnonzero(labels[z, :, x] == value)
        assert rows.size
        aorta[z, rows[0] - 3, x] = True
        divided = divide_aorta(aorta, SPACING).ascending
        assert divided[z, rows[0] - 3, x] == (value == 1)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (lambda labels: labels == 1, "only one limb"),
        (lambda labels: labels == 6, "only one limb"),
        (lambda labels: (labels > 0) & (np.arange(len(labels)) > top(labels) - 9)[:, None, None], "limb"),
        (lambda labels: labels > 9, "there is no aorta"),
    ],
    ids=["ascending alone", "descending alone", "the arch alone", "none"],
)
def test_what_cannot_be_decided_stays_whole(labels, part, reason):
    divided = divide_aorta(part(labels), SPACING)
    assert divided.ascending is None
    assert reason in divided.reason


def test_two_tubes_side_by_side_are_not_told_apart():
    tubes = np.zeros((30, 40, 60), bool)
    tubes[:, 10:20, 5:15] = tubes[:, 10:20, 40:50] = True
    assert "clearly in front" in divide_aorta(tubes, SPACING).reason
    tubes = np.zeros((30, 60, 60), bool)
    tubes[:, 5:15, 5:15] = tubes[:, 40:50, 40:50] = True
    assert (divide_aorta(tubes, SPACING).ascending == (tubes & (np.arange(60) < 30)[:, None])).all()


def test_three_tubes_are_not_decided():
    tubes = np.zeros((30, 60, 60), bool)
    tubes[:, 5:15, 5:15] = tubes[:, 25:35, 25:35] = tubes[:, 45:55, 45:55] = True
    assert "3 limbs" in divide_aorta(tubes, SPACING).reason


def test_a_real_aorta_that_ends_before_its_arch_is_one_limb(shared):
    volume, _ = patient_axial(read_labels(shared / "data" / "whole_heart_labels" / "wh.nii.gz"))
    assert "only one limb" in divide_aorta(volume.voxels == 6, volume.spacing_mm).reason
