"""Arrays that were changed in place are found when a dataset is opened, and what was compared is not read again."""

import json
import os
import shutil

import numpy as np
import pytest

import main
from heartseg_jax.data.dataset import verify
from heartseg_jax.data.dataset.read import read_dataset
from heartseg_jax.errors import UserError
from tests.tiny import OVERRIDES, flags, write_tiny


def roll(path):
    """Move every row in the file by 20, in place: size, shape and dtype stay."""
    array = np.lib.format.open_memmap(path, mode="r+")
    array[:] = np.roll(array, 20, axis=1)
    array.flush()


@pytest.fixture
def dataset(tmp_path):
    return write_tiny(tmp_path / "d")


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_array_changed_in_place_is_refused_by_the_patients_name(dataset, kind):
    verify.check_arrays(dataset)
    roll(dataset.path / f"c.{kind}.npy")
    with pytest.raises(UserError, match=f"the {kind} of patient c in "):
        verify.check_arrays(read_dataset(dataset.path))


def test_what_was_compared_is_not_read_again_until_it_is_touched(dataset, monkeypatch):
    read = []
    digest = verify.digest
    monkeypatch.setattr(verify, "digest", lambda array: read.append(1) or digest(array))
    calls = []
    verify.check_arrays(dataset, lambda done, total: calls.append((done, total)))
    assert (len(read), calls) == (10, [(k, 5) for k in range(1, 6)])
    verify.check_arrays(dataset)
    assert len(read) == 10
    os.utime(dataset.path / "a.images.npy")
    verify.check_arrays(dataset)
    assert len(read) == 11
    copy = shutil.copytree(dataset.path, dataset.path.parent / "copy")
    verify.check_arrays(read_dataset(copy))
    assert len(read) == 21


def test_a_change_is_seen_although_the_time_of_writing_is_set_back(dataset):
    verify.check_arrays(dataset)
    file = dataset.path / "a.images.npy"
    before = file.stat()
    roll(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="images of patient a"):
        verify.check_arrays(dataset)


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"a.images.npy": 1}'])
def test_a_damaged_memory_means_that_all_is_compared(dataset, content):
    (dataset.path / verify.CHECKED).write_text(content)
    verify.check_arrays(dataset)
    assert len(json.loads((dataset.path / verify.CHECKED).read_text())) == 10


def test_a_run_on_changed_arrays_does_not_start(dataset, tmp_path, capsys):
    roll(dataset.path / "b.images.npy")
    words = flags(OVERRIDES | {"data.path": str(dataset.path)})
    assert main.main(["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", *words]) == 2
    assert "the images of patient b in " in capsys.readouterr().err
