"""The notation of `data.channels`."""

import pytest

from heartseg_jax.config import load
from heartseg_jax.config.channels import parse
from heartseg_jax.errors import UserError

WINDOW = (-200.0, 600.0)


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("repeat", ((0, WINDOW), (0, WINDOW), (0, WINDOW))),
        ("adjacent", ((-1, WINDOW), (0, WINDOW), (1, WINDOW))),
        ("0", ((0, WINDOW),)),
        ("0:-200..600, 0:-100..300.5 ,+2", ((0, (-200.0, 600.0)), (0, (-100.0, 300.5)), (2, WINDOW))),
    ],
)
def test_each_channel_is_an_offset_and_a_window(text, channels):
    assert parse(text, WINDOW) == channels


@pytest.mark.parametrize(
    "text", ["", "both", "0,", "0:5", "0:600..-200", "0:0..0.5", "17", "0:-200..1e9", "0:0..100001", ",".join("0" * 17)]
)
def test_what_cannot_be_meant_is_refused(text):
    with pytest.raises(UserError, match="data.channels"):
        parse(text, WINDOW)
    with pytest.raises(UserError, match="data.channels"):
        load.load("configs/quickstart.py", {"data.channels": text})
