"""Rows with all their keys, and what is shown of them."""

import json
from pathlib import Path

import pytest

from heartseg_jax.benchmarking import rows

KNOWN = {
    "config": "quickstart",
    "work": "train",
    "size": 80,
    "batch_size": 8,
    "dtype": "float32",
    "platform": "cpu",
    "device": "cpu",
    "large_pages": True,
    "jax": "0.10.2",
    "python": "3.11.7",
    "date": "2026-11-29T08:00:00+00:00",
}
MEASURED = rows.row_of(
    **KNOWN,
    status="measured",
    images_per_s=32.0,
    step_ms=250.0,
    cpu_ms=400.0,
    flops_per_image=1_500_000_000,
    gflops_per_s=48.0,
    matmul_gflops_per_s=120.0,
    mfu=0.4,
    fed_step_ms=251.5,
    data_wait_ms=0.25,
    peak_bytes=512 * 2**20,
    compile_cold_s=9.5,
    others=0.05,
)
TOO_LARGE = rows.row_of(**KNOWN | {"size": 512}, status="does_not_fit", reason="needs 9.0 GiB")


def test_a_row_has_every_key_and_no_other():
    assert list(TOO_LARGE) == list(rows.KEYS)
    assert (TOO_LARGE["step_ms"], TOO_LARGE["reason"]) == (None, "needs 9.0 GiB")
    with pytest.raises(KeyError, match="speed"):
        rows.row_of(speed=1)


def test_the_file_has_an_object_a_line():
    assert [json.loads(line) for line in rows.lines_of([MEASURED, TOO_LARGE]).splitlines()] == [MEASURED, TOO_LARGE]


def test_the_table():
    machine, product, _, head, _, first, second = rows.table([MEASURED, TOO_LARGE]).splitlines()
    assert machine == "2026-11-29, cpu: cpu, jax 0.10.2, Python 3.11.7, large pages on"
    assert product == "a matrix product: 120 GFLOP/s in float32"
    assert head.split()[:6] == ["config", "work", "size", "batch", "dtype", "images/s"]
    shown = ["32.0", "250.0", "400.0", "1.50", "48", "40%", "512", "9.5", "s", "-", "251.5", "0.25", "5%"]
    assert first.split() == ["quickstart", "train", "80", "8", "float32", *shown]
    assert " ".join(second.split()) == "quickstart train 512 8 float32 does not fit: needs 9.0 GiB"


def test_the_table_of_what_does_not_fit_alone():
    assert "needs 9.0 GiB" in rows.table([TOO_LARGE])


def test_the_page_explains_every_key():
    page = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert [key for key, meaning in rows.KEYS.items() if f"| `{key}` | {meaning} |" not in page] == []
