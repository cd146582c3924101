"""When a run evaluates and saves: by counts only, so that resuming agrees; at most a tenth of it on evaluations."""

from fractions import Fraction

import pytest

from heartseg_jax.config import load
from heartseg_jax.training.cadence import cadence, least_distance


def cadence_of(per_epoch, watched, total=1000, name="configs/base.py", **changes):
    config = load.load(name, {k.replace("__", "."): v for k, v in changes.items()})[1]
    return cadence(config, per_epoch, total, watched)


@pytest.mark.parametrize(
    ("watched", "batch", "steps"),
    [
        (96, 8, 36),  # 12 batches cost 12; 36 steps cost 3 * 36 = 108: 12 / 120 is a tenth
        (97, 8, 39),  # a slice alone in its batch costs as much as eight
        (1, 8, 3),
        (6, 4, 6),
    ],
)
def test_evaluations_take_a_tenth_of_the_arithmetic_at_most(watched, batch, steps):
    assert least_distance(watched, batch) == steps
    batches = -(-watched // batch)
    assert Fraction(batches, batches + 3 * steps) <= Fraction(1, 10) < Fraction(batches, batches + 3 * (steps - 1))


def test_fine_tuning_on_18_slices_evaluates_every_so_many_whole_epochs():
    # 3 steps of 8 per epoch; 96 validation slices need 36 steps between two evaluations.
    found = cadence_of(3, 96, total=100, data__batch_size="8")
    assert [step for step in range(1, 101) if found.evaluates(step)] == [36, 72, 100]
    assert cadence_of(3, 96, data__batch_size="8", log__evaluate_every_steps="7").evaluate_epochs == 3  # 9 steps
    assert cadence_of(3, 96, data__batch_size="8", log__evaluate_every_steps="1").evaluate_epochs == 1


@pytest.mark.parametrize(
    ("name", "per_epoch", "watched"),
    [
        ("configs/quickstart.py", 36 * 32 // 8, 3 * 32),
        ("configs/transfer.py", 36 * 32 // 8, 3 * 32),
        ("configs/synthetic.py", 60 * 32 // 8, 3 * 32),
        ("configs/scratch.py", 10 * 64 // 4, 2 * 64),
    ],
)
def test_the_shipped_configs_evaluate_after_every_epoch(name, per_epoch, watched):
    found = cadence_of(per_epoch, watched, name=name)
    assert (found.evaluate_epochs, found.collapse_evaluations) == (1, 4)


@pytest.mark.parametrize(
    ("epochs_apart", "asked", "needed"), [(1, 4, 4), (2, 4, 2), (3, 4, 2), (12, 4, 2), (3, 9, 3), (5, 1, 1)]
)
def test_a_collapse_takes_as_much_training_as_was_asked_but_two_evaluations(epochs_apart, asked, needed):
    found = cadence_of(10, 1, log__evaluate_every_steps=str(10 * epochs_apart), guards__collapse_evaluations=str(asked))
    assert (found.evaluate_epochs, found.collapse_evaluations) == (epochs_apart, needed)


def test_the_last_step_evaluates_and_saves():
    found = cadence_of(7, 1, total=10, checkpoint__every_steps="4", log__every_steps="3")
    assert [step for step in range(1, 11) if found.saves(step)] == [4, 8, 10]
    assert [step for step in range(1, 11) if found.evaluates(step)] == [7, 10]
    assert [step for step in range(1, 11) if found.logs(step)] == [3, 6, 9]
