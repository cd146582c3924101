"""Programs compiled while phantoms are made: what the run needs is there, and nothing else depends on it."""

import threading

import jax
import numpy as np
import pytest

from heartseg_jax import workdir as runs
from heartseg_jax.config import load
from heartseg_jax.data.run_dataset import dataset_for, phantoms_to_make
from heartseg_jax.errors import UserError
from heartseg_jax.training import ahead, devices
from heartseg_jax.training.train import train

SMALL = {
    "data.size": "16",
    "data.mm_per_pixel": "20",
    "data.batch_size": "4",
    "data.phantom.shape": "6,16,16",
    "data.phantom.spacing_mm": "20,20,20",
    "data.phantom.train": "2",
    "data.phantom.validation": "1",
    "data.phantom.test": "1",
    "model.width": "4",
    "model.levels": "2",
    "train.epochs": "1",
    "log.figures": "false",
    "guards.images": "warn",
}


@pytest.fixture
def config():
    return load.load("configs/quickstart.py", SMALL)[1]


def test_the_blank_dataset_has_the_phantoms_shapes_and_splits(config, tmp_path):
    blank = phantoms_to_make(config, tmp_path / "run")
    made = dataset_for(config, tmp_path / "run")
    assert phantoms_to_make(config, tmp_path / "run") is None
    assert blank.intensity == made.intensity
    for one, other in zip(blank.patients, made.patients, strict=True):
        assert (one.id, one.splits, one.spacing_mm, one.contiguous) == (
            other.id, other.splits, other.spacing_mm, other.contiguous
        )  # fmt: skip
        for read in ("images", "labels"):
            found, expected = getattr(blank, read)(one), getattr(made, read)(other)
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            assert not np.any(found)


@pytest.mark.parametrize("resident", [True, False])
def test_the_run_finds_its_programs_compiled(config, tmp_path, resident):
    """Of the network's large programs none is compiled a second time: neither steps, nor init, nor prediction."""
    folder, compiled = runs.Workdir(tmp_path / "run"), []
    config = load.changed(config, {"data.resident": "auto" if resident else "off"})

    def listen(event, duration_secs, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    large = ("jit(step)", "jit(init)", "jit(probabilities)")
    try:
        with ahead.compiling(config, folder, phantoms_to_make(config, folder.path)) as found:
            dataset_for(config, folder.path)
            assert found.residence.result().resident == resident
        assert sorted(name for name in compiled if name in large) == sorted(
            (*large, "jit(step)")
        )  # training, evaluation
        compiled.clear()
        train(config, folder.path, [])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [name for name in compiled if name in large]


def test_what_fails_ahead_is_not_the_runs_failure(config, tmp_path, monkeypatch, capsys):
    folder = runs.Workdir(tmp_path / "run")
    blank = phantoms_to_make(config, folder.path)
    for error, said in ((UserError("too large"), ""), (ValueError("broken"), "broken")):
        monkeypatch.setattr(devices, "compile_step", lambda *_, error=error: (_ for _ in ()).throw(error))
        with ahead.compiling(config, folder, blank) as compiled:
            assert compiled.step.wait(60)
        assert not compiled.is_compiled
        assert said in capsys.readouterr().err


def test_an_error_beside_it_is_raised_and_waits_for_the_compiler(config, tmp_path, monkeypatch):
    folder, ended = runs.Workdir(tmp_path / "run"), threading.Event()
    monkeypatch.setattr(ahead, "_compile", lambda *_: ended.set())
    with pytest.raises(UserError, match="full"), ahead.compiling(config, folder, phantoms_to_make(config, folder.path)):
        raise UserError("the disk is full")
    assert ended.is_set()


def test_without_phantoms_nothing_is_compiled_ahead(config, tmp_path):
    with ahead.compiling(config, runs.Workdir(tmp_path), None) as compiled:
        assert compiled.step.is_set()
    assert not compiled.is_compiled
