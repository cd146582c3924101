"""Which part of a name is the patient: doubts, on pictures that are made from nothing."""

import numpy as np
import pytest
from scipy import ndimage

from heartseg_jax.data.sources.grouping import alike_names, by_prefix, doubts, grouped, volume_doubts
from heartseg_jax.errors import UserError


def thumbnails(patients, slices):
    """Smooth noise of each patient's own that changes slowly from slice to slice: {(patient, slice): [32, 32]}."""
    found = {}
    for p in range(patients):
        noise = ndimage.gaussian_filter(np.random.default_rng(p).normal(size=(slices + 8, 32, 32)), (4, 3, 3))
        found |= {(p, k): noise[k + 4].ravel() * 1000 for k in range(slices)}
    return found


def doubts_of(pattern, patients=6, slices=8):
    pictures = thumbnails(patients, slices)
    names = {pattern(p, k): pictures[p, k] for p, k in pictures}
    return doubts(grouped(by_prefix(list(names))), names.__getitem__)


@pytest.mark.parametrize(
    "pattern",
    [
        lambda p, k: f"IM{k:05d}_patient{p + 1}",
        lambda p, k: f"{k:05d}_{p + 1}",
        lambda p, k: f"{k:03d}_{'abcdef'[p]}",
        lambda p, k: f"patient{p + 1}-{k:02d}_CT",
        lambda p, k: f"site{'A' if p < 3 else 'B'}_patient{p + 1}_{k:02d}",
        lambda p, k: f"{'A' if p < 3 else 'B'}_{p + 1}_{k:02d}",
        lambda p, k: f"heart_{1001 + p}_{k:02d}",
        lambda p, k: f"CT_{k}_{1001 + p}",
    ],
)
def test_a_grouping_that_parts_patients_or_joins_them_is_doubted(pattern):
    (warning,) = doubts_of(pattern)
    assert "--patients" in warning


@pytest.mark.parametrize(
    "pattern",
    [
        lambda p, k: f"{1001 + p}_{k:02d}",
        lambda p, k: f"p{p}_slice{k}",
        lambda p, k: f"Meier{'abcdef'[p]}_CT_{k:04d}",
        lambda p, k: f"{p + 1}_{7 * p + 3 * k}",
    ],
)
def test_a_patient_before_the_first_underscore_is_not_doubted(pattern):
    assert doubts_of(pattern) == []


def test_one_patient_alone_is_not_doubted():
    assert doubts_of(lambda p, k: f"A_{k}", patients=1) == []


def test_names_that_differ_by_case_blanks_or_zeros():
    called = {"p1": "a", "P1": "b", "01001": "c", "1001": "d", "x y": "e", "xy": "f", "10": "g", "1": "h", "p_01": "i"}
    assert [text.split(" have")[0] for text in alike_names(called)] == ["a and b and i", "c and d", "e and f"]
    assert alike_names({"1001": "a", "1002": "b", "100": "c", "10": "d"}) == []


@pytest.mark.parametrize(
    ("names", "doubted"),
    [
        (("1001_pre", "1001_post", "1002_pre", "1002_post"), True),
        (("p1_1", "p1_2", "p2_1"), True),
        (("case_001", "case_002", "case_003"), False),
        (("ct_train_1001", "ct_train_1002"), False),
        (("a1", "a2", "a3"), False),
        (tuple(f"2020_{k:03d}" for k in range(9)) + tuple(f"2021_{k:03d}" for k in range(9)), False),
    ],
)
def test_volumes_that_share_all_but_the_last_part_of_their_names(names, doubted):
    assert bool(volume_doubts(dict(zip(names, names, strict=True)))) is doubted


def test_a_name_without_a_patient_is_refused():
    with pytest.raises(UserError, match="0001 .*--patients"):
        by_prefix(["1_2", "0001"])
