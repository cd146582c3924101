"""The order of the loop that runs and replicas share: dispatch, fetch the next batch, hand over. Nothing compiles."""

import pytest

from heartseg_jax.training import phase_steps
from heartseg_jax.training.phases import Phase
from heartseg_jax.training.steps import TrainState

PHASES = (Phase(0, 2, (("head", 1.0),)), Phase(2, 4, (("head", 1.0),)))


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(phase_steps, "carry_over", lambda before, old, after, fresh: f"carried {fresh}")
    return []


def taken(calls, first):
    """Take the steps after `first` with programs that only note their calls."""

    def program_of(number):
        def step(state, batch, key):
            calls.append(f"step {batch} of phase {number}")
            return state._replace(step=state.step + 1), {"loss": batch}

        return phase_steps.PhaseProgram(lambda params: f"fresh {number}", step)

    def fetch(steps):
        calls.append(f"fetch {steps + 1}")
        return steps + 1

    def start_phase(number, program, state, batch):
        calls.append(f"start phase {number} with batch {batch}, {state.opt_state}")

    state = TrainState(first, {}, {}, "restored")
    for found in phase_steps.take_steps(PHASES, program_of, state, None, fetch, start_phase, first):
        calls.append(f"log {found.step} in phase {found.phase}")
        assert (found.state.step, found.metrics) == (found.step, {"loss": found.step})


def test_the_next_batch_is_fetched_before_a_step_is_logged_and_an_optimizer_is_carried_over(calls):
    taken(calls, 0)
    assert calls == [
        "fetch 1",
        "start phase 0 with batch 1, restored",
        *("step 1 of phase 0", "fetch 2", "log 1 in phase 0"),
        *("step 2 of phase 0", "fetch 3", "log 2 in phase 0"),
        "start phase 1 with batch 3, carried fresh 1",
        *("step 3 of phase 1", "fetch 4", "log 3 in phase 1"),
        *("step 4 of phase 1", "fetch 5", "log 4 in phase 1"),
    ]


@pytest.mark.parametrize(("first", "optimizer"), [(2, "carried fresh 1"), (3, "restored")])
def test_a_run_resumes_at_the_start_of_a_phase_or_within_it(calls, first, optimizer):
    taken(calls, first)
    assert calls[:2] == [f"fetch {first + 1}", f"start phase 1 with batch {first + 1}, {optimizer}"]
    assert calls[-1] == "log 4 in phase 1"


def test_a_run_that_has_ended_takes_no_step(calls):
    taken(calls, 4)
    assert calls == ["fetch 5"]
