"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from absl import flags

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
