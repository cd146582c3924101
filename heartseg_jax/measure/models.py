"""How far the labels of each of several models carry a valve's measurement: what each gives by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heartseg_jax.measure.results import REFUSED, UNCERTAIN, WIDE_INTERVAL, Quantity, ValveMeasurement


def with_models(valve: ValveMeasurement | None, each: Sequence[ValveMeasurement | None]) -> ValveMeasurement | None:
    """Return a valve with what each model's labels give, and uncertain where these disagree.

    Args:
      valve: of the labels of the models' mean.
      each: the same valve of each model's labels.
    """
    if valve is None or valve.status == REFUSED:
        return valve
    found = [one for one in each if one is not None]
    ranges = {name: _ranged(own, [one.quantities.get(name) for one in found]) for name, own in valve.quantities.items()}
    doubts = [valve.reason] if valve.reason else []
    refused = [one for one in found if one.status == REFUSED]
    if refused:
        doubts.append(f"{len(refused)} of {len(found)} models show no valve: {refused[0].reason}")
    area = ranges["area_cm2"]
    low, high = area.models_low, area.models_high
    if low is not None and high is not None and high - low > WIDE_INTERVAL * area.value:
        doubts.append(f"models disagree: by themselves they give {low:.1f} to {high:.1f} cm2")
    status = UNCERTAIN if doubts else valve.status
    return replace(valve, status=status, reason="; ".join(doubts), quantities=ranges)


def with_range(quantity: Quantity | None, each: Sequence[Quantity | None]) -> Quantity | None:
    """Return a quantity with the least and the greatest that models give; as it is where one of them gives none."""
    return None if quantity is None else _ranged(quantity, each)


def _ranged(quantity: Quantity, each: Sequence[Quantity | None]) -> Quantity:
    values = [one.value for one in each if one is not None]
    if not values or len(values) < len(each):
        return quantity
    return replace(quantity, models_low=min(values), models_high=max(values))
