"""A config in plain form, and what may change on resume."""

import pytest

from heartseg_jax.config import diff, load, schema

QUICKSTART = "configs/quickstart.py"


def test_the_plain_form_comes_back_equal():
    _, config = load.load(QUICKSTART)
    assert diff.from_plain(diff.to_plain(config)) == config
    assert dict(diff.fields(diff.to_plain(config)))["data.window_hu"] == [-200.0, 600.0]


def test_differences_leave_out_what_may_change_on_resume():
    _, old = load.load(QUICKSTART)
    changes = {"train.epochs": "99", "guards.collapse": "warn", "log.every_steps": "7", "model.width": "12"}
    _, new = load.load(QUICKSTART, changes)
    assert diff.differences(old, new) == ["model.width: 16 -> 12"]


def test_a_field_that_only_one_of_them_has_differs():
    assert diff.differences({"seed": 1}, {"seed": 1, "model": {"width": 3}}) == ["model.width: absent -> 3"]


@pytest.mark.parametrize("name", diff.RESUMABLE)
def test_what_may_change_is_a_field_or_a_group(name):
    assert any(diff.is_resumable(field) and field.startswith(name) for field in schema.FIELDS)
    assert not diff.is_resumable("train.steps")
