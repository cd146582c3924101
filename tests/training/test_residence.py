"""Whether slices are kept on the device: by bytes against free memory, and said why."""

import jax
import pytest

from heartseg_jax import distributed
from heartseg_jax.errors import UserError
from heartseg_jax.training import devices, residence

GIB = 2**30


@pytest.fixture
def memory(monkeypatch):
    """A GPU with 10 GiB free beside 64 GiB of the machine's."""
    free = {"device": 10 * GIB, "host": 64 * GIB}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(devices, "available_bytes", lambda: free["device"])
    monkeypatch.setattr(devices, "host_available_bytes", lambda: free["host"])
    return free


def decide(asked, gib, **changes):
    return residence.decide(asked, int(gib * GIB), 2 * GIB, **{"rows": 100, "shown": 1000} | changes)


def test_auto_keeps_what_takes_at_most_half_of_what_is_free_beside_a_step(memory):
    kept, left = decide("auto", 4.0), decide("auto", 4.1)
    assert (kept.resident, left.resident) == (True, False)
    for words in ("data.resident=auto", "4.00 GiB for 100 slices", "8.00 GiB free"):
        assert words in kept.why
    assert "50%" in left.why


def test_a_cpu_holds_slices_twice_until_they_are_sent(memory, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert decide("auto", 2.0).resident
    assert not decide("auto", 2.1).resident


def test_several_processes_on_a_machine_share_its_memory(memory):
    assert decide("auto", 1.0, among=4).resident
    assert not decide("auto", 1.1, among=4).resident


def test_what_the_machine_cannot_read_at_once_is_streamed(memory):
    memory["host"] = 3 * GIB
    assert not decide("auto", 3.5).resident
    assert "3.00 GiB free" in decide("auto", 3.5).why


def test_a_run_that_shows_only_some_slices_does_not_send_all(memory):
    assert not decide("auto", 1.0, shown=99).resident
    assert decide("auto", 1.0, shown=100).resident
    assert decide("on", 1.0, shown=99).resident


def test_unknown_memory_is_not_filled_unless_asked_for(memory):
    memory["device"] = None
    assert not decide("auto", 0.1).resident
    assert decide("on", 0.1).resident


def test_off_and_on_are_as_asked_and_what_cannot_fit_is_refused(memory):
    assert not decide("off", 0.1).resident
    assert decide("on", 8.0).resident
    with pytest.raises(UserError, match=r"data\.resident=on needs 8\.50 GiB .* 8\.00 GiB"):
        decide("on", 8.5)


def test_several_processes_of_one_run_stream(memory, monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    assert not decide("auto", 0.1).resident
    with pytest.raises(UserError, match="several"):
        decide("on", 0.1)
