"""The risk-coverage curve and its area, by hand."""

import numpy as np
import pytest

from heartseg_jax.evaluation.risk_coverage import risk_at, risk_coverage, risk_coverage_curve

RISKS = np.array([0.1, 0.9, 0.2, 0.4])


def test_the_curve_by_hand():
    # By confidence: 0.2, 0.1, 0.9, 0.4.
    coverage, risk = risk_coverage_curve(RISKS, np.array([0.8, 0.5, 0.9, 0.1]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0.2, 0.15, 0.4, 0.4])
    assert risk_at(0.5, RISKS, np.array([0.8, 0.5, 0.9, 0.1])) == pytest.approx(0.15)
    assert risk_at(0.6, RISKS, np.array([0.8, 0.5, 0.9, 0.1])) == pytest.approx(0.4)
    assert risk_at(1.0, RISKS, np.array([0.8, 0.5, 0.9, 0.1])) == pytest.approx(0.4)


def test_the_area_beside_chance_and_the_oracle_by_hand():
    found = risk_coverage(RISKS, np.array([0.8, 0.5, 0.9, 0.1]))
    assert found.aurc == pytest.approx((0.2 + 0.15 + 0.4 + 0.4) / 4)
    assert found.random == pytest.approx(0.4)
    oracle = (0.1 + 0.15 + 0.7 / 3 + 0.4) / 4
    assert found.oracle == pytest.approx(oracle)
    assert found.gain == pytest.approx((0.4 - 0.2875) / (0.4 - oracle))


def test_the_best_order_gains_all_the_worst_less_than_nothing():
    assert risk_coverage(RISKS, -RISKS).gain == pytest.approx(1.0)
    worst = risk_coverage(RISKS, RISKS)
    assert worst.aurc == pytest.approx((0.9 + 0.65 + 0.5 + 0.4) / 4)
    assert worst.gain < 0


def test_a_constant_confidence_is_chance_whatever_the_order_of_the_cases():
    for risks in (RISKS, RISKS[::-1], np.sort(RISKS)):
        found = risk_coverage(risks, np.ones(4))
        assert found.aurc == pytest.approx(found.random)
        assert found.gain == pytest.approx(0.0)


def test_equals_are_the_mean_of_their_orders():
    # The two most confident cases have 0.1 and 0.9: 0.5 at first, whichever comes first.
    _, risk = risk_coverage_curve(RISKS, np.array([1.0, 1.0, 0.5, 0.2]))
    assert risk == pytest.approx([0.5, 0.5, 1.2 / 3, 0.4])


def test_chance_is_the_mean_over_all_orders():
    rng = np.random.default_rng(0)
    areas = [risk_coverage(RISKS, rng.permutation(4)).aurc for _ in range(4000)]
    assert np.mean(areas) == pytest.approx(0.4, abs=0.01)


def test_without_a_way_to_go_there_is_no_gain():
    assert risk_coverage(np.full(3, 0.3), np.arange(3)).gain is None
    single = risk_coverage(np.array([0.3]), np.array([0.5]))
    assert (single.aurc, single.random, single.oracle) == (0.3, 0.3, 0.3)


@pytest.mark.parametrize(
    ("risks", "confidences"),
    [([], []), ([0.1], [0.1, 0.2]), ([np.nan], [0.1]), ([0.1], [np.inf]), ([[0.1]], [[0.1]])],
)
def test_what_has_no_curve_is_refused(risks, confidences):
    with pytest.raises(ValueError, match="shape|finite"):
        risk_coverage(np.array(risks), np.array(confidences))
