"""Phases as data: which groups of parameters learn when, and the optimizer that follows from it. No files here.

One description, `Phase.multipliers`, gives the optimizer here, and `stop_gradient` and BatchNorm's mode in `steps`: the
three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from heartseg_jax.errors import UserError
from heartseg_jax.models.tree import group_labels


class Phase(NamedTuple):
    """Steps `first` (0-based) to `end` (exclusive), and the learning rate's multiplier of every group; 0 is frozen."""

    first: int
    end: int
    multipliers: tuple[tuple[str, float], ...]

    @property
    def frozen(self) -> frozenset[str]:
        """The groups that do not learn."""
        return frozenset(group for group, multiplier in self.multipliers if multiplier == 0)

    @property
    def learning(self) -> frozenset[str]:
        """The groups that learn."""
        return frozenset(group for group, multiplier in self.multipliers if multiplier > 0)


def stages(levels: int) -> tuple[str, ...]:
    """Return the encoder's groups, finest first."""
    return tuple(f"encoder/stage{level + 1}" for level in range(levels))


def groups(levels: int) -> tuple[str, ...]:
    """Return every group of a U-Net of `levels` levels."""
    return (*stages(levels), "decoder", "head")


def plan(transfer: Any, levels: int, total_steps: int) -> tuple[Phase, ...]:
    """Return the phases of a config's `transfer` group over `total_steps` steps.

    `none`    everything learns from the first step to the last, at one rate.
    `frozen`  the encoder never learns.
    `full`    everything learns at once, the encoder at `encoder_multiplier` times the rate.
    `lp_ft`   first only what is new (decoder and head), then everything: "linear probing, then fine-tuning" (Kumar et
              al., ICLR 2022), which spares the encoder the gradients of a decoder that knows nothing yet.
    `staged`  as `lp_ft`, but the encoder thaws stage by stage, the deepest first: the original's plan.
    `surgical` likewise, the finest first: a shift of the input is met where the input comes in (Lee et al., ICLR 2023).
    `custom`  as `transfer.phases` says.

    The named ones have phases of equal length.

    Raises:
      UserError: there are fewer steps than phases, or `transfer.phases` cannot be read.
    """
    encoder, rate = stages(levels), transfer.encoder_multiplier
    new = {"decoder": 1.0, "head": 1.0}
    thawing = lambda order: [new | dict.fromkeys(order[:count], rate) for count in range(levels + 1)]  # noqa: E731
    asked: list[tuple[float, dict[str, float]]]
    if transfer.schedule == "custom":
        asked = [_parse(text, levels) for text in transfer.phases]
    else:
        named = {
            "none": [dict.fromkeys(groups(levels), 1.0)],
            "frozen": [new],
            "full": [new | dict.fromkeys(encoder, rate)],
            "lp_ft": [new, new | dict.fromkeys(encoder, rate)],
            "staged": thawing(encoder[::-1]),
            "surgical": thawing(encoder),
        }
        asked = [(1.0, learning) for learning in named[transfer.schedule]]
    total = sum(length for length, _ in asked)
    found: list[Phase] = []
    before = 0.0
    for length, learning in asked:
        first, end = (round(total_steps * share / total) for share in (before, before + length))
        before += length
        if end <= first:
            raise UserError(
                f"transfer.schedule={transfer.schedule} has {len(asked)} phases, too many for {total_steps} steps; "
                "raise --config.train.epochs or choose a schedule of fewer phases"
            )
        found.append(Phase(first, end, tuple((group, learning.get(group, 0.0)) for group in groups(levels))))
    return tuple(found)


def _parse(text: str, levels: int) -> tuple[float, dict[str, float]]:
    """Read one phase of `transfer.phases`: 'LENGTH:GROUP[*RATE]+GROUP[*RATE]...'."""
    fix = "; a phase looks like 2:encoder/stage5*0.1+decoder+head, or 1:all*0.5+head"
    length, colon, body = str(text).partition(":")
    learning: dict[str, float] = {}
    try:
        if not colon or not 0 < float(length) < 1e6:
            raise ValueError
        for word in body.split("+"):
            name, star, rate = word.strip().partition("*")
            multiplier = float(rate) if star else 1.0
            if not 0 <= multiplier <= 1000:
                raise ValueError
            inside = [group for group in groups(levels) if name in ("all", group) or group.startswith(name + "/")]
            if not inside:
                known = ", ".join(("all", "encoder", *groups(levels)))
                raise UserError(f"transfer.phases names a group '{name}' that the network lacks; there are {known}")
            learning |= dict.fromkeys(inside, multiplier)
    except ValueError:
        raise UserError(f"transfer.phases has '{text}', which cannot be read{fix}") from None
    if not any(learning.values()):
        raise UserError(f"transfer.phases has '{text}', in which nothing learns{fix}")
    return float(length), learning


def phase_at(phases: Sequence[Phase], step: int) -> int:
    """Return the number of the phase that step `step` (0-based; the last one's beyond the end) belongs to."""
    return next((number for number, phase in enumerate(phases) if step < phase.end), len(phases) - 1)


def learning_rates(schedule: optax.Schedule, phase: Phase, rewarm_steps: int) -> optax.Schedule:
    """Return the run's schedule as a phase has it: after a thaw it rises from 0 over `rewarm_steps` steps.

    At most a quarter of the phase is spent on that. The first phase has only the run's own warm-up.
    """
    rise = min(rewarm_steps, (phase.end - phase.first) // 4)
    if phase.first == 0 or rise == 0:
        return schedule
    return lambda step: schedule(step) * jnp.clip((step - phase.first + 1) / rise, 0.0, 1.0)


def build_optimizer(train: Any, schedule: optax.Schedule, phase: Phase) -> optax.GradientTransformation:
    """Return the optimizer that `train.optimizer` names, with a state for each group that learns and none for the rest.

    It stands behind a clip of the global norm. `schedule` maps the run's step to the learning rate. Weight decay is
    decoupled and applies to kernels only.
    """
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731

    def learner(multiplier: float) -> optax.GradientTransformation:
        if multiplier == 0:
            return optax.set_to_zero()
        if train.optimizer == "muon":
            from heartseg_jax.training.muon import scale_by_muon_or_adam  # loaded only where it is used

            scaled = scale_by_muon_or_adam()
        else:
            scaled = optax.scale_by_adam()
        parts = [scaled, optax.add_decayed_weights(train.weight_decay, kernels)]
        return optax.chain(*parts, *([optax.scale(multiplier)] if multiplier != 1 else []))

    known = [group for group, _ in phase.multipliers]
    by_group = optax.multi_transform(
        {group: learner(multiplier) for group, multiplier in phase.multipliers},
        lambda params: group_labels(params, known),
    )
    clip = [optax.clip_by_global_norm(train.clip_norm)] if train.clip_norm else []
    return optax.chain(*clip, by_group, optax.scale_by_learning_rate(schedule))


def carry_over(before: Phase, old: Any, after: Phase, fresh: Any) -> Any:
    """Return the optimizer's state for the phase `after`: the old one of groups that were learning, else the fresh one.

    Adam that was fed zeros while frozen would make the first real steps wrong; so what thaws starts afresh. The
    count of steps, from which the learning rate follows, goes on.

    `old` is the state at the end of the phase `before`, `fresh` is `optimizer.init(params)` of the phase `after`.
    """
    goes_on = before.learning & after.learning

    def chosen(old_inner: Any, new_inner: Any, group: str) -> Any:
        if group not in goes_on:
            return new_inner
        # A multiplier other than 1 adds a part without arrays to the chain; the others are the same.
        return jax.tree.unflatten(jax.tree.structure(new_inner), jax.tree.leaves(old_inner))

    inner = {
        group: chosen(old[-2].inner_states[group], state, group) for group, state in fresh[-2].inner_states.items()
    }
    return (*fresh[:-2], fresh[-2]._replace(inner_states=inner), old[-1])
