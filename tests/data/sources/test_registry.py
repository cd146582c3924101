"""Which flags each format reads, and that flags given to another are refused."""

import dataclasses

import pytest

import main
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.registry import FORMATS

OF_PREPARE = {"names", "keep_table", "export_png"}
"""Flags that `prepare` itself reads."""


def test_each_flag_of_a_format_is_an_option():
    known = {field.name for field in dataclasses.fields(Options)} | OF_PREPARE
    assert all(set(one.flags) <= known for one in FORMATS.values())


@pytest.mark.parametrize("kind", FORMATS)
def test_flags_of_others_are_refused(kind, tmp_path, capsys):
    values = {"block": 4, "join": "x", "merge": "0", "orientation": "rot90", "labels": "x", "series": "1", "seed": 1}
    for flag in set(values) - set(FORMATS[kind].flags):
        words = [f"--source={kind}", f"--output={tmp_path / 'ds'}", f"--{flag}={values[flag]}"]
        words += ["--input=x"] * (kind != "phantom")
        assert main.main(["prepare", *words]) == 2
        assert f"--{flag} is not used with --source={kind}; remove it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"phantom"}))
def test_each_needs_its_input(kind, tmp_path, capsys):
    assert main.main(["prepare", f"--source={kind}", f"--output={tmp_path / 'ds'}"]) == 2
    assert f"needs --input={FORMATS[kind].input}" in capsys.readouterr().err
