"""The verb `prepare`: its flags agree with what the sources read, and are parsed without loading a reader."""

import subprocess
import sys
from pathlib import Path

import pytest

import main
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.registry import FORMATS

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_the_sources():
    values = main.flags_of("prepare")
    assert (values["block"].default, values["seed"].default) == (Options.block, Options.seed)
    assert tuple(map(float, values["splits"].default)) == Options.splits
    assert values["max_off_palette"].default == Options.max_off_palette
    assert tuple(values["source"].parser.enum_values) == tuple(FORMATS)


def test_help_and_mistakes_load_no_reader():
    code = (
        "import main, sys; main.main(['prepare', '--help']); main.main(['prepare', '--source=nifti', '--output=x']); "
    )
    code += "print(sorted({'jax', 'pydicom', 'nibabel', 'PIL', 'scipy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shares", ["0.7,0.3", "a,b,c", "1,2,3,4"])
def test_shares_are_three_numbers(shares, capsys):
    words = ["prepare", "--source=png_pairs", "--input=x", "--output=y", f"--splits={shares}"]
    assert main.main(words) == 2
    assert "--splits" in capsys.readouterr().err
