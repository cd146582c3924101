"""The front door: `python main.py [VERB] --config=FILE ...`. Chooses the verb; turns errors into an exit status."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from heartseg_jax import distributed
from heartseg_jax.allocator import start_again_with_large_pages
from heartseg_jax.errors import GuardStop, UserError, suggestion
from heartseg_jax.interrupts import ending_soon
from heartseg_jax.machine import refused_by_machine

if TYPE_CHECKING:
    from absl.flags import FlagValues

VERBS = {
    "train": "train, or resume a run: the same command again (the default verb)",
    "evaluate": "score a run on patients: summary.json, cases.csv and figures",
    "predict": "segment and measure a study, or every study in a folder: labels, volumes, DICOM objects",
    "prepare": "make a dataset folder from a source",
    "check": "say whether a study or a dataset is fit for use (--input), or summarise a config (--config)",
    "inspect": "list a checkpoint's arrays: path, shape, dtype, norm, what is frozen; or compare two checkpoints",
    "convert": "convert a Keras encoder, with every layer listed; or a run's network back to Keras",
    "benchmark": "measure training steps and predictions: images/s, FLOPs, memory, compilation, waiting for data",
    "lab": "compare transfer with its controls: each patient left out in turn, every arm at equal steps",
}
EXAMPLES = """\
examples:
  python main.py --config=configs/quickstart.py
  python main.py prepare --source=png_pairs --input=my_study --output=my_dataset
  python main.py --config=configs/scratch.py:small --config.data.path=my_dataset
  python main.py evaluate --workdir=runs/scratch-small
  python main.py predict --input=study --output=predicted --workdir=runs/scratch-small
  python main.py check --config=configs/scratch.py"""
HELP = ("--help", "-help", "-h")


def usage() -> str:
    """Return the help page: the verbs and examples."""
    lines = [f"  {name:<10} {summary}" for name, summary in VERBS.items()]
    head = "usage: python main.py [VERB] --config=FILE [--config.FIELD=VALUE ...] [--FLAG=VALUE ...]"
    return "\n".join([head, "", *lines, "", "python main.py VERB --help lists the flags of a verb", "", EXAMPLES])


def parse(argv: list[str]) -> tuple[ModuleType, FlagValues]:
    """Return the module of the verb that `argv` names, and its flags, parsed.

    Raises:
      UserError: there is no such verb, or a flag, a value or the config is wrong.
    """
    verb, words = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else ("train", argv)
    if verb not in VERBS:
        raise UserError(f"unknown command '{verb}'{suggestion(verb, list(VERBS))}")
    from heartseg_jax.config import flags  # --help does without

    # config_flags needs the config's file before its fields.
    words = sorted(flags.expanded(words), key=lambda word: not word.startswith("--config="))
    values = flags_of(verb, words)
    flags.parse(verb, values, words)
    return importlib.import_module(f"heartseg_jax.verbs.{verb}"), values


def flags_of(verb: str, words: Sequence[str] = ()) -> FlagValues:
    """Return the flags of a verb, not parsed; with the --config.FIELD flags that `words` contain."""
    from absl.flags import FlagValues

    values = FlagValues()
    importlib.import_module(f"heartseg_jax.verbs.{verb}").define(values, words)
    return values


def show_help(argv: list[str]) -> None:
    """Print the flags of the verb that is named, or the page of all verbs."""
    verb = next((word for word in argv[:2] if word in VERBS), None)
    if verb is None:
        print(usage())
    else:
        print(f"python main.py {verb}: {VERBS[verb]}\n{flags_of(verb).get_help(include_special_flags=False)}")


def main(argv: list[str]) -> int:
    """Run one command line; return the exit status: 0, 2 for a user's mistake, 3 for a guard's stop."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text that a terminal takes
    try:
        if argv[:1] == ["help"] or any(word in HELP for word in argv):
            show_help(argv)
            return 0
        module, values = parse(argv)
        with ending_soon(lambda: module.interrupted(values) if hasattr(module, "interrupted") else ""):
            module.run(values, argv)
    except UserError as error:
        return fail(f"error: {' '.join(str(error).splitlines())}")
    except GuardStop as stop:
        return fail(f"stopped by the {stop}", 3)
    except KeyboardInterrupt as interrupt:
        return fail(str(interrupt) or "interrupted", 130)
    except BrokenPipeError:
        return 0
    except Exception as error:
        refused = distributed.lost(error) or refused_by_machine(error)
        if refused is None:
            if distributed.count() == 1:
                raise
            traceback.print_exc()  # and the process ends by `leave`
            return 1
        return fail(f"error: {refused}")
    return 0


def fail(line: str, status: int = 2) -> int:
    """Print one line to stderr and return the status."""
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    start_again_with_large_pages(sys.argv[1:])
    status = main(sys.argv[1:])
    if status == 130:
        os._exit(status)  # the interpreter would wait for threads that still compute
    if status and distributed.count() > 1:
        distributed.leave(status)
    sys.exit(status)
