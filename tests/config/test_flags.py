"""absl's flags: the values they carry, and what is kept from the library's own ways."""

import pytest
from absl.flags import FlagValues

from heartseg_jax.config import flags, load
from heartseg_jax.errors import UserError

QUICKSTART = "configs/quickstart.py"


def values_of(*words):
    words, values = flags.expanded(words), FlagValues()
    flags.define_config(values, words)
    flags.texts(values, name="a name")
    flags.switches(values, loud="or not")
    flags.parse("verb", values, words)
    return values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("007", ("007",)),
        ("1001,1004", ("1001", "1004")),
        ("('1001', \"1004\")", ("1001", "1004")),
        ("[a, b]", ("a", "b")),
        ("", ()),
        ("()", ()),
        ("müller-1, o'neil", ("müller-1", "o'neil")),
    ],
)
def test_tuples_are_words(text, words):
    assert load.load(QUICKSTART, {"data.test_patients": text})[1].data.test_patients == words


def test_only_what_was_typed_is_given():
    assert flags.given(values_of()) == {}
    assert flags.given(values_of("--name", "x", "--loud")) == {"name": "x", "loud": True}
    assert flags.given(values_of("--name=x", "--noloud")) == {"name": "x"}
    assert set(flags.given(values_of(f"--config={QUICKSTART}", "--config.seed=3"))) == {"config"}


def test_the_ways_to_write_a_switch_of_the_config():
    def figures(word):
        return values_of(f"--config={QUICKSTART}", word).config.log.figures

    assert [figures(word) for word in ("--config.log.figures", "--noconfig.log.figures")] == [True, False]
    assert [figures(f"--config.log.figures={word}") for word in ("True", "false", "1", "0")] == [True, False] * 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--noconfig.log.figure"], "log.figures"),
        (["--config.data={'size': 3}"], "config.data"),
        (["--config.data[size]=3"], "data[size]"),
        (["--config.seed"], "--config.seed"),
        (["--noloud=3"], "--noloud"),
    ],
)
def test_mistakes(words, named):
    with pytest.raises(UserError) as caught:
        values_of(f"--config={QUICKSTART}", *words)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_config_does_not_see_another(tmp_path):
    load.load(QUICKSTART)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="get_config"):
        load.load(str(tmp_path / "empty.py"))


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("--config=nowhere.py", "nowhere.py"),
        (f"--config={QUICKSTART}\n--config.train.lr=3", "train.learning_rate"),
        (f"--config={QUICKSTART}\n--name=", "--name"),
    ],
)
def test_flags_from_a_file_are_flags(tmp_path, lines, named):
    (tmp_path / "flags.txt").write_text(lines)
    with pytest.raises(UserError, match=named):
        values_of(f"--flagfile={tmp_path / 'flags.txt'}")
    (tmp_path / "flags.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="--flagfile"):
        values_of(f"--flagfile={tmp_path / 'flags.txt'}")
    (tmp_path / "flags.txt").write_text(f"--config={QUICKSTART}\n--config.seed=3")
    assert values_of(f"--flagfile={tmp_path / 'flags.txt'}").config.seed == 3


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("open('not_here.txt')", "not_here.txt"),
        ("return {'seed': 1}", "ConfigDict"),
        ("return None", "ConfigDict"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("return int('x')", "ValueError"),
        ("raise SystemExit(7)", "SystemExit"),
        ("import not_a_module", "not_a_module"),
    ],
)
def test_a_config_file_that_fails_is_one_line(tmp_path, code, named):
    (tmp_path / "mine.py").write_text(f"def get_config(variant=''):\n    {code}\n")
    with pytest.raises(UserError) as caught:
        load.load(str(tmp_path / "mine.py"))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
