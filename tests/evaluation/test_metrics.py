"""Scores worked out by hand, and the rules for absent, merged and ignored structures."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from heartseg_jax.anatomy import HEART
from heartseg_jax.evaluation import metrics
from heartseg_jax.evaluation.metrics import bootstrap_mean_dice, dice_from_counts, iou_from_counts, pixel_accuracy

CAVA_IN_ATRIUM = (0, 1, 2, 3, 4, 5, 6, 7, 4)
NO_CAVA = (0, 1, 2, 3, 4, 5, 6, 7, 0)

TRUTH = np.array([[[0, 0, 3, 3], [0, 255, 3, 3], [4, 4, 8, 0]]], dtype=np.uint8)
GUESS = np.array([[[0, 3, 3, 3], [0, 7, 3, 0], [4, 8, 8, 0]]], dtype=np.uint8)


def confusion(truth, guess, merge=HEART.all_known):
    return metrics.confusion(truth, guess, HEART, merge)


def score_patient(truth, guess, merge=HEART.all_known, *rest, **more):
    return metrics.score_patient(truth, guess, HEART, merge, *rest, **more)


def summarise(scores):
    return metrics.summarise(scores, HEART)


def patient(dices):
    """A patient with these Dice by label, made of counts: 1000 true and 1000 predicted voxels of each."""
    truth, guess = [], []
    for label, dice in dices.items():
        hit = round(1000 * dice)
        truth += [label] * 1000 + [0] * (1000 - hit)
        guess += [label] * hit + [0] * (1000 - hit) + [label] * (1000 - hit)
    return score_patient(np.array(truth).reshape(1, 1, -1), np.array(guess).reshape(1, 1, -1))


def test_confusion_by_hand():
    counts = confusion(TRUTH, GUESS)
    expected = np.zeros((9, 9), dtype=np.int64)
    # Eleven of twelve pixels: the ignored one is nowhere, whatever was predicted there.
    expected[0, 0], expected[0, 3] = 3, 1
    expected[3, 3], expected[3, 0] = 3, 1
    expected[4, 4], expected[4, 8], expected[8, 8] = 1, 1, 1
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
    assert dice_from_counts(counts)[3] == 2 * 3 / (4 + 4)
    assert iou_from_counts(counts)[3] == 3 / 5
    assert dice_from_counts(counts)[4] == 2 * 1 / (2 + 1)
    assert dice_from_counts(counts)[7] is None
    assert iou_from_counts(counts)[7] is None
    assert pixel_accuracy(counts) == 8 / 11


def test_confusion_with_merged_structures():
    counts = confusion(TRUTH, GUESS, CAVA_IN_ATRIUM)
    assert counts[4, 4] == 3
    assert counts[8].sum() == counts[:, 8].sum() == 0
    counts = confusion(TRUTH, GUESS, NO_CAVA)
    # The cava counts as background on both sides: a right one is a right background.
    assert counts[0, 0] == 4
    assert counts[4, 0] == 1


@pytest.mark.parametrize("bad", [9, 200])
def test_labels_out_of_range_are_refused(bad):
    wrong = np.where(GUESS == 7, bad, GUESS)
    with pytest.raises(ValueError, match=f"truth holds labels outside 0..8: \\[{bad}\\]"):
        confusion(wrong, GUESS)
    # 255 is a mark for the truth alone. (Where the truth is ignored, the prediction is not looked at.)
    for label in (bad, 255):
        with pytest.raises(ValueError, match="prediction holds"):
            confusion(TRUTH, np.where(TRUTH == 8, label, GUESS))
    with pytest.raises(ValueError, match="truth has shape"):
        confusion(TRUTH, GUESS[:, :2])
    with pytest.raises(ValueError, match="slices, height, width"):
        score_patient(TRUTH[0], GUESS[0])


def test_both_empty_is_not_counted_and_one_empty_is_a_miss():
    truth, guess = np.zeros((2, 3, 4), dtype=np.uint8), np.zeros((2, 3, 4), dtype=np.uint8)
    truth[0, 0, :2] = 2
    guess[1, 1, 1] = 5
    score = score_patient(truth, guess, HEART.all_known, (5.0, 2.0, 1.0), contiguous=True).structures
    diagonal = math.sqrt(10.0**2 + 6.0**2 + 4.0**2)
    lost, invented, absent = score["left_atrium"], score["right_ventricle"], score["vena_cava"]
    assert (lost.dice, lost.iou, lost.nsd_2mm, lost.missed) == (0.0, 0.0, 0.0, True)
    assert lost.hd95_mm == lost.assd_mm == pytest.approx(diagonal)
    assert lost.volume_bias_ml == pytest.approx(-2 * 10 / 1000)
    assert (invented.dice, invented.missed, invented.truth_voxels) == (0.0, True, 0)
    assert invented.volume_bias_ml == pytest.approx(1 * 10 / 1000)
    assert absent[:6] == (None,) * 6
    assert not absent.missed
    assert not absent.counted
    assert absent.known

    summary = summarise({"a": score_patient(truth, guess)})
    assert summary["mean_dice"] == 0.0
    assert summary["structures_scored"] == 2
    assert summary["structures"]["vena_cava"] | {"merged_with": None} == {
        "dice": None,
        "iou": None,
        "hd95_mm": None,
        "assd_mm": None,
        "nsd_2mm": None,
        "volume_bias_ml": None,
        "bias_mm": None,
        "bias_px": None,
        "missed": 0,
        "patients": 0,
        "invented": 0,
        "absent": 1,
        "unknown": 0,
        "distance_patients": 0,
        "merged_with": None,
    }
    assert summary["structures"]["right_ventricle"]["invented"] == 1
    assert summary["structures"]["left_atrium"]["missed"] == 1
    assert summary["structures"]["left_atrium"]["invented"] == 0


def test_distances_and_volumes_need_a_volume():
    truth, guess = np.zeros((3, 8, 8), dtype=np.uint8), np.zeros((3, 8, 8), dtype=np.uint8)
    truth[:, 2:5, 2:5], guess[:, 2:5, 3:6] = 1, 1
    for spacing, contiguous in ((None, True), ((2.0, 1.0, 1.0), False), (None, False)):
        score = score_patient(truth, guess, HEART.all_known, spacing, contiguous).structures["ascending_aorta"]
        assert score.dice == pytest.approx(2 / 3)
        assert score[2:6] == (None,) * 4
    score = score_patient(truth, guess, HEART.all_known, (2.0, 1.0, 1.0), True).structures["ascending_aorta"]
    assert score.hd95_mm == pytest.approx(1.0)
    assert 0 < score.assd_mm < 1
    assert score.nsd_2mm == 1.0
    assert score.volume_bias_ml == 0.0


def test_the_signed_distance_of_borders_is_in_pixels_or_mm_and_within_slices_or_the_volume():
    # A band across the image, 4 rows of each slice; the prediction lacks its first row, and the whole last slice.
    truth, guess = np.zeros((4, 12, 9), dtype=np.uint8), np.zeros((4, 12, 9), dtype=np.uint8)
    truth[:3, 4:8], guess[:2, 5:8] = 3, 3
    name, spacing = "left_ventricle", (5.0, 0.5, 0.5)

    def biases(*rest):
        score = score_patient(truth, guess, HEART.all_known, *rest).structures[name]
        return score.bias_mm, score.bias_px

    # Upper borders -1 pixel, lower ones 0, in the two slices where both have it.
    assert biases() == (None, -0.5)
    assert biases(None, True) == (None, -0.5)
    assert biases(spacing, False) == (-0.25, None)
    # In the volume the slice that is missing, 5 mm thick, makes it much smaller.
    mm, px = biases(spacing, True)
    assert mm < -0.5
    assert px is None


def test_the_signed_distance_along_the_slices_of_a_volume():
    # Layers that fill the slices: 2 to 5, and 3 to 5. The lower border of each is 0.8 mm from the other's, the upper 0.
    truth, guess = np.zeros((8, 6, 6), dtype=np.uint8), np.zeros((8, 6, 6), dtype=np.uint8)
    truth[2:6], guess[3:6] = 1, 1
    score = score_patient(truth, guess, HEART.all_known, (0.8, 1.0, 1.0), True).structures["ascending_aorta"]
    assert (score.bias_mm, score.bias_px) == (pytest.approx(-0.4), None)
    alone = score_patient(
        np.rot90(truth, axes=(0, 1))[:1], np.rot90(guess, axes=(0, 1))[:1], HEART.all_known, (3, 2, 2), True
    )
    assert alone.structures["ascending_aorta"].bias_mm == -1.0  # a single slice has borders within it only


def test_the_signed_distance_respects_ignored_merged_and_missed_structures():
    truth, guess = np.zeros((1, 10, 30), dtype=np.uint8), np.zeros((1, 10, 30), dtype=np.uint8)
    truth[0, :, 5:11], truth[0, :, 11:15], truth[0, :, 15:] = 4, 8, 255
    guess[0, :, 6:10], guess[0, :, 10:20] = 4, 8
    guess[0, :, 1] = 2
    apart = score_patient(truth, guess).structures
    # Atrium: both borders 1 inside; cava: left border 1 outside, right border ignored.
    assert (apart["right_atrium"].bias_px, apart["vena_cava"].bias_px) == (-1.0, 1.0)
    assert (apart["left_atrium"].missed, apart["left_atrium"].bias_px) == (True, None)
    assert apart["left_ventricle"].bias_px is None
    union = score_patient(truth, guess, CAVA_IN_ATRIUM).structures
    assert (union["right_atrium"].bias_px, union["vena_cava"].bias_px) == (-1.0, None)
    two = summarise({"a": score_patient(truth, guess), "b": score_patient(truth, np.where(truth == 255, 0, truth))})
    assert two["structures"]["right_atrium"]["bias_px"] == pytest.approx(-0.5)
    assert two["structures"]["right_atrium"]["bias_mm"] is None


def test_ignored_voxels_are_no_surface():
    truth, guess = np.zeros((1, 6, 30), dtype=np.uint8), np.zeros((1, 6, 30), dtype=np.uint8)
    truth[0, 2:4, 2:6] = guess[0, 2:4, 2:6] = 3
    guess[0, :, 20:] = 3
    truth[0, :, 20:] = 255
    score = score_patient(truth, guess, HEART.all_known, (1.0, 1.0, 1.0), True).structures["left_ventricle"]
    assert (score.dice, score.hd95_mm, score.assd_mm, score.nsd_2mm) == (1.0, 0.0, 0.0, 1.0)
    assert score.predicted_voxels == 8


def test_merged_structures_are_scored_as_their_union_and_the_others_are_unknown():
    score = score_patient(TRUTH, GUESS, CAVA_IN_ATRIUM, (1.0, 1.0, 1.0), True).structures
    assert score["right_atrium"].dice == 1.0
    assert score["right_atrium"].hd95_mm == 0.0
    assert score["right_atrium"].merged_with == ("vena_cava",)
    assert score["right_atrium"].truth_voxels == 3
    assert not score["vena_cava"].known
    assert score["vena_cava"].dice is None
    assert not score["vena_cava"].missed

    summary = summarise({"a": score_patient(TRUTH, GUESS, CAVA_IN_ATRIUM), "b": score_patient(TRUTH, TRUTH % 255)})
    assert summary["structures"]["vena_cava"]["unknown"] == 1
    assert summary["structures"]["vena_cava"]["patients"] == 1
    assert summary["structures"]["right_atrium"]["merged_with"] == ["vena_cava"]
    assert summary["warnings"] == [
        "merged: right_atrium is scored together with vena_cava in a, whose labels do not distinguish them"
    ]
    alone = summarise({"a": score_patient(TRUTH, GUESS, NO_CAVA)})
    assert alone["structures"]["vena_cava"]["dice"] is None
    assert alone["warnings"] == ["unknown: no patient's source labels vena_cava: not scored"]


def test_mean_is_over_patients_and_then_over_structures():
    scores = {"a": patient({1: 0.5, 2: 1.0}), "b": patient({1: 0.7}), "c": patient({1: 0.9})}
    summary = summarise(scores)
    assert summary["structures"]["ascending_aorta"]["dice"] == pytest.approx(0.7)
    assert summary["structures"]["ascending_aorta"]["patients"] == 3
    assert summary["structures"]["left_atrium"]["dice"] == pytest.approx(1.0)
    assert summary["structures"]["left_atrium"]["patients"] == 1
    assert summary["structures"]["left_atrium"]["absent"] == 2
    # (0.7 + 1.0) / 2, and not the mean 0.775 of the four cases.
    assert summary["mean_dice"] == pytest.approx(0.85)
    assert summary["structures_scored"] == 2
    assert (summary["patients"], summary["patient_ids"], summary["slices"]) == (3, ["a", "b", "c"], 3)
    assert summary["mean_dice_ci95"] is None
    assert summary["by_patient"]["a"]["mean_dice"] == pytest.approx(0.75)
    assert summary["by_patient"]["b"]["dice"]["left_atrium"] is None


def test_scattered_slices_of_a_patient_are_pooled():
    # Slice one has 100 of 100 right, slice two 0 of 300: pooled 2 * 100 / (400 + 100), not the mean 0.5 of slices.
    truth, guess = np.zeros((2, 1, 300), dtype=np.uint8), np.zeros((2, 1, 300), dtype=np.uint8)
    truth[0, 0, :100] = guess[0, 0, :100] = 6
    truth[1] = 6
    assert score_patient(truth, guess).structures["descending_aorta"].dice == pytest.approx(0.4)


def test_nothing_scored_is_null_with_a_warning():
    empty = np.zeros((1, 2, 2), dtype=np.uint8)
    assert summarise({})["mean_dice"] is None
    assert summarise({})["pixel_accuracy"] is None
    assert summarise({})["warnings"] == ["no patient was scored: the split is empty"]
    summary = summarise({"a": score_patient(empty, empty)})
    assert summary["mean_dice"] is None
    assert summary["pixel_accuracy"] == 1.0
    assert "mean_dice is null" in summary["warnings"][0]


def test_collapse_is_named():
    summary = summarise({"a": score_patient(TRUTH, np.zeros_like(GUESS))})
    assert summary["mean_dice"] == 0.0
    assert summary["pixel_accuracy"] == 4 / 11
    assert summary["foreground_fraction"] == {"truth": 7 / 11, "prediction": 0.0}
    assert summary["warnings"][0].startswith("collapse: the prediction has no foreground at all")


def test_interval_from_ten_patients():
    values = [0.62, 0.71, 0.88, 0.93, 0.55, 0.81, 0.79, 0.9, 0.67, 0.74, 0.85, 0.6]
    scores = {str(k): patient({3: v}) for k, v in enumerate(values)}
    summary = summarise(scores)
    assert summary["by_patient"] is None
    low, high = summary["mean_dice_ci95"]
    theirs = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.006)
    assert high == pytest.approx(theirs.high, abs=0.006)
    assert bootstrap_mean_dice(scores, seed=0) == summary["mean_dice_ci95"]
    assert bootstrap_mean_dice(scores, seed=1) != summary["mean_dice_ci95"]


def test_interval_leaves_out_what_a_draw_does_not_have():
    # Everybody scores 0.5 and one alone has a second structure, at 0.5 too: whatever is drawn, the mean is 0.5. A
    # null taken for 0 would widen the interval.
    scores = {str(k): patient({1: 0.5, 2: 0.5} if k == 0 else {1: 0.5}) for k in range(10)}
    assert bootstrap_mean_dice(scores) == pytest.approx([0.5, 0.5])


def test_all_eight_structures_are_always_there():
    summary = summarise({"a": score_patient(TRUTH, GUESS)})
    assert list(summary["structures"]) == [s.name for s in HEART.foreground]
    assert len(HEART.foreground) == HEART.num_classes - 1


def test_the_overlap_alone_is_the_same_without_distances():
    truth, prediction = np.zeros((2, 3, 8, 8), np.uint8)
    truth[:, 2:6, 2:6], prediction[:, 2:6, 3:7] = 1, 1
    given = (truth, prediction, HEART, HEART.all_known, (3.0, 1.0, 1.0), True)
    whole, found = metrics.score_patient(*given), metrics.score_patient(*given, overlap_only=True)
    one, other = whole.structures["ascending_aorta"], found.structures["ascending_aorta"]
    assert one.dice == other.dice == 0.75
    assert one.hd95_mm is not None
    assert (other.hd95_mm, other.volume_bias_ml, other.bias_mm, other.bias_px) == (None,) * 4
