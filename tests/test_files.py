"""Files that appear whole or not at all, and JSON of the right shape."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from heartseg_jax import files
from heartseg_jax.errors import UserError


def test_a_file_appears_at_the_end_under_its_own_suffix(tmp_path):
    with files.writing(tmp_path / "deep" / "volume.nii.gz") as partial:
        assert partial.parent == tmp_path / "deep"
        assert partial.name.endswith("volume.nii.gz")
        partial.write_bytes(b"1")
        assert not (tmp_path / "deep" / "volume.nii.gz").exists()
    assert os.listdir(tmp_path / "deep") == ["volume.nii.gz"]


def fail(_, stop):
    raise stop


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, stop):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(stop), files.writing(path) as partial:
        fail(partial.write_text("half"), stop)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_name_of_the_longest_length_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_folder_appears_as_a_whole_and_replaces_only_when_asked(tmp_path):
    path = tmp_path / "set"
    with files.new_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("1")
        assert not path.exists()
    with pytest.raises(UserError, match=str(path)), files.new_folder(path) as partial:
        (partial / "b").write_text("2")
    assert [p.name for p in path.iterdir()] == ["inner"]
    with pytest.raises(ZeroDivisionError), files.new_folder(path, overwrite=True) as partial:
        raise ZeroDivisionError
    assert [p.name for p in path.iterdir()] == ["inner"]
    with files.new_folder(path, overwrite=True) as partial:
        (partial / "b").write_text("2")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert os.listdir(tmp_path) == ["set"]


def test_a_place_that_cannot_be_written_to_is_known_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for possible in ("new", "new/deeper", "folder", "folder/new", "file"):
        files.check_writable(tmp_path / possible)
    for impossible in (tmp_path / "file" / "below", Path("/proc/below/deeper"), Path("/proc/below")):
        with pytest.raises(OSError, match=re.escape(str(impossible))):
            files.check_writable(impossible)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "set").mkdir()
    with files.new_folder(tmp_path / "set") as partial:
        (partial / "b").write_text("2")
    assert os.listdir(tmp_path / "set") == ["b"]


@pytest.mark.parametrize("there", ["empty", "full", "nothing"])
def test_a_link_stays_and_leads_to_the_new_folder(tmp_path, there):
    place, link = tmp_path / "disk" / "place", tmp_path / "link"
    if there != "nothing":
        place.mkdir(parents=True)
    if there == "full":
        (place / "old").write_text("old")
    link.symlink_to(place)
    with files.new_folder(link, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert link.is_symlink()
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in place.parent.iterdir()] == ["place"]


def test_what_killed_processes_left_is_removed_and_what_others_write_is_kept(tmp_path):
    code = (
        "import os, signal, sys; from heartseg_jax import files\n"
        "with files.writing(sys.argv[1] + '/a.txt') as a, files.new_folder(sys.argv[1] + '/b') as b:\n"
        "    a.write_text('half'); (b / 'c').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).resolve().parents[1])
    left = set(os.listdir(tmp_path))
    assert len(left) == 2
    alive = tmp_path / f"{files.PREFIX}{files.HOST}-{os.getppid()}-0-a.txt"
    elsewhere = tmp_path / f"{files.PREFIX}00000000-{2**22 + 1}-0-a.txt"
    replaced = tmp_path / f"{files.PREFIX}old-{files.HOST}-{2**22 + 1}-0-b"
    for path in (alive, elsewhere, replaced):
        path.write_text("")
    files.write_text(tmp_path / "a.txt", "whole")
    assert set(os.listdir(tmp_path)) == {"a.txt", alive.name, elsewhere.name, replaced.name}


def test_an_older_folder_is_put_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "set"
    with files.new_folder(path) as partial:
        (partial / "a").write_text("1")
    rename = Path.rename

    def refuse(self, target):
        if target == path and f"{files.PREFIX}old" not in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(KeyboardInterrupt), files.new_folder(path, overwrite=True) as partial:
        (partial / "b").write_text("2")
    assert os.listdir(tmp_path) == ["set"]
    assert os.listdir(path) == ["a"]


ARRAY = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
WRITERS = {
    "bytes": lambda path: path.write_bytes(ARRAY.tobytes()),
    "numpy": lambda path: np.save(path, ARRAY),  # a short write: an OSError without a number
    "npz": lambda path: np.savez(path, a=ARRAY),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(small_disk, kind):
    suffix = {"numpy": ".npy", "npz": ".npz"}.get(kind, "")
    with pytest.raises(UserError, match="disk is full") as error, files.writing(small_disk / f"a{suffix}") as partial:
        WRITERS[kind](partial)
    assert str(small_disk / f"a{suffix}") in str(error.value)
    with pytest.raises(UserError, match="disk is full"), files.new_folder(small_disk / "b") as partial:
        WRITERS[kind](partial / f"a{suffix}")
    assert os.listdir(small_disk) == []


def test_a_line_that_did_not_fit_is_taken_back(small_disk):
    path = small_disk / "rows.jsonl"
    files.append_line(path, "first")
    with pytest.raises(UserError, match="disk is full"):
        files.append_line(path, "x" * 400_000)
    assert path.read_text() == "first\n"


def test_a_limit_of_file_size_counts_as_a_full_disk(tmp_path):
    code = (
        "import sys; from heartseg_jax import files; from heartseg_jax.errors import UserError\n"
        "try: files.write_text(sys.argv[1], 'x' * 400_000)\n"
        "except UserError as error: print(error)"
    )
    run = subprocess.run(
        ["bash", "-c", f"ulimit -f 100; exec {sys.executable} -c \"$0\" {tmp_path}/big", code],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert "disk is full" in run.stdout, run.stderr
    assert f"{tmp_path}/big" in run.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (ValueError("RESOURCE_EXHAUSTED: Error writing 'params.a/0' ... No space left on device"), True),
        (ValueError("OUT_OF_RANGE: Failed to write 869170 bytes to file 4: File too large [os_error_code='27']"), True),
        (OSError("98304 requested and 1984 written"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"), False),
        (OSError(13, "Permission denied"), False),
        (ValueError("3 requested"), False),
    ],
)
def test_what_means_a_full_disk(error, full):
    assert files.is_full_disk(error) is full
    behind = KeyError("x")
    behind.__context__ = error
    assert files.is_full_disk(behind) is full


def test_json_is_strict_both_ways(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert not path.exists()
    files.write_json(path, {"a": [1, None]})
    assert files.read_json(path) == {"a": [1, None]}
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(path, list) == [1]


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b'"x"', b"[1]", b"3", b"{", b"", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1, "a": 2}',
                b"[" * 100_000]
)  # fmt: skip
def test_json_of_another_shape_names_the_file_and_the_fix(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="make it again") as error:
        files.read_json(path, fix="make it again")
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 300


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        files.read_json(tmp_path / "none.json")
