"""The front door: which verb, which flags, which status. No verb does its work here."""

import subprocess
import sys
from pathlib import Path

import pytest

import main
from heartseg_jax.config.flags import given
from heartseg_jax.errors import GuardStop, UserError

ROOT = Path(__file__).parents[1]
QUICKSTART = "--config=configs/quickstart.py"


def test_train_is_the_default_and_overrides_reach_the_config():
    module, values = main.parse(["--config.data.size=96", QUICKSTART, "--workdir", "runs/x"])
    assert module.__name__ == "heartseg_jax.verbs.train"
    assert (values.workdir, values.config.data.size) == ("runs/x", 96)


def test_switches_stand_alone():
    assert given(main.parse(["check", QUICKSTART, "--json"])[1])["json"] is True
    assert "json" not in given(main.parse(["check", QUICKSTART, "--json=false"])[1])


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["trian", QUICKSTART], "train"),
        (["eval", "--workdir=x"], "evaluate"),
        (["predict", "--input=x"], "--output"),
        (["predikt", "--input=x"], "predict"),
        (["benchmark"], "--config"),
        ([], "--config"),
        (["--confg=a.py"], "--config"),
        (["--config"], "--config"),
        (["--config="], "--config"),
        ([QUICKSTART, QUICKSTART], "--config"),
        (["--config", "--workdir=x"], "--config"),
        ([QUICKSTART, "oops"], "'oops'"),
        ([QUICKSTART, "--config.train.lr=1"], "train.learning_rate"),
        ([QUICKSTART, "--config.batch_size=1"], "data.batch_size"),
        (["--config.seed=1"], "--config=FILE"),
        (["evaluate", "--workdir=x", "--config.seed=1"], "--config.seed"),
        (["evaluate", "--workdir=x", "--split=trian"], "train"),
        (["check", QUICKSTART, "--json=7"], "--json"),
        (["check"], "--input"),
        (["check", QUICKSTART, "--input=x"], "--input"),
        (["evaluate", "--workdir=x", "--output="], "--output"),
        (["evaluate", "--workdir", "--step=3"], "--workdir"),
        (["evaluate", "--workdir=x", "--step=last"], "--step"),
        (["evaluate"], "--workdir"),
        (["prepare", "--source=png_pairs"], "--output"),
        (["prepare", "--source=nifti", "--output=x"], "nifti_pairs"),
        (["prepare", "--source=phantom", "--output=x", "--seed=-1"], "--seed"),
        (["convert", "--to=onnx"], "--to=onnx"),
        (["convert", "--input=a.h5", "--output=x", "--channels=0"], "--channels"),
        (["inspect", "--flagfile=nowhere.txt"], "nowhere.txt"),
        ([QUICKSTART, "--flagfile=configs"], "configs"),
        ([QUICKSTART, "--flagfile="], "--flagfile"),
        (["--flagfile"], "--flagfile"),
        ([QUICKSTART, "--workdir=a\0b"], "NUL"),
        ([QUICKSTART + ":smal"], "'smal'"),
        (["--config=configs/scratch.py:smal"], "small"),
        (["--config=quickstart.py"], "configs/quickstart.py"),
        ([QUICKSTART, "--config.transfer.schedule=custom"], "transfer.phases"),
        ([QUICKSTART, "--config.transfer.phases=2:all"], "transfer.schedule"),
        (["inspect", "--workdir=x", "--against_step=3"], "--against_step"),
        (["prepare", "--source=png_pairs", "--output=x", "--input=x", "--max_off_palette=nan"], "--max_off_palette"),
        (["prepare", "--source=png_pairs", "--output=x", "--input=x", "--merge=a,b"], "--merge"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(argv, named, capsys):
    assert main.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.mark.parametrize("words", [["--help"], ["help"], ["-h"], [QUICKSTART, "--help"]])
def test_help_lists_the_verbs(words, capsys):
    assert main.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in main.VERBS)
    assert "python main.py --config=configs/quickstart.py" in shown


@pytest.mark.parametrize("verb", main.VERBS)
@pytest.mark.parametrize("words", ["{} --help", "--help {}", "help {}"])
def test_the_help_of_a_verb_shows_its_flags_only(verb, words, capsys):
    assert main.main(words.format(verb).split()) == 0
    shown = capsys.readouterr().out
    assert shown.count("heartseg_jax.verbs.") == 1
    assert ("--workdir" in shown) == (verb not in ("prepare", "check", "benchmark"))
    assert ("--source" in shown) == (verb == "prepare")
    assert ("--config" in shown) == (verb in ("train", "lab", "check", "prepare", "benchmark"))


def test_help_and_mistakes_import_no_jax():
    code = f"import main, sys; main.main(['--help']); main.main(['eval']); main.main(['{QUICKSTART}', '--x']); "
    code += "print('jax' in sys.modules or 'h5py' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        (UserError("a\nb"), 2, "error: a b\n"),
        (GuardStop("guard"), 3, "guard"),
        (PermissionError(13, "Permission denied", "runs/x"), 2, "error: runs/x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=["lines", "guard", "permission", "Ctrl-C"],
)
def test_what_ends_a_verb_is_one_line(capsys, monkeypatch, error, status, named):
    def run(values, argv):
        raise error

    monkeypatch.setattr("heartseg_jax.verbs.check.run", run)
    assert main.main(["check"]) == status
    captured = capsys.readouterr().err
    assert named in captured
    assert captured.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("heartseg_jax.verbs.check.run", lambda values, argv: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main.main(["check"])


def test_a_platform_that_is_not_there_is_one_line():
    words = [sys.executable, "main.py", "check", QUICKSTART]
    environment = {"JAX_PLATFORMS": "nowhere", "PATH": ""}
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "JAX_PLATFORMS=nowhere" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
