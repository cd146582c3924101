"""absl's flags and config_flags, with every mistake as one UserError. What each verb takes is declared in verbs/."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from heartseg_jax.config.schema import FIELDS
from heartseg_jax.errors import UserError, suggestion

flags.disclaim_key_flags()  # `VERB --help` lists --config among the flags of the verb

ROOT = Path(__file__).resolve().parents[2]
NO_CONFIG = "get_config() of the config file must return an ml_collections ConfigDict"


class _Words(flags.ArgumentParser):
    """'1,2' or '(1, 2)' as a tuple of words, which the schema converts to the field's own type.

    config_flags reads tuples as Python literals: patient 007 is a syntax error there, and patient 1001 a number.
    """

    def parse(self, argument: str | tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(argument, tuple):
            return argument
        return tuple(word.strip().strip("'\"") for word in argument.strip().strip("()[]").split(",") if word.strip())


config_flags.register_flag_parser_for_type(tuple, _Words())


def expanded(argv: Sequence[str]) -> list[str]:
    """Return the words with those of each file that --flagfile names in its place.

    Raises:
      UserError: --flagfile names no file of text.
    """
    try:
        if "flagfile=" in [word.lstrip("-") for word in argv]:
            raise flags.Error("it is empty")
        words = flags.FlagValues().read_flags_from_files(list(argv), force_gnu=False)
    except (flags.Error, ValueError) as error:
        raise UserError(f"--flagfile needs a text file with one flag per line: {error}") from None
    if wrong := [word for word in words if "\0" in word]:
        raise UserError(f"{wrong[0]!r} holds a NUL character, which no name can have")
    return words


def define_config(
    values: flags.FlagValues, argv: Sequence[str], meaning: str = "what to train", *, required: bool = False
) -> None:
    """Define --config=FILE[:VARIANT] and the --config.FIELD=VALUE that `argv` contains."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"{meaning}: a config file, such as configs/quickstart.py, or FILE:VARIANT; --config.FIELD=VALUE changes a "
        "field (docs/config.md lists them)",
        flag_values=values,
        sys_argv=list(argv),
        lock_config=False,  # a FrozenConfigDict of a locked one is unequal to the same config read from JSON
    )
    if required:
        flags.mark_flag_as_required("config", values)


class _Step(flags.ArgumentParser):
    syntactic_help = "a step's number, or best"

    def parse(self, argument: str | int) -> int | str:
        return "best" if argument == "best" else int(argument)


def define_step(name: str, meaning: str, values: flags.FlagValues) -> None:
    """Declare a flag that names a checkpoint: a step's number, or 'best'."""
    flags.DEFINE(_Step(), name, None, meaning, flag_values=values)


def texts(values: flags.FlagValues, *, required: str = "", **meanings: str) -> None:
    """Define flags that take text, name -> meaning; the one that is `required` must be given."""
    for name, meaning in meanings.items():
        flags.DEFINE_string(name, None, meaning, required=name == required, flag_values=values)


def switches(values: flags.FlagValues, **meanings: str) -> None:
    """Define flags that are on or off, name -> meaning."""
    for name, meaning in meanings.items():
        flags.DEFINE_boolean(name, False, meaning, flag_values=values)


def define_cache(values: flags.FlagValues) -> None:
    """Declare --compilation_cache, for the verbs that compile, --native_kernels and --large_pages."""
    meaning = (
        "folder in which compiled programs are kept from run to run, or off (default: heartseg_jax/ in your cache "
        "folder, or what JAX_COMPILATION_CACHE_DIR names)"
    )
    texts(values, compilation_cache=meaning)
    define_pages(values)


def define_pages(values: flags.FlagValues) -> None:
    """Declare --native_kernels and --large_pages, for the verbs that compute."""
    pages = "whether the process starts again with memory in large pages, where the system has them (faster on a CPU)"
    flags.DEFINE_enum("large_pages", "on", ["on", "off"], pages, flag_values=values)
    native = "whether a CPU computes convolutions by this project's own kernels, compiled once where a C compiler is"
    flags.DEFINE_enum("native_kernels", "on", ["on", "off"], native, flag_values=values)


def define_distributed(values: flags.FlagValues) -> None:
    """Declare --distributed, for the verb that trains in several processes."""
    meaning = (
        "off, auto (the processes of a SLURM step, a Kubernetes job, Open MPI or a TPU) or HOST:PORT,PROCESSES,NUMBER: "
        "several processes that train as one (docs/scale.md)"
    )
    flags.DEFINE_string("distributed", "off", meaning, flag_values=values)


def given(values: flags.FlagValues) -> dict[str, Any]:
    """Return the flags that were typed and their values; a switch that was set to false is left out."""
    return {
        name: values[name].value
        for name in values
        if values[name].present and values[name].value is not False and not name.startswith("config.")
    }


def parse(program: str, values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parse the command line `argv` of the verb `program` into `values`.

    Raises:
      UserError: an unknown flag or field, a value that is missing or of another type, or a config that fails.
    """
    # absl takes an empty value, and what it says of a config file and of fields that are not there depends on where it
    # stumbles: these are looked for first.
    typed = list(_typed(argv))
    if [name for name, _ in typed].count("config") > 1:
        raise UserError("--config is given twice: remove one")
    for name, value in typed:
        if value == "" and not name.startswith("config."):
            raise UserError(f"--{name} is empty: give it a value, or leave it out")
        if name == "config" and "config" in values:
            _check_file(value)
        if name.startswith("config.") and "config" in values:
            _check_field(name.removeprefix("config."))
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the files in configs/ build on configs/base.py
    sys.modules.pop("config_config", None)  # config_flags would run the file among the names of the one before it
    try:
        rest = values([program, *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config.") and "config" in values:
            raise UserError(f"--{error.flagname} changes a config: give --config=FILE too") from None
        known = [f"--{name}" for name in values]
        raise UserError(
            f"unknown argument: {program} has no flag --{error.flagname}{suggestion(f'--{error.flagname}', known)}"
        ) from None
    except flags.IllegalFlagValueError as error:
        raise UserError(_illegal(program, values, str(error))) from None
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of a user's config file raises
        raise UserError(f"the config file failed: {type(error).__name__}: {error}") from error
    if rest:
        raise UserError(f"unknown argument '{rest[0]}'; flags look like --config=configs/quickstart.py")
    for name in values:
        value = values[name].value
        if isinstance(value, str) and value.startswith("--"):
            raise UserError(f"--{name} needs a value: --{name}=...")  # absl takes the next flag for it
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name} needs a finite number, not {value}")  # no bound of absl's refuses NaN


def typed_config(values: flags.FlagValues) -> tuple[ConfigDict, dict[str, Any]]:
    """Return the config as its file and the command line have it, and the fields that the command line set."""
    if not isinstance(values.config, ConfigDict):
        try:
            _ = values.config.seed  # config_flags shows an OSError of the file's own code only at the first access
        except OSError as error:
            raise UserError(f"the config file failed: {error.__cause__}") from None
        except AttributeError:
            raise UserError(NO_CONFIG) from None
    return values.config, config_flags.get_override_values(values["config"])


def _typed(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield (name, value) of each flag; value is None where no '=' follows and the next word is another flag."""
    for word, after in itertools.pairwise([*argv, "--"]):
        if word == "--":
            return
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            name = name.removeprefix("no") if name.startswith("noconfig.") else name
            yield name, value if equals else (None if after.startswith("-") else after)


def _check_file(spec: str | None) -> None:
    if spec is None:
        raise UserError("--config needs a value: --config=configs/quickstart.py")
    file = Path(spec.partition(":")[0])
    if file.is_file() and file.suffix == ".py":
        return
    if file.exists():
        raise UserError(f"{file} is not a Python config file; give one such as configs/quickstart.py")
    near = [] if file.parent == Path() else file.parent.glob("*.py")
    found = {path for path in (*near, *Path("configs").glob("*.py")) if path.stem not in ("__init__", "base")}
    known = sorted(map(str, found))
    raise UserError(f"no config file at {file}{suggestion(str(file), known)}")


def _check_field(field: str) -> None:
    inside = [name for name in FIELDS if name.startswith(field + ".")]
    if inside:
        raise UserError(f"config.{field} is a group of fields; set one inside it, such as {inside[0]}")
    if field not in FIELDS:
        raise UserError(f"the config has no field '{field}'{suggestion(field, list(FIELDS))}")


def _illegal(program: str, values: flags.FlagValues, message: str) -> str:
    """Return one line for absl's words about a value, naming what was meant where that can be guessed."""
    found = re.match(r"flag --([\w.]+)=(.*?): (.*)", message, re.DOTALL)
    if not found:
        return message
    name, value, why = found.groups()
    if value == "None" and values[name].present:
        return NO_CONFIG
    if value == "None":  # how absl shows that a required flag is absent
        return f"{program} needs --{name}=...: {values[name].help}"
    if name == "config":  # config_flags puts the traceback of a TypeError or a ValueError into the message
        return f"the config file {value.partition(':')[0]} failed: {message.strip().splitlines()[-1]}"
    parser = values[name].parser if name in values else None
    if choices := getattr(parser, "enum_values", None):
        return f"--{name}={value} is unknown{suggestion(value, choices)}"
    kind = "true or false" if name in values and values[name].boolean else getattr(parser, "syntactic_help", "")
    return f"--{name} needs {kind}, not '{value}'" if kind else f"--{name}={value}: {why}"
