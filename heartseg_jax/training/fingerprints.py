"""Proof that what should not learn did not: digests of each group at a phase's start and end. No files here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from heartseg_jax.findings import REFUSE, Finding
from heartseg_jax.models.tree import group_of, named_leaves
from heartseg_jax.training.phases import Phase


def fingerprint(params: Any, batch_stats: Any, groups: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every group: the bits, paths, shapes and dtypes of its parameters and BatchNorm statistics.

    Waits for the device.
    """
    digests = {group: hashlib.sha256() for group in groups}
    for path, leaf in _leaves(params, batch_stats):
        array, digest = np.asarray(jax.device_get(leaf)), digests[group_of(path.partition("/")[2], groups)]
        digest.update(f"{path} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return {group: digest.hexdigest() for group, digest in digests.items()}


def sizes(params: Any, batch_stats: Any, groups: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return (arrays, numbers) of every group, BatchNorm statistics included."""
    found = dict.fromkeys(groups, (0, 0))
    for path, leaf in _leaves(params, batch_stats):
        group = group_of(path.partition("/")[2], groups)
        arrays, numbers = found[group]
        found[group] = arrays + 1, numbers + int(np.prod(leaf.shape))
    return found


def _leaves(params: Any, batch_stats: Any) -> list[tuple[str, Any]]:
    return sorted(named_leaves({"params": params, "batch_stats": batch_stats}).items())


def findings(number: int, phase: Phase, before: Mapping[str, str], after: Mapping[str, str]) -> list[Finding]:
    """Find frozen groups that changed in phase `number` (from 1), and learning ones that did not."""
    moved = sorted(group for group in phase.frozen if before[group] != after[group])
    # The very first steps may be taken at rate 0, by the warm-up.
    still = sorted(g for g in phase.learning if before[g] == after[g] and phase.end - phase.first > 2)
    found = []
    if moved:
        found.append(
            Finding(
                REFUSE,
                "frozen",
                f"in phase {number} {', '.join(moved)} changed, though frozen (SHA-256 of weights and statistics)",
                cause="an error in this program: an optimizer or BatchNorm reached what the phase excludes",
                fix="do not use this run; report it with config.json and transfer.json",
            )
        )
    if still:
        found.append(
            Finding(
                REFUSE,
                "frozen",
                f"in phase {number} {', '.join(still)} did not change in a single bit, though they should learn",
                cause="the learning rate, or the group's multiplier, is too small to change a float32",
                fix="raise train.learning_rate or transfer.encoder_multiplier",
            )
        )
    return found
