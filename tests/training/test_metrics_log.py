"""The run's book-keeping: rows, means, and what the guards are shown."""

import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.errors import GuardStop
from heartseg_jax.training.metrics_log import Ledger


def ledger(rows, told=None, **guards):
    _, config = load.load("configs/base.py", {f"guards.{k}": v for k, v in guards.items()})
    told = [] if told is None else told
    return Ledger(
        config.guards, labels=HEART, tag="val", batch_size=4, per_epoch=5, write=rows.append, tell=told.append
    )


def step(loss):
    return {"loss": jnp.float32(loss)}


def test_a_row_has_the_means_since_the_last_and_metrics_come_a_step_late():
    rows = []
    book = ledger(rows)
    for number, loss in enumerate((4.0, 2.0, 1.0), start=1):
        book.take(number, step(loss))
    book.write(3, {"all": 0.1}, {})
    book.settle()
    book.write(4, {"all": 0.1}, {"val/dice/mean": 0.5})
    assert [row["train/loss"] for row in rows] == [3.0, 1.0]  # (4 + 2) / 2, then the one that was late
    assert rows[0]["epoch"] == 3 / 5
    assert next(iter(rows[0])) == "step"
    assert "perf/step_ms" not in rows[0]  # the clock starts after the first step
    assert rows[1]["val/dice/mean"] == 0.5
    assert book.brief == "loss 1.0000  val Dice 0.500"


def test_dice_is_the_mean_over_patients_then_over_structures():
    rows = []
    one, two = np.zeros((2, 9, 9), np.int64)
    one[0, 0] = two[0, 0] = 80
    one[1, 1], one[1, 0] = 5, 5  # Dice of AA: 10 / 15
    two[1, 1] = 10  # Dice of AA: 1
    two[2, 0] = 10  # Dice of LA: 0, in the one patient who has it
    row = ledger(rows).look(10, 0.7, {0: one, 1: two})
    assert row["val/dice/ascending_aorta"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["val/dice/left_atrium"] == 0
    assert row["val/dice/vena_cava"] is None
    assert row["val/dice/mean"] == pytest.approx((5 / 6 + 0) / 2)
    assert row["val/pixel_accuracy"] == pytest.approx((160 + 15) / 190)
    assert row["val/all_background_accuracy"] == pytest.approx(160 / 190)


def test_a_nan_stops_when_it_is_read_and_warns_once_where_told():
    book = ledger([])
    book.take(1, step(np.nan))
    with pytest.raises(GuardStop, match="step 1 is nan"):
        book.take(2, step(1.0))
    rows, told = [], []
    book = ledger(rows, told, non_finite="warn")
    for number in (1, 2, 3):
        book.take(number, step(np.nan))
    book.settle()
    book.write(3, {"all": 0.1}, {})
    assert len(told) == 1
    assert rows[0]["train/loss"] is None  # JSON has no NaN


def test_a_gradient_that_is_not_finite_marks_the_state_as_not_to_be_kept():
    book = ledger([], non_finite="warn")
    book.take(1, step(1.0) | {"gradient_norm": jnp.float32(2.0)})
    book.settle()
    assert book.finite
    book.take(2, step(1.0) | {"gradient_norm": jnp.float32(np.inf)})
    book.settle()
    assert not book.finite


def black_mask():
    """Confusion of a model that marks nothing, where the labels mark a tenth."""
    counts = np.zeros((9, 9), np.int64)
    counts[0, 0], counts[1, 0] = 90, 10
    return {0: counts}


def test_a_run_that_goes_on_recalls_the_evaluations_that_were_empty():
    first = ledger([], collapse_evaluations="3")
    rows = [{"step": 5 * n, **first.look(5 * n, 1.0, black_mask())} for n in (1, 2)]
    ledger([], collapse_evaluations="3").look(15, 1.0, black_mask())  # one that recalls nothing lets it pass
    again = ledger([], collapse_evaluations="3")
    again.recall(rows)
    with pytest.raises(GuardStop, match="for 3 evaluations in a row"):
        again.look(15, 1.0, black_mask())


def test_a_run_that_goes_on_measures_divergence_by_its_first_row():
    book = ledger([], divergence_steps="2")
    book.recall([{"step": 1, "train/loss": None}, {"step": 2, "train/loss": 2.0}, {"step": 4, "train/loss": 90.0}])
    book.take(5, step(90.0))
    book.take(6, step(90.0))
    with pytest.raises(GuardStop, match="times its start \\(2\\)"):
        book.settle()
