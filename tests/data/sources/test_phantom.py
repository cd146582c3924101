"""Phantom patients as a dataset."""

import numpy as np
import pytest

from heartseg_jax.data.sources.phantom import prepare_phantom
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate

SPEC = PhantomSpec((4, 20, 24), (30.0, 12.0, 12.0))


def test_phantoms(tmp_path):
    seen = []
    one = prepare_phantom(
        tmp_path / "one", counts=(3, 1, 1), seed=5, spec=SPEC, threads=1, progress=lambda *a: seen.append(a)
    )
    many = prepare_phantom(tmp_path / "many", patients=5, seed=5, spec=SPEC, threads=4)
    assert seen == [(k, 5) for k in range(1, 6)]
    assert [p.sha256 for p in one.patients] == [p.sha256 for p in many.patients]
    assert [p.splits[0] for p in one.patients] == ["train"] * 3 + ["validation", "test"]
    phantom = generate(5, 2, SPEC)
    np.testing.assert_array_equal(one.images(2), phantom.volume.voxels)
    np.testing.assert_array_equal(one.labels(2), phantom.labels)
    assert one.patients[2].spacing_mm == (30.0, 12.0, 12.0)
    assert one.patients[2].contiguous
    annulus = one.source["mitral_annuli"]["phantom_0002"]
    np.testing.assert_allclose(annulus["centre_mm"], phantom.annulus.centre_mm, atol=1e-3)
    with pytest.raises(UserError, match="either"):
        prepare_phantom(tmp_path / "x")
    with pytest.raises(UserError, match="at least one"):
        prepare_phantom(tmp_path / "x", patients=0)
