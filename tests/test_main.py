"""The front door's command line: no verb is run here."""

import pytest

import main
from heartseg_jax.errors import UserError


def test_train_is_the_default_and_overrides_are_kept_apart():
    call = main.parse(["--config=configs/a.py", "--config.data.size=3", "--workdir", "runs/x"])
    assert call == main.Call("train", {"config": "configs/a.py", "workdir": "runs/x"}, {"data.size": "3"})


def test_switches_stand_alone():
    assert main.parse(["check", "--config=a.py", "--json"]).flags == {"config": "a.py", "json": ""}
    assert "json" not in main.parse(["check", "--config=a.py", "--json=false"]).flags


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian", "--config=a.py"], "did you mean train"),
        ([], "train needs --config"),
        (["--confg=a.py"], "did you mean --config"),
        (["--config"], "--config needs a value"),
        (["--config="], "train needs --config"),
        (["--config=a.py", "oops"], "'oops' is no flag"),
        (["evaluate", "--workdir=x", "--config.seed=1"], "give --config=FILE too"),
        (["check", "--config=a.py", "--json=7"], "is a switch"),
        (["evaluate", "--workdir=x", "--output="], "--output is empty"),
        (["prepare", "--source=png_pairs"], "prepare needs --output"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(argv, message):
    with pytest.raises(UserError) as caught:
        main.parse(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_shows_every_verb_and_exits_0(capsys):
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{verb}: " in shown for verb in main.VERBS)
    assert "python main.py --config=configs/quickstart.py" in shown


def test_a_user_error_is_one_line_on_stderr_and_exit_2(capsys):
    assert main.main(["--config=configs/nowhere.py"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no config file at configs/nowhere.py")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("a\nb"), 2, "error: a b\n"),
        (PermissionError(13, "Permission denied", "runs/x"), 2, "error: runs/x: Permission denied; "),
        (OSError(28, "No space left on device"), 2, "error: the disk: No space left on device; "),
        (MemoryError(), 2, "error: out of memory; "),
    ],
    ids=["lines", "permission", "full disk", "memory"],
)
def test_what_the_machine_refuses_is_one_line(capsys, monkeypatch, error, status, message):
    def fail(call, argv):
        raise error

    monkeypatch.setattr(main, "run", fail)
    assert main.main(["--config=a.py"]) == status
    captured = capsys.readouterr().err
    assert captured.startswith(message)
    assert captured.count("\n") == 1
