"""The run's log of its phases: `transfer.json`, with the proof that frozen groups did not change."""

from __future__ import annotations

from typing import Any

import jax

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json
from heartseg_jax.findings import apply_policy
from heartseg_jax.progress import say
from heartseg_jax.training import fingerprints
from heartseg_jax.training.run import Run
from heartseg_jax.training.steps import TrainState


def start_phase(run: Run, number: int, state: TrainState) -> None:
    """Note the digests with which phase `number` (from 0) begins; a phase taken up again keeps those it began with."""
    phase, log = run.phases[number], _read(run)
    if number < len(log["phases"]) and int(jax.device_get(state.step)) > phase.first:
        return
    names = [group for group, _ in phase.multipliers]
    sizes = fingerprints.sizes(state.params, state.batch_stats, names)
    digests = fingerprints.fingerprint(state.params, state.batch_stats, names)
    groups = {
        group: {
            "multiplier": multiplier,
            "frozen": multiplier == 0,
            "arrays": sizes[group][0],
            "numbers": sizes[group][1],
            "sha256_before": digests[group],
        }
        for group, multiplier in phase.multipliers
    }
    entry = {
        "phase": number + 1,
        "first_step": phase.first + 1,
        "last_step": phase.end,
        "noted_from_step": int(jax.device_get(state.step)) + 1,
        "groups": groups,
    }
    log["phases"] = [*log["phases"][:number], entry]
    write_json(run.folder.transfer, log)
    learns = ", ".join(f"{g} x{m:g}" if m != 1 else g for g, m in phase.multipliers if m > 0)
    say(f"phase {number + 1} of {len(run.phases)}, steps {phase.first + 1} to {phase.end}: learning {learns}")


def end_phase(run: Run, number: int, state: TrainState) -> None:
    """Compare with the phase's beginning, write and tell what was found; the guard acts on what should not be."""
    phase, log = run.phases[number], _read(run)
    entry = log["phases"][number]
    after = fingerprints.fingerprint(state.params, state.batch_stats, list(entry["groups"]))
    before = {group: row["sha256_before"] for group, row in entry["groups"].items()}
    for group, row in entry["groups"].items():
        row |= {"sha256_after": after[group], "identical": after[group] == before[group]}
    entry["proven"] = all(row["identical"] for row in entry["groups"].values() if row["frozen"])
    write_json(run.folder.transfer, log)
    for warning in apply_policy(fingerprints.findings(number + 1, phase, before, after), run.config.guards):
        say(f"WARNING {warning}")
    frozen = [row for row in entry["groups"].values() if row["frozen"]]
    if frozen and entry["proven"]:
        arrays, numbers = (sum(row[key] for row in frozen) for key in ("arrays", "numbers"))
        say(
            f"phase {number + 1} of {len(run.phases)} has ended at step {phase.end}: {arrays} frozen arrays "
            f"({numbers:,} numbers: {', '.join(sorted(phase.frozen))}) are bit-identical to its start (transfer.json)"
        )


def _read(run: Run) -> dict[str, Any]:
    try:
        log = read_json(run.folder.transfer)
    except UserError:
        return {"pretrained": None, "phases": []}
    return log if isinstance(log.get("phases"), list) else {"pretrained": None, "phases": []}
