"""Fields that take a tuple of words, read as what the words mean. Whether they suit each other is seen in schema.py."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from heartseg_jax.errors import UserError


def shares_of(texts: Collection[str]) -> tuple[float, ...]:
    """Return the numbers of `data.shares`; at least one is above 0, the others are not below."""
    try:
        found = tuple(float(text) for text in texts)
    except ValueError:
        found = (math.nan,)
    if found and not (all(0 <= share < math.inf for share in found) and sum(found) > 0):
        raise UserError(f"data.shares must be numbers from 0, not all 0, such as 0.5,0.3,0.2, not {','.join(texts)}")
    return found


def closer_of(texts: Collection[str]) -> tuple[float, ...]:
    """Return the numbers of `data.closer`: shares above 0 and below 1, none of them twice."""
    try:
        found = tuple(float(text) for text in texts)
    except ValueError:
        found = (math.nan,)
    if not all(0 < share < 1 for share in found) or len(set(found)) < len(found):
        raise UserError(
            f"data.closer must be different numbers above 0 and below 1, such as 0.5,0.7, not {','.join(texts)}"
        )
    return found


def grid_of(field: str, texts: Collection[str], like: Any) -> tuple[Any, ...]:
    """Return the words of a field such as `benchmark.sizes` as values of the type of `like`; none of them twice."""
    try:
        found = tuple(type(like)(text) for text in texts)
    except ValueError:
        raise UserError(f"{field} must be whole numbers such as {like}, not {','.join(texts)}") from None
    if len(set(found)) < len(found):
        raise UserError(f"{field} must be different values, not {','.join(texts)}")
    return found
