"""The run's log of its phases, `transfer.json`, with the proof that frozen groups did not change: their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json
from heartseg_jax.findings import REFUSE, Finding, apply_policy
from heartseg_jax.models.tree import group_of, named_leaves
from heartseg_jax.progress import say
from heartseg_jax.training.phases import Phase
from heartseg_jax.training.run import Run
from heartseg_jax.training.steps import TrainState


def fingerprint(state: TrainState, groups: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every group: the bits, paths, shapes and dtypes of its parameters and BatchNorm statistics.

    Waits for the device.
    """
    digests = {group: hashlib.sha256() for group in groups}
    for path, group, leaf in _leaves(state, groups):
        array = np.asarray(jax.device_get(leaf))
        digests[group].update(f"{path} {array.shape} {array.dtype}".encode())
        digests[group].update(np.ascontiguousarray(array).tobytes())
    return {group: digest.hexdigest() for group, digest in digests.items()}


def _leaves(state: TrainState, groups: Sequence[str]) -> list[tuple[str, str, Any]]:
    """Return (path, group, array) of every parameter and BatchNorm statistic, by path."""
    leaves = named_leaves({"params": state.params, "batch_stats": state.batch_stats})
    return [(path, group_of(path.partition("/")[2], groups), leaves[path]) for path in sorted(leaves)]


def findings(number: int, phase: Phase, before: Mapping[str, str], after: Mapping[str, str]) -> list[Finding]:
    """Find frozen groups that changed in phase `number` (from 1), and learning ones that did not."""
    moved = sorted(group for group in phase.frozen if before[group] != after[group])
    # The very first steps may be taken at rate 0, by the warm-up.
    still = sorted(g for g in phase.learning if before[g] == after[g] and phase.end - phase.first > 2)
    found = []
    if moved:
        seen = f"{', '.join(moved)} changed, though frozen (SHA-256 of weights and statistics)"
        cause = "an error in this program: an optimizer or BatchNorm reached what the phase excludes"
        found.append((seen, cause, "do not use this run; report it with config.json and transfer.json"))
    if still:
        seen = f"{', '.join(still)} did not change in a single bit, though they should learn"
        cause = "the learning rate, or the group's multiplier, is too small to change a float32"
        found.append((seen, cause, "raise train.learning_rate or transfer.encoder_multiplier"))
    return [Finding(REFUSE, "frozen", f"in phase {number} {seen}", cause=cause, fix=fix) for seen, cause, fix in found]


def start_phase(run: Run, number: int, state: TrainState) -> None:
    """Write the digests at the start of phase `number` (from 0); a phase that is resumed keeps those of its start."""
    phase, log = run.phases[number], _read(run)
    step = int(jax.device_get(state.step))
    if number + 1 in log["phases"] and step > phase.first:
        return
    names = [group for group, _ in phase.multipliers]
    digests, leaves = fingerprint(state, names), _leaves(state, names)
    groups = {
        group: {
            "multiplier": multiplier,
            "frozen": multiplier == 0,
            "arrays": sum(own == group for _, own, _ in leaves),
            "numbers": sum(leaf.size for _, own, leaf in leaves if own == group),
            "sha256_before": digests[group],
        }
        for group, multiplier in phase.multipliers
    }
    log["phases"][number + 1] = {
        "phase": number + 1,
        "first_step": phase.first + 1,
        "last_step": phase.end,
        "noted_from_step": step + 1,
        "groups": groups,
    }
    _write(run, log, number)
    learns = ", ".join(f"{g} x{m:g}" if m != 1 else g for g, m in phase.multipliers if m > 0)
    say(f"phase {number + 1} of {len(run.phases)}, steps {phase.first + 1} to {phase.end}: learning {learns}")


def end_phase(run: Run, number: int, state: TrainState) -> None:
    """Compare each group with its digest at the phase's start and log the result; the guard acts on what is wrong."""
    phase, log = run.phases[number], _read(run)
    entry = log["phases"][number + 1]
    after = fingerprint(state, list(entry["groups"]))
    before = {group: row["sha256_before"] for group, row in entry["groups"].items()}
    for group, row in entry["groups"].items():
        row |= {"sha256_after": after[group], "identical": after[group] == before[group]}
    entry["proven"] = all(row["identical"] for row in entry["groups"].values() if row["frozen"])
    _write(run, log, number)
    for warning in apply_policy(findings(number + 1, phase, before, after), run.config.guards):
        say(f"WARNING {warning}")
    frozen = [row for row in entry["groups"].values() if row["frozen"]]
    if frozen and entry["proven"]:
        arrays, numbers = (sum(row[key] for row in frozen) for key in ("arrays", "numbers"))
        say(
            f"phase {number + 1} of {len(run.phases)} has ended at step {phase.end}: {arrays} frozen arrays "
            f"({numbers:,} numbers: {', '.join(sorted(phase.frozen))}) are bit-identical to its start (transfer.json)"
        )


def _write(run: Run, log: dict[str, Any], number: int) -> None:
    """Write the log up to phase `number`; what an earlier start noted of later ones is dropped."""
    entries = [entry for phase, entry in sorted(log["phases"].items()) if phase <= number + 1]
    write_json(run.folder.transfer, {**log, "phases": entries})


def _read(run: Run) -> dict[str, Any]:
    """Return the log with its entries by phase (from 1); what is damaged of it is left out, and noted again."""
    try:
        log = read_json(run.folder.transfer)
    except UserError:
        log = {}
    entries = log.get("phases")
    whole = filter(_is_entry, entries if isinstance(entries, list) else [])
    return {"pretrained": None, **log, "phases": {entry["phase"]: entry for entry in whole}}


def _is_entry(entry: Any) -> bool:
    groups = entry.get("groups") if isinstance(entry, dict) and isinstance(entry.get("phase"), int) else None
    fields = {"sha256_before", "frozen", "arrays", "numbers"}
    return isinstance(groups, dict) and all(isinstance(row, dict) and fields <= set(row) for row in groups.values())
