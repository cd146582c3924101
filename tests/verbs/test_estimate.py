"""The estimated time: its steps by hand, its speed from a clock that the test holds."""

import pytest

from heartseg_jax.config import load
from heartseg_jax.verbs import estimate
from tests.tiny import write_tiny


def config_of(**changes):
    return load.load("configs/quickstart.py", {name.replace("__", "."): value for name, value in changes.items()})[1]


def test_steps_of_phantoms_and_of_a_fixed_length():
    # 36 patients of 32 slices in batches of 8, four times.
    assert estimate.total_steps(config_of()) == 36 * 32 // 8 * 4
    assert estimate.total_steps(config_of(data__batch_size="5")) == 231 * 4
    assert estimate.total_steps(config_of(train__steps="7")) == 7


def test_steps_of_a_dataset(tmp_path):
    write_tiny(tmp_path / "d")  # three training patients of six slices
    assert estimate.total_steps(config_of(data__path=str(tmp_path / "d"))) == 3 * 4
    assert estimate.total_steps(config_of(data__path=str(tmp_path / "d"), data__test_patients="a")) == 3 * 4
    assert estimate.total_steps(config_of(data__path=str(tmp_path / "nowhere"))) is None


def test_the_time_is_arithmetic_over_speed(monkeypatch):
    monkeypatch.setattr(estimate, "network_flops_per_second", lambda dtype: 24e9)
    found = estimate.estimate(config_of(train__steps="10"), 10**9)
    # 3 * 8 GFLOP at 24 GFLOP/s.
    assert found == pytest.approx((1.0, 10, 10.0))


def test_a_matrix_product_has_a_speed():
    assert 1e7 < estimate.network_flops_per_second("float32") < 1e16
