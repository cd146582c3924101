"""Slices kept on the device: the same examples, weights and scores, bit for bit, as batches sent one by one."""

import dataclasses
import functools
import gc
import json
import weakref

import jax
import numpy as np
import pytest

import main
from heartseg_jax.config import load
from heartseg_jax.data import examples
from heartseg_jax.data.dataset import join
from heartseg_jax.data.examples import SliceStore
from heartseg_jax.data.indexed import examples_from
from heartseg_jax.training import feed
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.feed import Held
from heartseg_jax.training.run import run_of
from heartseg_jax.workdir import Workdir, read_metrics
from tests.end_to_end.interruption import train_until_interrupted
from tests.end_to_end.test_joined import write_maps
from tests.preprocess.specs import spec
from tests.tiny import OVERRIDES, SLICES, flags, write_tiny

TRAIN = 3 * SLICES


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def joined(tiny, tmp_path_factory):
    """The tiles, and tissue maps, in shares: 24 training slices."""
    return f"{tiny.path},{write_maps(tmp_path_factory.mktemp('more') / 'maps')}"


def same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in leaves)


# The order, and what is gathered


def mixed_store(joined):
    dataset = dataclasses.replace(join.read_datasets(joined), shares=(1, 2))
    return SliceStore(dataset, "train", spec(intensity="any", percentiles=(0.0, 100.0), window=None))


def test_the_order_of_many_steps_is_that_of_each(tiny, joined):
    for store in (SliceStore(tiny, "train", spec()), mixed_store(joined)):
        numbers, mask = examples_from(store, 5, 3, 14, 4)  # over the ends of two epochs or more
        for row, step in enumerate(range(3, 17)):
            own_numbers, own_mask = examples.examples_at(store, 5, step, 4)
            assert numbers[row].tolist() == own_numbers.tolist()
            assert mask[row].tolist() == own_mask.tolist()
            assert mask.dtype == own_mask.dtype


def test_all_slices_are_read_once_and_filled_up_with_zeros(tiny):
    store = SliceStore(tiny, "train", spec("adjacent"))
    whole = store.whole(rows=20, threads=3)
    assert whole.tissue is None
    assert np.array_equal(whole.image[:SLICES], tiny.images(0))
    assert not any(np.any(part[TRAIN:]) for part in whole if part is not None)
    for part, blank in zip(whole, store.blank(20), strict=True):
        assert part is None or (part.shape, part.dtype, part.nbytes) == (blank.shape, blank.dtype, blank.nbytes)
    assert [part.shape[0] for part in store.blank() if part is not None] == [TRAIN] * 4


def test_batches_gathered_on_the_device_are_those_of_the_host(tiny, joined, monkeypatch):
    monkeypatch.setattr(feed, "STEPS_SENT", 4)
    for store in (SliceStore(tiny, "train", spec("adjacent")), mixed_store(joined)):
        held = Held(store, rows=40)
        held.load()
        gathered = jax.jit(lambda given, step: given.at(step))
        for step in (0, 3, 4, 13):
            assert same(gathered(held.steps(7, step, 4), step), examples.batch_at(store, 7, step, 4))
        assert gathered._cache_size() == 1
        looks = list(held.in_order(4))
        for (real, given), (own, batch) in zip(looks, examples.in_order(store, 4), strict=True):
            assert real.tolist() == own.tolist()
            assert same(given.at(0), batch)


# The feeds of a run


def open_both(tiny, tmp_path):
    config = load.load("configs/quickstart.py", OVERRIDES)[1]
    run = run_of(config, Workdir(tmp_path / "run"), tiny)
    return run, [feed.open_feed(run, resident) for resident in (True, False)]


def test_a_feed_that_is_closed_gives_its_memory_back(tiny, tmp_path):
    _, (resident, streamed) = open_both(tiny, tmp_path)
    streamed.close()
    image = weakref.ref(next(resident).slices.image)
    assert image().shape == (TRAIN, 32, 32)
    resident.close()
    gc.collect()
    assert image() is None


def test_the_shapes_for_a_compilation_are_those_of_what_is_given(tiny, tmp_path):
    seen = lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding)  # noqa: E731
    for own in open_both(tiny, tmp_path)[1]:
        shapes = jax.tree.map(seen, own.shapes())
        own.load()
        assert shapes == jax.tree.map(seen, (next(own), next(own.watched())[1]))
        own.close()


def test_either_feed_goes_on_from_the_others_state(tiny, tmp_path):
    run, feeds = open_both(tiny, tmp_path)
    states = []
    for own in feeds:
        for _ in range(7):
            next(own)
        states.append(own.get_state())
        own.close()
    assert states[0] == states[1] == json.loads(json.dumps(states[0]))
    resident, streamed = (feed.open_feed(run, resident) for resident in (True, False))
    for own in (resident, streamed):
        own.set_state(dict(states[0]))
    assert same(next(resident).at(7), next(streamed))
    streamed.close()


def test_the_memory_of_slices_that_are_still_to_come_is_counted(tiny, tmp_path, monkeypatch):
    """Of a step whose arguments are only shapes: they need room beside it."""
    from heartseg_jax.training import devices

    needed = []
    monkeypatch.setattr(devices, "check_memory", needed.append)
    _, (resident, streamed) = open_both(tiny, tmp_path)
    streamed.close()
    state, key = jax.numpy.zeros(()), jax.random.key(0)
    step = jax.jit(lambda state, given, key: (state + given.at(0).image.sum(), ()))
    given, _ = resident.shapes()
    resident.load()
    devices.compile_step(step, state, given, key)
    devices.compile_step(step, state, next(resident), key)
    there, per_slice = needed[1], 32 * 32 * (2 + 1) + 4 * 3 * 2 + 4 * 9
    assert needed[0] - there == TRAIN * per_slice


# Whole runs


def words(path, workdir, **overrides):
    own = {"data.path": str(path), "log.figures": "false", "model.width": "4", "model.levels": "2"}
    return ["--config=configs/quickstart.py", f"--workdir={workdir}", *flags(OVERRIDES | own | overrides)]


def result(path, step):
    rows = [
        {name: value for name, value in row.items() if not name.startswith("perf/")}
        for row in read_metrics(Workdir(path))
    ]
    return rows, Checkpoints(Workdir(path).checkpoints).restore_arrays(step)


JOINED = {
    "data.shares": "1,2",
    "data.normalise": "percentile",
    "data.channels": "repeat",
    "data.augment": "randomised",
    "train.epochs": "1",
}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        # 18 slices in batches of 4: the fifth batch of an epoch is half masked. Neighbours as channels; two phases;
        # training slices larger than the watched ones.
        ({"data.augment": "heart", "data.detail": "2", "transfer.schedule": "lp_ft", "model.norm": "encoder"}, 10),
        (JOINED, 6),
    ],
    ids=["neighbours", "mixture of tissue maps"],
)
def test_weights_and_scores_are_the_same_either_way(tiny, joined, tmp_path, changes, steps, capsys):
    found = []
    for resident, said in (("on", "kept on the device"), ("off", "batch by batch (data.resident=off)")):
        data = joined if "data.shares" in changes else tiny.path
        assert main.main(words(data, tmp_path / resident, **changes | {"data.resident": resident})) == 0
        assert said in capsys.readouterr().err
        found.append(result(tmp_path / resident, steps))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main.main(words(tiny.path, path)) == 0
    return result(path, 10)


@pytest.mark.parametrize(("before", "after"), [("on", "off"), ("off", "on")])
def test_a_run_cut_short_goes_on_either_way_to_the_same_end(whole, tiny, tmp_path, before, after):
    started = functools.partial(words, tiny.path, tmp_path / "cut")
    train_until_interrupted(started(**{"data.resident": before}), 8)  # after the checkpoint of step 6
    assert main.main(started(**{"data.resident": after})) == 0
    rows, arrays = result(tmp_path / "cut", 10)
    assert rows == whole[0]
    assert same(arrays, whole[1])
