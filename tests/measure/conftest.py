"""Fixtures of this folder."""

import pytest

from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate


@pytest.fixture(scope="session")
def phantom():
    """A heart that no check doubts, in voxels of 4 mm; not to be changed."""
    return generate(5, 0, PhantomSpec((44, 60, 60), (4.0, 4.0, 4.0)))
