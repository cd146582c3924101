"""The schema: every field is declared once, and what is derived from it agrees."""

from pathlib import Path

import pytest

from configs import base
from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import load, schema
from heartseg_jax.errors import UserError
from tests.docs import config_page

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.py")


def test_every_field_is_declared_once_and_accepts_its_default():
    names = [field.name for field in schema.TABLE]
    assert len(names) == len(set(names)) == len(schema.FIELDS)
    for field in schema.TABLE:
        field.check(field.default)
        assert field.meaning
        assert not field.meaning.endswith(".")


def test_the_defaults_have_every_field():
    assert {name: value for name, value in load.fields(schema.defaults())} == {
        field.name: field.default for field in schema.TABLE
    }
    assert base.get_config() == schema.defaults()


def test_the_page_is_up_to_date():
    written = (ROOT / "docs" / "config.md").read_text()
    assert written == config_page.page(), "python -m tests.docs.config_page > docs/config.md"
    assert all(f"| `{field.name}`" in written for field in schema.TABLE)


@pytest.mark.parametrize("task", LABEL_SETS)
def test_the_number_of_classes_follows_from_the_label_set(task):
    classes = LABEL_SETS[task].num_classes
    assert load.load(QUICKSTART, {"data.task": task})[1].model.num_classes == classes
    same = {"data.task": task, "model.num_classes": str(classes)}
    assert load.load(QUICKSTART, same)[1].model.num_classes == classes
    with pytest.raises(UserError, match="model.num_classes"):
        load.load(QUICKSTART, same | {"model.num_classes": str(classes - 1)})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("train.learning_rate", 0.0, False),
        ("train.learning_rate", 1, True),
        ("train.learning_rate", 1e6, True),
        ("model.dropout", 1.0, False),
        ("model.dropout", 0.999, True),
        ("data.size", 7, False),
        ("data.size", 8.0, False),
        ("data.size", True, False),
        ("log.figures", 1, False),
        ("data.phantom.shape", (1, 1, 0), False),
        ("data.phantom.shape", (1, 1, 1), True),
        ("data.test_patients", ("1", 2), False),
        ("data.window_hu", (-1e5, float("inf")), False),
        ("data.percentiles", (-5.0, 99.0), False),
        ("log.colours", "masks", True),
        ("log.colours", "rainbow", False),
    ],
)
def test_what_a_field_accepts(name, value, accepted):
    if accepted:
        schema.FIELDS[name].check(value)
    else:
        with pytest.raises(UserError, match=name):
            schema.FIELDS[name].check(value)


def test_a_change_is_checked_like_any_config():
    _, config = load.load(QUICKSTART)
    longer = load.changed(config, {"train.epochs": 9, "data.path": "x"})
    assert load.differences(config, longer) == ["data.path:  -> x"]
    assert longer.train.epochs == 9
    for changes in ({"train.epoch": 9}, {"train.epochs": 0}, {"train.epochs": "9"}):
        with pytest.raises(UserError):
            load.changed(config, changes)


@pytest.mark.parametrize("field", ["pretrained.recalibrate_batches=8", "transfer.control=True"])
def test_what_measures_stored_slices_needs_them_at_the_networks_size(field):
    name, value = field.split("=")
    given = {"data.detail": 2, name: True if value == "True" else int(value), "model.norm": "encoder"}
    with pytest.raises(UserError, match="data.detail"):
        load.load(QUICKSTART, given)
    load.load(QUICKSTART, given | {"data.detail": 1})
