"""Which cells a config asks for; sizes and counts by hand."""

import pytest

from heartseg_jax.benchmarking.cells import cells_of, prepare
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from tests.tiny import write_tiny


def cells(spec="configs/benchmark.py", typed=None, **grid):
    overrides = (typed or {}) | {f"benchmark.{name}": value for name, value in grid.items()}
    name, config = load.load(spec, overrides)
    return cells_of(name, config, overrides)


def points(found):
    return [(c.name, c.config.data.size, c.config.data.batch_size, c.config.model.dtype, c.work) for c in found]


def test_the_shipped_configs_are_measured_as_they_are():
    both = [
        (name, size, 8, "float32", work)
        for name, size in (("quickstart", 80), ("transfer", 80), ("scratch-small", 128))
        for work in ("train", "infer")
    ]
    assert points(cells()) == both
    assert [cell.config.model.width for cell in cells(work="train")] == [16, 16, 16]


def test_the_variants_for_a_larger_machine():
    assert points(cells("configs/benchmark.py:full", work="infer")) == [("transfer-full", 128, 2, "float32", "infer")]
    found = points(cells("configs/benchmark.py:gpu", work="train"))
    expected = [("transfer-full", 256, 8), ("transfer-full", 256, 32), ("scratch", 512, 8), ("scratch", 512, 32)]
    assert found == [(*point, "bfloat16", "train") for point in expected]


def test_a_grid_is_the_product_of_its_axes():
    found = points(cells("configs/quickstart.py", sizes="64,128", batches="2,4", work="train"))
    assert found == [("quickstart", size, batch, "float32", "train") for size in (64, 128) for batch in (2, 4)]
    found = cells(configs="configs/quickstart.py,configs/quickstart.py", dtypes="bfloat16,float32", work="infer")
    assert [cell.config.model.dtype for cell in found] == ["bfloat16", "float32"]  # each cell once


def test_typed_fields_are_set_in_every_config():
    found = cells(typed={"model.width": "8", "data.closer": "0.5"}, work="train", seconds="0.5", steps="9")
    assert {(c.config.model.width, c.config.data.closer) for c in found} == {(8, ("0.5",))}
    assert {(c.config.benchmark.seconds, c.config.benchmark.steps) for c in found} == {(0.5, 9)}


def test_one_phantom_is_enough_for_any_batch():
    [cell] = cells("configs/quickstart.py", work="train", batches="4096")
    phantom = cell.config.data.phantom
    assert (phantom.train, phantom.validation, phantom.test) == (1, 0, 0)


@pytest.mark.parametrize(
    ("grid", "named"),
    [
        ({"sizes": "60"}, "data.size"),
        ({"sizes": "4"}, "benchmark.sizes"),
        ({"sizes": "large"}, "benchmark.sizes"),
        ({"sizes": "64,64"}, "benchmark.sizes"),
        ({"batches": "0"}, "benchmark.batches"),
        ({"batches": "1.5"}, "benchmark.batches"),
        ({"dtypes": "float16"}, "benchmark.dtypes"),
        ({"configs": "configs/nowhere.py"}, "configs/nowhere.py"),
        ({"configs": "configs/scratch.py:smal"}, "small"),
        ({"seconds": "0"}, "benchmark.seconds"),
        ({"steps": "1"}, "benchmark.steps"),
    ],
)
def test_a_bad_grid_is_refused(grid, named):
    with pytest.raises(UserError, match=named):
        cells("configs/quickstart.py", **grid)


def test_fields_that_nothing_would_read_are_refused():
    name, config = load.load("configs/quickstart.py", {"benchmark.configs": "configs/scratch.py:small"})
    with pytest.raises(UserError, match="quickstart sets data.augment"):
        cells_of(name, config, ["benchmark.configs"])


def test_datasets_are_checked_before_anything_is_measured(tmp_path):
    write_tiny(tmp_path / "untrained", splits={"d": "validation", "e": "test"})
    path = {"data.path": str(tmp_path / "untrained")}
    with pytest.raises(UserError, match="no training patients"):
        prepare(cells("configs/quickstart.py", typed=path, work="infer"), tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        prepare(cells("configs/quickstart.py", typed={"data.path": str(tmp_path / "nowhere")}), tmp_path)
