"""Several trainings side by side: the same whether they share a program or not."""

import jax
import numpy as np
import pytest

from heartseg_jax.config import load
from heartseg_jax.data.dataset.write import with_test_patients
from heartseg_jax.data.examples import SliceStore
from heartseg_jax.lab.ensemble_training import Replica, train_replicas
from heartseg_jax.lab.run import program_of
from heartseg_jax.preprocess.contract import input_spec
from heartseg_jax.training import steps
from heartseg_jax.training.phase_steps import phase_program
from tests.tiny import OVERRIDES, write_tiny

STEPS = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("replicas") / "data")


def configured(**changes):
    small = {"model.width": "4", "model.levels": "2", "model.norm": "none", "train.steps": str(STEPS)}
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load.load("configs/quickstart.py", OVERRIDES | small | dotted)[1]


def replicas_of(config, dataset, seeds=(0, 1)):
    """A program, and a replica for each seed, each of which leaves another patient out."""
    program = program_of(config)
    spec = input_spec(config.data, dataset.intensity)
    found = []
    for patient, seed in zip("ab", seeds, strict=False):
        fold = with_test_patients(dataset, (patient,))
        seen, unseen = (SliceStore(fold, split, spec, 1.0) for split in ("train", "test"))
        weights = steps.init_params(program.model, jax.random.key(seed), config.data.size)
        found.append(Replica(seen, unseen, seed, *weights))
    return program, found


def close(one, other, but: tuple[str, ...] = ()):
    """Compare two trees, without the leaves whose path ends in one of `but`."""
    named = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(named, jax.tree.leaves(other), strict=True):
        name = "/".join(part.key for part in path)
        if not name.endswith(but):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def thawing(dataset):
    """Two phases, BatchNorm in the encoder: trained both ways, with the weights before step 1."""
    program, replicas = replicas_of(configured(model__norm="encoder", transfer__schedule="lp_ft"), dataset)
    before = jax.tree.map(np.array, [(r.params, r.batch_stats) for r in replicas])
    return program, replicas, before, [train_replicas(program, replicas, 2, together) for together in (False, True)]


def test_together_gives_what_one_after_the_other_gives(thawing):
    alone, together = thawing[3]
    for one, other in zip(alone, together, strict=True):
        assert one.stopped is None
        assert other.stopped is None
        # A bias before BatchNorm has a true gradient of zero: Adam turns what rounding leaves of it into steps of
        # full size, and the running mean follows the bias. No output depends on the two but through their difference.
        close(one.params["encoder"], other.params["encoder"], but=("conv1/bias", "conv2/bias"))
        close(one.params["decoder"], other.params["decoder"])
        close(one.params["head"], other.params["head"])
        close(one.batch_stats, other.batch_stats, but=("mean",))
        np.testing.assert_allclose(one.curve, other.curve, rtol=0, atol=1e-3)
    assert not np.allclose(alone[0].params["head"]["kernel"], alone[1].params["head"]["kernel"])


def test_it_looks_as_often_as_it_was_told_and_at_the_end(thawing):
    for outcome in thawing[3][0]:
        assert [row[0] for row in outcome.curve] == [2, STEPS]
        assert all(0 <= value <= 1 for row in outcome.curve for value in row[1:])


def test_the_caller_keeps_the_weights_that_it_gave(thawing):
    """Steps overwrite the state they are given: the same replica must be able to start again."""
    _, replicas, before, _ = thawing
    now = [(r.params, r.batch_stats) for r in replicas]
    jax.tree.map(np.testing.assert_array_equal, now, before)


def test_what_a_phase_freezes_is_proven_frozen(thawing):
    for outcome in (outcome for way in thawing[3] for outcome in way):
        first, second = outcome.proofs
        assert (first["first_step"], first["last_step"], second["first_step"], second["last_step"]) == (1, 2, 3, 4)
        assert first["frozen"] == ["encoder/stage1", "encoder/stage2"]
        assert first["identical"]
        assert second["frozen"] == []


def test_a_frozen_encoder_ends_as_it_began_and_the_rest_does_not(dataset):
    program, replicas = replicas_of(configured(model__norm="encoder", transfer__schedule="frozen"), dataset)
    for replica, outcome in zip(replicas, train_replicas(program, replicas, 1, False), strict=True):
        jax.tree.map(np.testing.assert_array_equal, replica.params["encoder"], outcome.params["encoder"])
        jax.tree.map(np.testing.assert_array_equal, replica.batch_stats, outcome.batch_stats)
        assert not np.array_equal(replica.params["head"]["kernel"], outcome.params["head"]["kernel"])


def test_a_fold_that_blows_up_says_so_and_leaves_its_neighbour_alone(dataset):
    program, (well, ill) = replicas_of(configured(), dataset)
    broken = ill._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, ill.params))
    sound, burst = train_replicas(program, [well, broken], 2, True)
    assert burst.stopped == "the loss is nan at step 2"
    assert sound.stopped is None
    # Without BatchNorm there is nothing to except: every array agrees.
    (alone,) = train_replicas(program, [well], 2, False)
    close(alone.params, sound.params)


def test_one_program_serves_every_fold_and_seed(dataset):
    config = configured()
    program, replicas = replicas_of(config, dataset)
    train_replicas(program, replicas, 1, False)
    assert phase_program(config, program.model, program.phases, 0).step._cache_size() == 1


def test_averaged_weights_are_what_comes_out_of_either_way(dataset):
    outcomes = []
    for decay, together in (("0.5", False), ("0.5", True), ("0", False)):
        program, replicas = replicas_of(configured(train__ema_decay=decay), dataset)
        outcomes.append(train_replicas(program, replicas, 1, together))
    for alone, together, latest in zip(*outcomes, strict=True):
        close(alone.params, together.params)
        assert not np.allclose(alone.params["head"]["kernel"], latest.params["head"]["kernel"], rtol=1e-3)


def test_slices_kept_on_the_device_give_the_same_weights_and_curves(dataset):
    outcomes = []
    for resident in ("on", "off"):
        program, replicas = replicas_of(configured(data__resident=resident, data__channels="adjacent"), dataset)
        outcomes.append(train_replicas(program, replicas, 2, False))
    for kept, sent in zip(*outcomes, strict=True):
        jax.tree.map(np.testing.assert_array_equal, kept.params, sent.params)
        assert kept.curve == sent.curve
