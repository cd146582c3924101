"""What the machine lacks is one line that names it; any other error is a bug. Whether it has only a CPU."""

import jax
import pytest

from heartseg_jax import machine
from heartseg_jax.machine import refused_by_machine


def xla(text):
    return type("XlaRuntimeError", (RuntimeError,), {})(text)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (PermissionError(13, "Permission denied", "runs/x"), "runs/x: Permission denied"),
        (OSError(28, "No space left on device"), "disk is full"),
        (OSError(28, "No space left on device", "runs/x"), "runs/x"),
        (OSError("98304 requested and 1984 written"), "disk is full"),
        (ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"), "disk is full"),
        (MemoryError(), "data.batch_size"),
        (xla("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), "Out of memory allocating 8 bytes"),
    ],
)
def test_it_is_named_in_one_line(error, named):
    said = refused_by_machine(error)
    assert named in said
    assert "\n" not in said


@pytest.mark.parametrize("error", [ValueError("x"), xla("INTERNAL: x"), OSError("x"), AssertionError(), KeyError("x")])
def test_a_bug_is_not(error):
    assert refused_by_machine(error) is None


def test_jax_without_a_device(monkeypatch):
    import jax

    def devices():
        raise RuntimeError("Unable to initialize backend")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert "JAX_PLATFORMS=cuda" in refused_by_machine(AssertionError())
    monkeypatch.delenv("JAX_PLATFORMS")
    assert "JAX_PLATFORMS=cpu" in refused_by_machine(RuntimeError("no such device"))


VARIABLES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "XLA_FLAGS")


@pytest.fixture
def bare(monkeypatch):
    """Nothing that computes on accelerators is installed, and no variable names any."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ())
    return monkeypatch


def test_without_plugins_there_is_only_the_cpu(bare):
    assert machine.has_only_cpu()
    assert machine.devices() == ("cpu", ["cpu"])
    bare.setenv("JAX_PLATFORMS", "cpu")
    assert machine.has_only_cpu()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "cuda,cpu"),
        ("JAX_PLATFORM_NAME", "gpu"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=8"),
    ],
)
def test_a_variable_that_may_say_otherwise_leaves_it_to_jax(bare, name, value):
    bare.setenv(name, value)
    assert not machine.has_only_cpu()
    assert machine.devices() == (jax.default_backend(), [device.device_kind for device in jax.devices()])


@pytest.mark.parametrize("installed", ["jax_plugins", "libtpu"])
def test_an_installed_plugin_leaves_it_to_jax(bare, installed):
    bare.setattr("importlib.util.find_spec", lambda name: name if name == installed else None)
    assert not machine.has_only_cpu()


def test_a_plugin_that_names_itself_leaves_it_to_jax(bare):
    bare.setattr("importlib.metadata.entry_points", lambda group: ("one",) if group == "jax_plugins" else ())
    assert not machine.has_only_cpu()
