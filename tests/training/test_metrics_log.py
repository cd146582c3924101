"""The run's metrics: means, evaluations, and what the guards are shown."""

import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.errors import GuardStop
from heartseg_jax.training.metrics_log import MetricsLog, brief


def log_of(**guards):
    _, config = load.load("configs/base.py", {f"guards.{k}": v for k, v in guards.items()})
    return MetricsLog(config.guards, HEART, "val", config.guards.collapse_evaluations)


def step(loss):
    return {"loss": jnp.float32(loss)}


def test_means_are_those_since_the_last_row_and_metrics_come_a_step_late():
    log = log_of()
    for number, loss in enumerate((4.0, 2.0, 1.0), start=1):
        log.record(number, step(loss))
    assert log.means() == {"train/loss": 3.0}  # (4 + 2) / 2; the third is not read yet
    log.flush()
    assert log.means() == {"train/loss": 1.0}
    assert log.means() == {}


def test_a_dice_of_exactly_0_is_shown():
    """An all-black mask is what this project promises to show."""
    assert brief({"train/loss": 1.0, "val/dice/mean": 0.0}, "val") == "loss 1.0000  val Dice 0.000"
    assert brief({"train/loss": 0.0, "val/dice/mean": None}, "val") == "loss 0.0000"
    assert brief({"step": 3}, "val") == ""


def test_dice_is_the_mean_over_patients_then_over_structures():
    one, two = np.zeros((2, 9, 9), np.int64)
    one[0, 0] = two[0, 0] = 80
    one[1, 1], one[1, 0] = 5, 5  # Dice of AA: 10 / 15
    two[1, 1] = 10  # Dice of AA: 1
    two[2, 0] = 10  # Dice of LA: 0, in the one patient who has it
    row = log_of().evaluate(10, 0.7, {0: one, 1: two})
    assert row["val/dice/ascending_aorta"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["val/dice/left_atrium"] == 0
    assert row["val/dice/vena_cava"] is None
    assert row["val/dice/mean"] == pytest.approx((5 / 6 + 0) / 2)
    assert row["val/pixel_accuracy"] == pytest.approx((160 + 15) / 190)
    assert row["val/all_background_accuracy"] == pytest.approx(160 / 190)


def test_a_nan_stops_when_it_is_read_and_warns_once_where_the_policy_says_warn(capsys):
    log = log_of()
    log.record(1, step(np.nan))
    with pytest.raises(GuardStop, match="step 1 is nan"):
        log.record(2, step(1.0))
    log = log_of(non_finite="warn")
    for number in (1, 2, 3):
        log.record(number, step(np.nan))
    log.flush()
    assert capsys.readouterr().err.count("WARNING") == 1
    assert log.means() == {"train/loss": None}  # JSON has no NaN


def test_a_gradient_that_is_not_finite_marks_the_state_as_not_to_be_kept():
    log = log_of(non_finite="warn")
    log.record(1, step(1.0) | {"gradient_norm": jnp.float32(2.0)})
    log.flush()
    assert log.finite
    log.record(2, step(1.0) | {"gradient_norm": jnp.float32(np.inf)})
    log.flush()
    assert not log.finite


def black_mask():
    """Confusion of a model that marks nothing, where the labels mark a tenth."""
    counts = np.zeros((9, 9), np.int64)
    counts[0, 0], counts[1, 0] = 90, 10
    return {0: counts}


def test_a_run_that_goes_on_remembers_the_evaluations_that_were_empty():
    first = log_of(collapse_evaluations="3")
    rows = [{"step": 5 * n, **first.evaluate(5 * n, 1.0, black_mask())} for n in (1, 2)]
    log_of(collapse_evaluations="3").evaluate(15, 1.0, black_mask())  # one that restores nothing lets it pass
    again = log_of(collapse_evaluations="3")
    again.restore(rows)
    with pytest.raises(GuardStop, match="for 3 evaluations in a row"):
        again.evaluate(15, 1.0, black_mask())


def test_a_run_that_goes_on_measures_divergence_by_its_first_row():
    log = log_of(divergence_steps="2")
    log.restore([{"step": 1, "train/loss": None}, {"step": 2, "train/loss": 2.0}, {"step": 4, "train/loss": 90.0}])
    log.record(5, step(90.0))
    log.record(6, step(90.0))
    with pytest.raises(GuardStop, match="times its start \\(2\\)"):
        log.flush()


def test_each_joined_dataset_has_a_mean_dice_of_its_own():
    one, two = np.zeros((2, 9, 9), np.int64)
    one[0, 0], one[1, 1] = 80, 10  # Dice of AA: 1
    two[0, 0], two[2, 0] = 80, 10  # Dice of LA: 0
    row = log_of().evaluate(10, 0.7, {0: one, 3: two}, {"a": [0, 1], "b": [2, 3], "c": [4]})
    assert (row["val/a/dice/mean"], row["val/b/dice/mean"]) == (1, 0)
    assert "val/c/dice/mean" not in row  # nobody of it validates
