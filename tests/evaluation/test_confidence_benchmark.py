"""The confidences that benchmarks/confidence.py compares, by hand."""

import math

import numpy as np
import pytest

from benchmarks.confidence import Case, _cases, _slice, compare, with_prior
from heartseg_jax.anatomy import HEART


def cases_of(truth, probabilities, shared=None, merge=HEART.all_known):
    found = _cases("x", [_slice(np.array(truth), np.array(probabilities), shared or {}, merge)], HEART, merge)
    return {case.structure: case for case in found}


def pixel(**shares):
    """Probabilities of one pixel: of the labels that are named, such as _3=0.5, the rest background."""
    values = np.zeros(9)
    for name, share in shares.items():
        values[int(name[1:])] = share
    values[0] += 1 - values.sum()
    return values


def test_confidences_by_hand():
    # Of four pixels three are predicted as 3, two of them rightly; the truth of the last is ignored.
    row = [pixel(_3=1.0), pixel(_3=0.6), pixel(_3=0.2), pixel(_3=0.8)]
    case = cases_of([[3, 0, 3, 255]], [row])["left_ventricle"]
    assert case.dice == pytest.approx(2 * 1 / (2 + 2))
    found = case.confidences
    assert found["max_probability"] == pytest.approx((1.0 + 0.6 + 0.8) / 3)
    assert found["soft_dice"] == pytest.approx(2 * 2.4 / (2.6 + 3))
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4) + 0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(9)
    assert found["entropy"] == pytest.approx(1 - entropy / 3)


def test_what_is_not_predicted_has_no_confidence_and_what_a_source_does_not_separate_is_left_out():
    shared = {"members": np.zeros((2, 2, 9), np.int64)}
    shared["members"][..., 4] = [[4, 1], [1, 2]]  # Dice of the two members' masks: 2 * 1 / (4 + 2)
    probabilities = [[pixel(), pixel(_4=0.9), pixel(_8=0.7)]]
    found = cases_of([[1, 4, 8]], probabilities, shared)
    assert set(found["ascending_aorta"].confidences.values()) == {0.0}
    assert found["ascending_aorta"].dice == 0.0
    assert found["right_atrium"].confidences["members"] == pytest.approx(1 / 3)
    assert set(found) == {"ascending_aorta", "right_atrium", "vena_cava"}
    assert set(cases_of([[1, 4, 4]], probabilities, shared, (0, 1, 2, 3, 4, 5, 6, 7, 4))) == {"ascending_aorta"}


def test_the_comparison_has_chance_the_oracle_and_the_structures_themselves():
    dice = {("a", "left_atrium"): 0.9, ("b", "left_atrium"): 0.7, ("a", "vena_cava"): 0.1, ("b", "vena_cava"): 0.3}
    cases = [Case(unit, structure, value, {"mine": value}) for (unit, structure), value in dice.items()]
    cases = with_prior(cases)
    assert [case.confidences["structure"] for case in cases] == pytest.approx([0.7, 0.9, 0.3, 0.1])
    rows = {row["confidence"]: row for row in compare(cases)}
    assert list(rows) == ["chance", "oracle", "mine", "structure"]
    assert rows["chance"]["aurc"] == pytest.approx(0.5)
    assert rows["mine"]["aurc"] == rows["oracle"]["aurc"]
    assert (rows["chance"]["gain"], rows["mine"]["gain"]) == pytest.approx((0.0, 1.0))
    # By structure: (0.3 + 0.2) / 2 in the atrium, (0.9 + 0.8) / 2 in the cava, the worse one first.
    assert rows["structure"]["aurc_within_structures"] == pytest.approx((0.25 + 0.85) / 2)
