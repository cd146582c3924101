"""Compiled programs are kept from run to run: where, within what bounds, and what a second run compiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from heartseg_jax import compilation_cache
from heartseg_jax.compilation_cache import machine, open_cache
from tests.tiny import OVERRIDES, flags, write_tiny

ROOT = Path(__file__).parents[1]
OURS = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", *compilation_cache.SETTINGS)
COUNTED = """
import collections, json, sys, jax, main
from absl import flags
flags.FLAGS.mark_as_parsed()
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event.rpartition("/")[2]]))
status = main.main(sys.argv[1:])
print(json.dumps(seen))
sys.exit(status)
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Where programs are kept by default; JAX is as a user has it who set nothing. The suite's cache comes back."""
    before = {name: getattr(jax.config, name) for name in OURS}
    jax.config.update("jax_compilation_cache_dir", None)
    jax_cache.reset_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in compilation_cache.SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)
    yield tmp_path / "heartseg_jax" / machine()
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def compile_one(number: float) -> compilation_cache.Requests:
    with compilation_cache.requests() as asked:
        jax.jit(lambda x: x * number).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()
    return asked


def test_the_default_folder_is_the_users_own_and_bounded(cache):
    assert open_cache() == cache
    assert cache.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir == str(cache)
    assert jax.config.jax_compilation_cache_max_size == 512 * 1024**2


def test_a_relative_cache_home_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in ("", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", words)
        assert compilation_cache.default_folder() == tmp_path / ".cache/heartseg_jax"


def test_a_folder_of_the_users_own_and_off_go_before_the_default(cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert open_cache() == tmp_path / "own"
    assert jax.config.jax_compilation_cache_max_size == -1
    assert open_cache(str(tmp_path / "asked")) == tmp_path / "asked" / machine()
    assert open_cache("off") is None
    assert not jax.config.jax_enable_compilation_cache
    assert compile_one(1.5).found == 0 < compile_one(5.5).made
    assert open_cache() is None  # JAX_ENABLE_COMPILATION_CACHE=false of the user's stays
    assert not cache.exists()


def test_what_was_compiled_is_found_again(cache, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    open_cache()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    first, again, other = compile_one(2.5), compile_one(2.5), compile_one(3.5)
    assert [one.all_found for one in (first, again, other)] == [False, True, False]


def test_a_half_written_program_is_removed_and_a_whole_one_kept(cache):
    open_cache()
    for name in ("killed-cache", "whole-cache", "whole-atime"):
        (cache / name).write_bytes(b"x")
    jax.config.update("jax_compilation_cache_dir", None)  # as in the next process
    open_cache()
    assert {path.name for path in cache.glob("*-*")} == {"whole-cache", "whole-atime"}


def test_programs_of_a_machine_that_is_gone_are_removed(cache):
    for name, days in (("gone", 61), ("here", 59)):
        (cache.parent / name).mkdir(parents=True)
        (cache.parent / name / ".used").touch()
        then = (cache.parent / name / ".used").stat().st_mtime - days * 86_400
        os.utime(cache.parent / name / ".used", (then, then))
    (cache.parent / "foreign").mkdir()
    open_cache()
    assert {path.name for path in cache.parent.iterdir()} == {"here", "foreign", cache.name}


def test_a_folder_that_cannot_be_made_is_one_line_and_no_error(cache, capsys):
    cache.parent.write_text("a file")
    assert open_cache() is None
    said = capsys.readouterr().err
    assert "--compilation_cache" in said
    assert said.count("\n") == 1
    assert compile_one(4.5).found == 0


def test_machines_with_other_instructions_have_other_folders(tmp_path):
    found = set()
    for mhz, instructions in ((1, "sse2 avx2"), (2, "sse2 avx2"), (1, "sse2 avx2 avx512f")):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\ncpu MHz : {mhz}\nflags : {instructions}\n")
        found.add(machine(tmp_path / "cpuinfo"))
    assert len(found) == 2


def test_the_second_run_of_a_config_compiles_nothing_again(tmp_path):
    write_tiny(tmp_path / "d")
    small = flags(OVERRIDES | {"model.width": "4", "model.levels": "2", "train.epochs": "1", "log.figures": "false"})
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment = {**own, "XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    counted = []
    for run in ("first", "second"):
        words = [
            "--config=configs/quickstart.py",
            f"--config.data.path={tmp_path / 'd'}",
            f"--workdir={tmp_path / run}",
        ]
        ended = subprocess.run(
            [sys.executable, "-c", COUNTED, *words, *small],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        counted.append((json.loads(ended.stdout.splitlines()[-1]), ended.stderr))
    (first, said_first), (second, said_second) = counted
    assert first["cache_misses"] > 0
    assert second["compile_requests_use_cache"] == second["cache_hits"] > 0
    assert "found in the compilation cache" not in said_first
    assert "found in the compilation cache" in said_second
    names = " ".join(path.name for path in (tmp_path / "heartseg_jax" / machine()).iterdir())
    assert "jit_step" in names
