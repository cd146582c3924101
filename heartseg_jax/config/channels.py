"""The notation of `data.channels`: which slice each input channel shows, and through which window. No JAX here."""

from __future__ import annotations

import re

from heartseg_jax.errors import UserError

Window = tuple[float, float] | None
"""(value that becomes 0, value that becomes 1); None is the slice's own percentiles."""
Channels = tuple[tuple[int, Window], ...]
"""Of each channel the slice's offset (-1 is the slice below) and its window."""

NAMED = {"repeat": "0,0,0", "adjacent": "-1,0,1"}
MOST_CHANNELS, MOST_OFFSET = 16, 16
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_CHANNEL = re.compile(rf"\s*([+-]?\d+)\s*(?::\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*)?")


def parse(text: str, window: Window) -> Channels:
    """Return the channels that `text` asks for.

    `text` is 'repeat' (0,0,0), 'adjacent' (-1,0,1) or a list of channels separated by commas, each OFFSET or
    OFFSET:LOW..HIGH with a window in HU, such as '0:-200..600,0:-100..300,1'. A channel without a window has `window`.

    Raises:
      UserError: `text` cannot be read, or asks for more than 16 channels, offsets beyond 16 slices, or an empty window.
    """
    channels: list[tuple[int, Window]] = []
    for part in NAMED.get(text, text).split(","):
        match = _CHANNEL.fullmatch(part)
        if not match:
            raise UserError(
                f"data.channels: '{part}' cannot be read; give repeat, adjacent, or a list of OFFSET or "
                "OFFSET:LOW..HIGH separated by commas, such as 0:-200..600,0:-100..300"
            )
        offset, low, high = match.groups()
        if abs(int(offset)) > MOST_OFFSET:
            raise UserError(f"data.channels: offsets go from -{MOST_OFFSET} to {MOST_OFFSET} slices, not {offset}")
        own = window if low is None else (float(low), float(high))
        if own and (own[1] - own[0] < 1 or max(-own[0], own[1]) > 1e5):
            raise UserError(f"data.channels: a window must be at least 1 HU wide and within 100000 HU, not '{part}'")
        channels.append((int(offset), own))
    if len(channels) > MOST_CHANNELS:
        raise UserError(f"data.channels has {len(channels)} channels; give at most {MOST_CHANNELS}")
    return tuple(channels)
