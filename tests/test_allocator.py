"""A process that computes starts again with large pages, once; any other goes on as it is."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from heartseg_jax import allocator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def started(monkeypatch):
    """The (program, arguments, environment) that a restart would have; the system offers large pages."""
    found = []
    monkeypatch.setattr(os, "execve", lambda *call: found.append(call))
    monkeypatch.setattr(allocator, "offered", lambda: True)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "utf8", "main.py", "train"])
    return found


@pytest.mark.parametrize("words", [["train"], ["--config=c.py"], ["predict", "--input=study"], []])
def test_a_verb_that_computes_starts_again_as_it_was_called(started, words):
    allocator.start_again_with_large_pages(words)
    ((program, arguments, environment),) = started
    assert program == sys.executable
    assert arguments == [sys.executable, "-X", "utf8", "main.py", "train"]
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert environment["PATH"] == os.environ["PATH"]


def test_other_settings_of_the_user_are_kept(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    allocator.start_again_with_large_pages(["train"])
    assert started[0][2]["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("words", [["check"], ["inspect"], ["prepare"], ["train", "--large_pages=off"]])
def test_what_computes_nothing_or_is_told_not_to_goes_on(started, words):
    allocator.start_again_with_large_pages(words)
    assert not started


@pytest.mark.parametrize("own", ["glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=0"])
def test_a_choice_of_the_user_stands_and_there_is_no_second_restart(started, monkeypatch, own):
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    allocator.start_again_with_large_pages(["train"])
    assert not started


@pytest.mark.parametrize(
    ("library", "state", "expected"),
    [
        ("glibc 2.36", "always [madvise] never", True),
        ("glibc 2.35", "[always] madvise never", True),
        ("glibc 2.34", "always [madvise] never", False),
        ("glibc 2.36", "always madvise [never]", False),
        ("musl 1.2", "always [madvise] never", False),
    ],
)
def test_where_large_pages_are_offered(monkeypatch, tmp_path, library, state, expected):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    (tmp_path / "enabled").write_text(state)
    assert allocator.offered(tmp_path / "enabled") is expected


def test_a_system_without_them_offers_none(tmp_path):
    assert not allocator.offered(tmp_path / "absent")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_given_back():
    code = """
from heartseg_jax import allocator
def resident_mib():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
blocks = [bytearray(65_000) for _ in range(4000)]
blocks = blocks[-1:]  # the heap's last block stays, so that free does not shrink the heap by itself
before = resident_mib()
allocator.give_back()
print(before, resident_mib())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = map(int, told.stdout.split())
    assert before > 240
    assert after < 100


def test_a_program_of_independent_parts_needs_memory_for_few_of_them_at_once():
    def program(x):
        return sum(jnp.sort(x + part)[::1000].sum() for part in range(8))

    given = jax.ShapeDtypeStruct((250_000,), jnp.float32)  # a MB
    options = (None, allocator.least_memory())
    ours = [jax.jit(program, compiler_options=o).lower(given).compile().memory_analysis() for o in options]
    default, frugal = (analysis.temp_size_in_bytes / 1e6 for analysis in ours)
    assert default >= 8
    assert frugal <= 3
