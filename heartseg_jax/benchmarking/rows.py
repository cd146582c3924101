"""A row per cell: its keys, and the table of all. No JAX here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heartseg_jax.progress import duration

Row = dict[str, Any]

KEYS = {
    "config": "name of the config, with its variant",
    "work": "'train' (a step: forward, backward, optimizer) or 'infer' (probabilities of a batch)",
    "size": "images are size x size pixels",
    "batch_size": "images per step, over all devices",
    "dtype": "of the computation",
    "parameters": "trainable parameters, frozen ones included",
    "frozen": "the groups of parameters that do not learn in the measured phase, the run's last",
    "status": "'measured' or 'does_not_fit'",
    "reason": "why it does not fit; null where it was measured, as all below are where it was not",
    "images_per_s": "batch_size / step_ms",
    "step_ms": "median over the timed steps, each waited for, with one batch that stays on the device",
    "step_ms_quartiles": "the first and the third quartile of the same",
    "steps": "how many",
    "cpu_ms": "CPU time of the process per step",
    "flops_per_image": "by arithmetic: convolutions as written, and BatchNorm; a multiply-add counted as two",
    "gflops_per_s": "those of a step per step_ms",
    "matmul_gflops_per_s": "of a product of two square matrices of the dtype, measured beside it, on all devices",
    "mfu": "gflops_per_s / matmul_gflops_per_s: model FLOPs utilisation; above 1 where native kernels need fewer FLOPs",
    "resident": "whether the slices are on the device (data.resident), or sent batch by batch; null for 'infer'",
    "fed_step_ms": "as step_ms, with the run's own input, a batch after another; null for 'infer'",
    "data_wait_ms": "mean time per step that the host waited for that input, and sent it; null for 'infer'",
    "peak_bytes": "peak of memory while steps were timed, of the device with most",
    "peak_of": "'device', or on a CPU 'steps' (resident memory meanwhile) or 'process' (since its start)",
    "planned_bytes": "what the compiler planned: arguments, results and temporaries",
    "compile_cold_s": "to trace and compile the program",
    "compile_warm_s": "to trace it and find it in the compilation cache; null where it was not kept",
    "others": "share of the machine's CPU time that other processes had meanwhile; null where unknown",
    "platform": "'cpu', 'gpu', ...",
    "device": "kind of the devices",
    "devices": "how many computed",
    "large_pages": "whether the process had memory in large pages (docs/performance.md)",
    "native_kernels": "whether layers were computed by this project's own kernels (docs/performance.md)",
    "jax": "version",
    "python": "version",
    "date": "start of the measurement, ISO 8601, UTC",
}
"""The keys of a row, always all of them, and what each means."""

MEASURED, DOES_NOT_FIT = "measured", "does_not_fit"


def row_of(**found: Any) -> Row:
    """Return a row with every key in order, None where nothing is known.

    Raises:
      KeyError: a key is unknown.
    """
    if unknown := set(found) - set(KEYS):
        raise KeyError(f"a row has no {', '.join(sorted(unknown))}")
    return {key: found.get(key) for key in KEYS}


def lines_of(rows: Sequence[Row]) -> str:
    """Return the rows as JSON, one a line."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def brief(row: Row) -> str:
    """Return what was found in a few words."""
    if row["status"] == DOES_NOT_FIT:
        return f"does not fit: {row['reason']}"
    return f"{_ms(row['step_ms'])} ms a step, {row['images_per_s']:.3g} images/s, {row['mfu']:.0%} of a matrix product"


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for the terminal, below a line on the machine."""
    columns: Mapping[str, Any] = {
        "config": lambda r: r["config"],
        "work": lambda r: r["work"],
        "size": lambda r: str(r["size"]),
        "batch": lambda r: str(r["batch_size"]),
        "dtype": lambda r: r["dtype"],
        "images/s": lambda r: f"{r['images_per_s']:.1f}",
        "step, ms": lambda r: _ms(r["step_ms"]),
        "CPU, ms": lambda r: _ms(r["cpu_ms"]),
        "GFLOP/image": lambda r: f"{r['flops_per_image'] / 1e9:.2f}",
        "GFLOP/s": lambda r: f"{r['gflops_per_s']:.0f}",
        "MFU": lambda r: f"{r['mfu']:.0%}",
        "peak, MiB": lambda r: f"{r['peak_bytes'] / 2**20:.0f}",
        "compile": lambda r: duration(r["compile_cold_s"]),
        "cached": lambda r: "-" if r["compile_warm_s"] is None else duration(r["compile_warm_s"]),
        "fed, ms": lambda r: "" if r["fed_step_ms"] is None else _ms(r["fed_step_ms"]),
        "data wait, ms": lambda r: "" if r["data_wait_ms"] is None else f"{r['data_wait_ms']:.2f}",
        "others": lambda r: "-" if r["others"] is None else f"{r['others']:.0%}",
    }
    words = 5  # the columns that say which cell it is, which one that does not fit has too
    cells = [list(columns)]
    for row in rows:
        shown = columns.values() if row["status"] == MEASURED else list(columns.values())[:words]
        cells.append([show(row) for show in shown])
    widths = [max((len(line[i]) for line in cells if i < len(line)), default=0) for i in range(len(columns))]
    lines = []
    for number, line in enumerate(cells):
        text = [word.ljust(widths[i]) if i in (0, 1, 4) else word.rjust(widths[i]) for i, word in enumerate(line)]
        own = rows[number - 1] if number else None
        lines.append("  ".join([*text, brief(own)] if own and own["status"] == DOES_NOT_FIT else text).rstrip())
    return "\n".join([*_machines(rows), "", lines[0], "-" * len(lines[0]), *lines[1:]])


def _machines(rows: Sequence[Row]) -> list[str]:
    """Return a line for each machine and setting of the rows: one, unless rows of several runs are shown together."""
    said = [
        f"{row['date'][:10]}, {row['platform']}: {row['device']}, jax {row['jax']}, Python {row['python']}, "
        f"large pages {'on' if row['large_pages'] else 'off'}"
        for row in rows
        if row["date"]  # not of a process that was killed
    ]
    peaks = {row["dtype"]: f"{row['matmul_gflops_per_s']:.0f}" for row in rows if row["status"] == MEASURED}
    products = [f"a matrix product: {', '.join(f'{peak} GFLOP/s in {dtype}' for dtype, peak in peaks.items())}"]
    return [*dict.fromkeys(said), *(products if peaks else [])]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.1f}"
