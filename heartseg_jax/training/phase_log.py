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
    """Write the digests at the start of phase `number` (from 0); a phase that is resumed keeps those of its start."""
    phase, log = run.phases[number], _read(run)
    step = int(jax.device_get(state.step))
    if number + 1 in log["phases"] and step > phase.first:
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
    after = fingerprints.fingerprint(state.params, state.batch_stats, list(entry["groups"]))
    before = {group: row["sha256_before"] for group, row in entry["groups"].items()}
    for group, row in entry["groups"].items():
        row |= {"sha256_after": after[group], "identical": after[group] == before[group]}
    entry["proven"] = all(row["identical"] for row in entry["groups"].values() if row["frozen"])
    _write(run, log, number)
    for warning in apply_policy(fingerprints.findings(number + 1, phase, before, after), run.config.guards):
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
