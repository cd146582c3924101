"""Configs: loading, overrides, refusals, differences."""

from pathlib import Path

import pytest

from heartseg_jax.config import load, schema
from heartseg_jax.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_config_is_valid_and_has_only_fields_of_the_base(path):
    _, base = load.load(str(CONFIGS / "base.py"))
    name, config = load.load(str(path))
    assert name == path.stem
    assert {f for f, _ in load.fields(config)} == {f for f, _ in load.fields(base)}


def test_overrides_keep_the_type_of_the_field():
    overrides = {
        "data.size": "96",
        "train.learning_rate": "1",
        "log.figures": "false",
        "data.window_hu": "(-100, 500)",
        "data.test_patients": "1001,1004",
        "data.path": "None",
    }
    _, config = load.load(str(CONFIGS / "quickstart.py"), overrides)
    assert config.data.size == 96
    assert isinstance(config.train.learning_rate, float)
    assert config.log.figures is False
    assert config.data.window_hu == (-100.0, 500.0)
    assert config.data.test_patients == ("1001", "1004")
    assert config.data.path == "None"  # a name like any other: there is no null


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("data.siz", "3", "did you mean data.size"),
        ("data", "3", "is a group"),
        ("data.size", "12.5", "data.size needs an integer, not '12.5'"),
        ("data.size", "30", "multiple of 8"),
        ("train.learning_rate", "fast", "train.learning_rate needs a number, not 'fast'"),
        ("train.learning_rate", "nan", "finite"),
        ("train.learning_rate", "0", "above 0"),
        ("log.figures", "maybe", "true or false"),
        ("data.window_hu", "3", "needs 2 values"),
        ("data.window_hu", "5,-5", "lower and a higher"),
        ("model.dtype", "float16", "one of float32, bfloat16"),
        ("guards.collapse", "ignore", "one of stop, warn, off"),
        ("model.num_classes", "8", "must be 9"),
        ("train.epochs", "0", "train.epochs must be 1"),
        ("train.epochs", "9" * 30, "1000000"),
        ("train.learning_rate", "1e300", "1000000"),
        ("seed", "-1", "seed must be 0"),
        ("seed", "4294967296", "4294967295"),
        ("data.size", "1000000000", "4096"),
        ("data.batch_size", "1000000000", "4096"),
        ("data.mm_per_pixel", "1e-9", "0 or at least 0.05"),
        ("data.percentiles", "-5,200", "data.percentiles"),
        ("data.window_hu", "0,1e-9", "at least 1 HU wide"),
        ("data.phantom.shape", "100000,100000,100000", "voxels"),
        ("data.phantom.spacing_mm", "1e-9,1,1", "0.05 to 50"),
        ("model.levels", "999999", "12"),
    ],
)
def test_a_mistake_is_named_in_one_line(field, text, message):
    with pytest.raises(UserError, match=".") as caught:
        load.load(str(CONFIGS / "quickstart.py"), {field: text})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_config_and_a_broken_one_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean .*quickstart"):
        load.load(str(CONFIGS / "quikstart.py"))
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(variant=''):\n    return 1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load.load(str(broken))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.data.sise = 80", "'data.sise' that nothing reads; did you mean data.size?"),
        ("del config.train", "lacks train.epochs, train.steps, train.learning_rate and "),
        ("config.seed = None", "seed needs a value of type int"),
        ("config.train.learning_rate = float('nan')", "finite"),
        ("config.data.phantom.shape = (32, 80)", "data.phantom.shape needs 3 values"),
        ("raise SystemExit(7)", "SystemExit: 7"),
    ],
)
def test_a_config_file_has_the_fields_of_the_base(tmp_path, line, message):
    file = tmp_path / "mine.py"
    body = f"    config = base.get_config()\n    {line}\n    return config\n"
    file.write_text(f"from configs import base\n\n\ndef get_config(variant=''):\n{body}")
    with pytest.raises(UserError) as caught:
        load.load(str(file))
    assert message in str(caught.value)


def test_the_plain_form_comes_back_equal():
    _, config = load.load(str(CONFIGS / "quickstart.py"))
    assert load.from_plain(load.to_plain(config)) == config
    assert dict(load.fields(load.to_plain(config)))["data.window_hu"] == [-200.0, 600.0]


def test_differences_leave_out_what_may_change_on_resume():
    _, old = load.load(str(CONFIGS / "quickstart.py"))
    changes = {"train.epochs": "99", "guards.collapse": "warn", "log.every_steps": "7", "model.width": "12"}
    _, new = load.load(str(CONFIGS / "quickstart.py"), changes)
    assert load.differences(old, new) == ["model.width: 16 -> 12"]


def test_a_field_that_only_one_of_them_has_differs():
    assert load.differences({"seed": 1}, {"seed": 1, "model": {"width": 3}}) == ["model.width: absent -> 3"]


@pytest.mark.parametrize("name", load.RESUMABLE)
def test_what_may_change_is_a_field_or_a_group(name):
    assert any(load.is_resumable(field) and field.startswith(name) for field in schema.FIELDS)
    assert not load.is_resumable("train.steps")


@pytest.mark.parametrize(("written", "closer"), [(0.0, ()), (0.6, ("0.6",)), (["0.5", "0.7"], ("0.5", "0.7"))])
def test_a_config_of_an_earlier_version_is_read(written, closer):
    plain = load.to_plain(schema.defaults())
    assert load.complete(plain | {"data": plain["data"] | {"closer": written}}).data.closer == closer


@pytest.mark.parametrize("words", ["0.5,0.5", "1", "0", "wide"])
def test_a_closer_look_fills_a_share(words):
    with pytest.raises(UserError, match=r"data\.closer"):
        load.load("configs/base.py", {"data.closer": words})
