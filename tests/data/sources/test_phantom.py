"""Phantom patients as a dataset."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.phantom import phantom
from heartseg_jax.data.sources.write_cases import write_cases
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate

SPEC = PhantomSpec((4, 20, 24), (30.0, 12.0, 12.0))


def source(train, validation, test):
    counts = {"train": train, "validation": validation, "test": test}
    return phantom(Options(phantom=ConfigDict({"seed": 5, **dataclasses.asdict(SPEC), **counts})))


def test_phantoms(tmp_path):
    one = write_cases(tmp_path / "one", source(3, 1, 1)._replace(workers=1))
    many = write_cases(tmp_path / "many", source(3, 1, 1)._replace(workers=4))
    assert one.patients == many.patients
    assert (one.path / "dataset.json").read_bytes() == (many.path / "dataset.json").read_bytes()
    assert [p.splits[0] for p in one.patients] == ["train"] * 3 + ["validation", "test"]
    made = generate(5, 2, SPEC)
    np.testing.assert_array_equal(one.images(2), made.volume.voxels)
    np.testing.assert_array_equal(one.labels(2), made.labels)
    assert one.patients[2].spacing_mm == (30.0, 12.0, 12.0)
    assert one.patients[2].contiguous
    assert list(one.source) == ["kind", "version", "seed", "spec", "descriptions", "mitral_annuli"]
    annulus = one.source["mitral_annuli"]["phantom_0002"]
    np.testing.assert_allclose(annulus["centre_mm"], made.annulus.centre_mm, atol=1e-3)


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, -1, 1)])
def test_numbers_of_patients_that_cannot_be(counts):
    with pytest.raises(UserError, match="at least one"):
        source(*counts)


def test_without_a_config_there_are_no_phantoms():
    with pytest.raises(UserError, match="--config"):
        phantom(Options())
