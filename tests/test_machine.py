"""What the machine lacks is one line that names it; any other error is a bug."""

import pytest

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
