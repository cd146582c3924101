"""Several processes that train as one: what the flag takes, and what a process alone does."""

import pytest

from heartseg_jax import distributed
from heartseg_jax.errors import UserError


def test_the_flag_takes_an_address_how_many_there_are_and_which_this_is():
    assert distributed.parsed("auto") is None
    assert distributed.parsed("node1:1234,8,7") == ("node1:1234", 8, 7)
    assert distributed.parsed("[::1]:1234,2,0") == ("[::1]:1234", 2, 0)


@pytest.mark.parametrize("asked", ["on", "node1,8,7", "node1:1234", "node1:1234,8,8", "node1:1234,0,0", "node1:1,2,-1"])
def test_anything_else_is_refused_with_the_form(asked):
    with pytest.raises(UserError, match="HOST:PORT,PROCESSES,NUMBER"):
        distributed.start(asked)


def test_off_starts_nothing_and_a_process_alone_is_the_first():
    distributed.start("off")
    assert (distributed.count(), distributed.number(), distributed.is_first()) == (1, 0, True)
    assert distributed.share("abc") == "abc"
    assert distributed.first(lambda: 7) == 7
    distributed.agree("text", "config")


def test_what_fails_in_a_process_alone_is_raised_as_it_is():
    with pytest.raises(KeyError), distributed.together():
        raise KeyError("x")
    assert distributed.lost(ValueError("Gloo all-reduce failed: Connection closed by peer")) is None


@pytest.mark.parametrize(
    "said",
    [
        "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer",
        "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error",
        "Timed out while waiting for async_write_complete barrier.",
    ],
)
def test_the_end_of_another_process_is_one_line_with_what_to_do(said, monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 2)
    line = distributed.lost(ValueError(said))
    assert said in line
    assert "same command" in line
    assert distributed.lost(ValueError("shapes do not match")) is None
    assert distributed.lost(UserError(said)) is None


def test_the_items_are_shared_out_one_by_one(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(distributed, "number", lambda number=number: number)
        shares.append(distributed.share("abcdefgh"))
    assert shares == ["adg", "beh", "cf"]
