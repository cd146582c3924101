"""How steps are timed, and the weights that they are timed with. A whole cell is measured in tests/verbs."""

import itertools

import jax
import numpy as np
import pytest

from heartseg_jax.benchmarking import measure, weights
from heartseg_jax.benchmarking.cells import Cell
from heartseg_jax.config import load
from heartseg_jax.models.tree import named_leaves
from heartseg_jax.models.unet import UNet
from tests.tiny import OVERRIDES, write_tiny


def test_every_batch_is_taken_once_and_in_order():
    seen, numbers = [], itertools.count()
    found = {}
    [own] = measure.timed(seen.append, (lambda: next(numbers),), 0.0, 6, found)
    # Two steps to warm up, then three stretches of two; each stretch fetches a batch that it does not take.
    assert seen == [0, 1, 3, 4, 6, 7, 9, 10]
    assert len(own.steps_s) == len(own.waits_s) == 6
    assert all(0 <= wait <= step for wait, step in zip(own.waits_s, own.steps_s, strict=True))
    assert set(found) == {"peak_bytes", "peak_of", "others"}
    assert found["peak_bytes"] > 2**20


def test_two_inputs_take_turns():
    seen = []
    measure.timed(seen.append, (lambda: "a", lambda: "b"), 0.0, 3, {})
    assert "".join(seen) == "aabb" + 3 * "ab"


def test_times_by_hand():
    times = measure.Timed([0.004, 0.001, 0.002, 0.003, 0.010], [0.0] * 5, [0.02, 0.01]).times()
    assert times.pop("step_ms_quartiles") == pytest.approx([2.0, 4.0])
    assert times == pytest.approx({"step_ms": 3.0, "steps": 5, "cpu_ms": 6.0})


def test_weights_are_like_those_of_a_run():
    model = UNet(width=4, levels=2, num_classes=9, norm="batch")
    real = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), train=False)
    params, batch_stats = weights.random_weights(model, 8, 3)
    ours = named_leaves({"params": params, "batch_stats": batch_stats})
    shapes = {path: (leaf.shape, leaf.dtype) for path, leaf in ours.items()}
    assert shapes == {path: (leaf.shape, leaf.dtype) for path, leaf in named_leaves(real).items()}
    assert float(ours["batch_stats/encoder/stage1/norm1/var"].min()) == 1
    # He's scale: the square root of 2 / (9 * 4), of 144 draws.
    assert ours["params/encoder/stage1/conv2/kernel"].std() == pytest.approx((2 / 36) ** 0.5, rel=0.2)


@pytest.mark.parametrize("work", ["train", "infer"])
def test_a_cell_that_does_not_fit_is_a_row(tmp_path, monkeypatch, work):
    write_tiny(tmp_path / "data")
    overrides = OVERRIDES | {"data.path": str(tmp_path / "data"), "model.width": "2", "model.levels": "2"}
    config = load.load("configs/quickstart.py", overrides)[1]
    monkeypatch.setattr(measure.devices, "available_bytes", lambda: 1024)
    row = measure.measure(Cell("mine", config, work), tmp_path)
    assert row["status"] == "does_not_fit"
    assert "GiB" in row["reason"]
    assert (row["config"], row["work"], row["size"], row["batch_size"]) == ("mine", work, 32, 4)
    assert (row["step_ms"], row["peak_bytes"]) == (None, None)
