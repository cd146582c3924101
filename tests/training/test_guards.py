"""The guards: what each sees, and what it says."""

import math

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.errors import GuardStop
from heartseg_jax.findings import apply_policy
from heartseg_jax.training import guards

STOP = {"labels": "stop", "images": "stop", "missing_labels": "stop", "collapse": "stop", "non_finite": "stop"}


def counts(*labels: int) -> np.ndarray:
    row = np.zeros((1, 10), np.int64)
    row[0, [0, *labels]] = 100
    return row


def test_label_values_out_of_range_are_named_with_their_number():
    [finding] = guards.check_labels("patient x", np.array([0, 9, 9, -1, 255, 8]), HEART)
    assert "-1 (1 pixel), 9 (2 pixels)" in finding.seen
    assert guards.check_labels("patient x", np.array([0, 8, 255]), HEART) == []


def test_constant_images_are_found_but_one_empty_slice_is_not():
    [finding] = guards.check_images("patient x", np.zeros((4, 8, 8), np.int16), "HU")
    assert "4 of 4 slices" in finding.seen
    images = np.random.default_rng(0).integers(-1000, 500, (4, 8, 8)).astype(np.int16)
    images[0] = -1000
    assert guards.check_images("patient x", images, "HU") == []


def test_values_that_cannot_be_hu_are_found():
    raw = np.random.default_rng(0).integers(0, 4095, (4, 8, 8)).astype(np.int16)
    [finding] = guards.check_images("patient x", raw, "HU")
    assert "RescaleIntercept" in finding.cause
    assert guards.check_images("patient x", (raw % 256).astype(np.uint8), "uint8") == []


def test_a_structure_that_no_training_slice_holds_is_named():
    assert guards.check_known_structures(counts(*range(1, 9)), [HEART.all_known], HEART) == []
    [finding] = guards.check_known_structures(counts(1, 2, 3, 4, 5, 6, 7), [HEART.all_known], HEART)
    assert "vena_cava" in finding.seen
    without_cava = (0, 1, 2, 3, 4, 5, 6, 7, 4)
    assert guards.check_known_structures(counts(1, 2, 3, 4, 5, 6, 7), [without_cava], HEART) == []
    [finding] = guards.check_known_structures(counts(), [HEART.all_known], HEART)
    assert "every label is background" in finding.seen


def test_a_loss_that_is_not_finite_is_found():
    assert guards.check_loss(7, 1.5) == []
    assert "step 7 is nan" in guards.check_loss(7, math.nan)[0].seen
    assert "inf" in guards.check_loss(7, math.inf)[0].seen


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_still_is():
    assert guards.check_loss(7, 1.5, gradient_norm=3.0) == []
    assert "the gradient of step 7 is nan" in guards.check_loss(7, 1.5, math.nan)[0].seen


def test_divergence_needs_so_many_steps_in_a_row():
    watch = guards.Divergence()
    for loss in (3.0, 40.0, 40.0, 2.0, 40.0, 40.0):  # never three in a row
        watch = watch.feed(loss, factor=10)
        assert watch.findings(1, loss, 10, steps=3) == []
    watch = watch.feed(40.0, factor=10)
    assert len(watch.findings(1, 40.0, 10, steps=3)) == 1


def test_divergence_is_not_measured_by_a_first_batch_in_which_nothing_counts():
    watch = guards.Divergence()
    for loss in (0.0, 0.9, 0.8, 0.9, 0.9):
        watch = watch.feed(loss, factor=10)
        assert watch.findings(1, loss, 10, steps=2) == []
    assert watch.first == 0.9


def test_collapse_counts_evaluations_in_a_row_and_forgives_empty_truth():
    watch = guards.Collapse()
    for predicted, true in ((0.0, 0.1), (0.0, 0.0), (0.001, 0.1), (0.05, 0.1), (0.0, 0.1)):
        watch = watch.feed(predicted, true, share=0.02)
        assert watch.findings(1, predicted, true, 0.9, evaluations=2) == []
    watch = watch.feed(0.0, 0.1, share=0.02)
    [finding] = watch.findings(40, 0.0, 0.1, 0.9, evaluations=2)
    assert "10.0 %" in finding.seen
    assert "90.0 % is that of an all-black mask" in finding.seen


def test_a_black_final_prediction_is_found_only_where_there_is_something_to_find():
    [finding] = guards.check_black("test patients", 0.0, 0.07)
    assert "7.0 %" in finding.seen
    assert guards.check_black("test patients", 0.001, 0.07) == []
    assert guards.check_black("test patients", 0.0, 0.0) == []
    assert guards.check_black("test patients", None, None) == []


def test_policy_stops_warns_or_is_silent():
    finding = guards.check_loss(1, math.nan)
    with pytest.raises(GuardStop, match="(?s)likely cause.*what to try.*guards.non_finite=warn"):
        apply_policy(finding, STOP)
    assert len(apply_policy(finding, {"non_finite": "warn"})) == 1
    assert apply_policy(finding, {"non_finite": "off"}) == []


def test_tissue_maps_may_be_constant_and_have_only_codes_of_tissues():
    maps = np.zeros((3, 4, 4), np.uint8)
    assert guards.check_images("p", maps, "tissue") == []
    maps[1, 0, 0] = 19  # between the eight pools and the vessels: no tissue
    [found] = guards.check_images("p", maps, "tissue")
    assert "19" in found.seen
