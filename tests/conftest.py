"""Fixtures that all tests share."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from absl import flags

# The same small models are compiled again and again: once is enough for a whole session.
_cache = tempfile.TemporaryDirectory(prefix="jax-cache-", ignore_cleanup_errors=True)  # gone when the session ends
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _cache.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Nobody's own salt, tables and compiled programs are read or written by tests.
_own = tempfile.TemporaryDirectory(prefix="config-", ignore_cleanup_errors=True)
os.environ["XDG_CONFIG_HOME"] = _own.name
os.environ["XDG_CACHE_HOME"] = _own.name

# ml_collections and orbax read absl flags; under pytest nobody has parsed them.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the checkout (see CONTRIBUTING)."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        message = f"the real images are not at {path}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(autouse=True)
def xlas_convolutions():
    """A verb that ran in this process has turned the native kernels on: each test starts without them."""
    yield
    if kernels := sys.modules.get("heartseg_jax.models.kernels"):
        kernels.use_native(False)


@pytest.fixture
def small_disk(tmp_path, request):
    """A disk of 300 kB, or of what the test's parameter says, where one can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request, "param", "300k")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
