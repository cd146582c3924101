"""Replicas in one program, and one after the other."""

import jax
import numpy as np
import pytest

from heartseg_jax import settings
from heartseg_jax.tools import lab_arms, lab_run
from heartseg_jax.training.replicas import train_replicas
from tests.tiny import write_tiny


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    dataset = write_tiny(tmp_path_factory.mktemp("data") / "tiny")
    overrides = {"data.size": "16", "model.width": "4", "model.levels": "2", "train.steps": "6", "data.batch_size": "4"}
    _, config = settings.load("configs/lab.py", overrides | {"data.path": str(dataset.path), "train.warmup_steps": "0"})
    return config, dataset


@pytest.mark.parametrize("arm", ["scratch_deep", "random_frozen"])
def test_together_they_come_to_what_each_comes_to_alone(setting, arm):
    config, dataset = setting
    own = lab_arms.arm_config(config, arm)
    program = lab_run.program_of(own)
    folds = lab_arms.folds_of(dataset, lab_arms.Job(arm, "patient", 0, 0))[:2]
    replicas = [lab_run.replica_of(own, program, fold, seed) for seed, fold in enumerate(folds)]
    together = train_replicas(program, replicas, 2, True)
    alone = train_replicas(program, replicas, 2, False)
    for a, b in zip(together, alone, strict=True):
        assert a.stopped is None
        for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4)
        assert [step for step, _, _ in a.curve] == [3, 6]
        assert all(proof["identical"] for proof in a.proofs + b.proofs)
    frozen = together[0].proofs[0]["frozen"]
    assert frozen == (["encoder/stage1", "encoder/stage2"] if arm == "random_frozen" else [])
