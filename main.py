"""The front door: `python main.py [VERB] --config=FILE ...`. Flags and the choice of verb, nothing else."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any, NamedTuple

from heartseg_jax.config import load
from heartseg_jax.errors import GuardStop, UserError


class Verb(NamedTuple):
    """What a verb is for, and the flags it takes: name -> (metavariable, meaning)."""

    summary: str
    flags: dict[str, tuple[str, str]]
    needs: tuple[str, ...]


CONFIG = {"config": ("FILE[:VARIANT]", "a config, such as configs/quickstart.py")}
VERBS: dict[str, Verb] = {
    "train": Verb(
        "train, or go on with a run; the same command resumes (the default verb)",
        {**CONFIG, "workdir": ("DIR", "the run's folder (default: runs/<config name>)")},
        ("config",),
    ),
    "evaluate": Verb(
        "score a run on patients: summary.json, cases.csv and figures",
        {
            "workdir": ("DIR", "the run's folder"),
            "step": ("N", "of which checkpoint (default: the last)"),
            "data": ("DATASET", "another dataset than the run's own; all of its patients are scored"),
            "split": ("NAME", "test, validation, train or all"),
            "output": ("DIR", "where to (default: evaluation... in the run's folder)"),
        },
        ("workdir",),
    ),
    "prepare": Verb(
        "make a dataset folder from a source",
        {
            "source": (
                "KIND",
                "dicom, png_pairs, nifti_pairs, mmwhs, totalsegmentator, image_mask_zip or phantom (docs/data.md)",
            ),
            "input": ("PATH", "the source: a folder, or a zip of images and masks (image_mask_zip)"),
            "output": ("DATASET", "the dataset folder to make"),
            "masks": (
                "PATH",
                "of one study alone: PNGs, a label NIfTI or a segmentation; or painted pictures of --export_png",
            ),
            "series": ("N", "which series, by number in the list or by UID; or best (dicom)"),
            "export_png": ("DIR", "write the slices as PNGs there instead, to be painted on (dicom)"),
            "join": ("DIR,...", "more folders of the same subjects: another task's results (totalsegmentator)"),
            "labels": ("JSON", "what values of label maps stand for, {value: structure} (dicom, nifti_pairs)"),
            "colours": ("JSON", "the masks' palette, if it is not the project's own (dicom, png_pairs)"),
            "repair": ("", "mend masks damaged by JPEG or antialiasing (dicom, png_pairs)"),
            "max_off_palette": ("SHARE", "share of a mask's pixels that may be off the palette (default 0)"),
            "orientation": ("HOW", "how slices lie, such as standard, flip-rows or rot90 (png_pairs)"),
            "merge": ("0,1,...", "nine labels: what each counts as where masks lack some (docs/data.md)"),
            "patients": ("CSV", "a table `file,patient`; default: the header, or the file name's part before _"),
            "names": ("HOW", "auto, keep or key: what patients are called (docs/data.md)"),
            "keep_table": ("", "keep a table of who is who in your own configuration folder"),
            "block": ("N", "slices that stand in for a patient (image_mask_zip; default 64)"),
            "splits": ("A,B,C", "shares of patients for training, validation, test (default 0.7,0.15,0.15)"),
            "seed": ("N", "of the split (default 0)"),
            "overwrite": ("", "replace a dataset that is there"),
            "config": ("FILE[:VARIANT]", "whose data.phantom to make (phantom), or data.window_hu (--export_png)"),
        },
        ("source", "output|export_png"),
    ),
    "convert": Verb(
        "carry a Keras encoder over, every layer listed; or a run's network back to Keras",
        {
            "input": ("FILE", "a .h5, .keras or .weights.h5 file"),
            "output": ("DIR", "the folder to make; with --to=keras a file: .keras or .weights.h5"),
            "channels": ("N", "input channels that the network is to take (default 3)"),
            "verify": ("", "compare every block's output with Keras itself (pip install keras)"),
            "to": ("keras", "the other way: from --workdir to a Keras file"),
            "workdir": ("DIR", "the run's folder (--to=keras)"),
            "step": ("N", "of which checkpoint (--to=keras; default: the last)"),
            "overwrite": ("", "replace a conversion that is there"),
        },
        ("output",),
    ),
    "inspect": Verb(
        "list a checkpoint's arrays: path, shape, dtype, norm, what is frozen; or compare two",
        {
            "workdir": ("DIR", "the run's folder"),
            "step": ("N", "of which checkpoint (default: the last)"),
            "against": ("DIR", "another run, or the same: which arrays differ, bit for bit"),
            "against_step": ("N", "of which of its checkpoints (default: the last)"),
            "json": ("", "as JSON"),
        },
        ("workdir",),
    ),
    "lab": Verb(
        "compare transfer with its controls: every patient left out in turn, every arm at equal steps",
        {
            **CONFIG,
            "workdir": ("DIR", "the laboratory's folder (default: runs/<config name>); the same command resumes"),
        },
        ("config",),
    ),
    "check": Verb(
        "tell whether a study or a dataset is fit for use (--input), or what a config comes to (--config)",
        {
            **CONFIG,
            "input": ("PATH", "a folder, a zip or a file of DICOM; or a dataset folder"),
            "output": ("PNG", "where a dataset's picture goes (default: audit.png in the dataset)"),
            "series": ("N", "which of its series, by number in the list or by UID"),
            "json": ("", "as JSON"),
        },
        (),
    ),
}
SWITCHES = {"json", "repair", "overwrite", "verify", "keep_table"}
EXAMPLES = """\
examples:
  python main.py --config=configs/quickstart.py
  python main.py prepare --source=png_pairs --input=my_study --output=my_dataset
  python main.py --config=configs/scratch.py --config.data.path=my_dataset --config.data.size=256
  python main.py evaluate --workdir=runs/scratch
  python main.py check --config=configs/scratch.py"""


class Call(NamedTuple):
    """One command line, understood."""

    verb: str
    flags: dict[str, str]
    overrides: dict[str, str]


def parse(argv: list[str]) -> Call:
    """Return the verb, its flags and the config's overrides, or raise a UserError."""
    words = list(argv)
    verb = words.pop(0) if words and not words[0].startswith("-") else "train"
    if verb not in VERBS:
        raise UserError(f"there is no verb '{verb}'{load.suggestion(verb, list(VERBS))}")
    flags: dict[str, str] = {}
    overrides: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"'{word}' is no flag; flags look like --config=configs/quickstart.py")
        name, equals, value = word[2:].partition("=")
        if name not in SWITCHES and not equals:
            if not words or words[0].startswith("--"):
                raise UserError(f"--{name} needs a value: --{name}=...")
            value = words.pop(0)
        if name.startswith("config."):
            overrides[name.removeprefix("config.")] = value
            continue
        if name not in VERBS[verb].flags:
            known = [f"--{flag}" for flag in VERBS[verb].flags]
            raise UserError(f"{verb} has no flag --{name}{load.suggestion(f'--{name}', known)}")
        if name in SWITCHES and equals and value.lower() not in ("true", "false"):
            raise UserError(f"--{name} is a switch: give it alone")
        flags[name] = value.lower() if name in SWITCHES and equals else value
    for name in SWITCHES & set(flags):
        if flags[name] == "false":
            del flags[name]
    for need in VERBS[verb].needs:
        name, *others = need.split("|")
        if not any(flags.get(one) for one in (name, *others)):
            raise UserError(f"{verb} needs --{name}={VERBS[verb].flags[name][0]}")
    for name in sorted(set(flags) - SWITCHES):
        if not flags[name]:
            raise UserError(f"--{name} is empty: give it a value, or leave it out")
    if overrides and not flags.get("config"):
        raise UserError("--config.* changes a config: give --config=FILE too")
    return Call(verb, flags, overrides)


def usage() -> str:
    """Return the help page: verbs, their flags, examples."""
    lines = ["usage: python main.py [VERB] --config=FILE [--config.FIELD=VALUE ...] [--FLAG=VALUE ...]", ""]
    for name, verb in VERBS.items():
        lines.append(f"{name}: {verb.summary}")
        for flag, (value, meaning) in verb.flags.items():
            lines.append(f"    {'--' + flag + ('=' + value if value else ''):<28} {meaning}")
    return "\n".join([*lines, "", EXAMPLES])


def run(call: Call, argv: list[str]) -> None:
    """Carry out one command line. Each verb is imported only when it is asked for."""
    flags = call.flags
    name, config = load.load(flags["config"], call.overrides) if "config" in flags else ("", None)
    if call.verb == "train":
        from heartseg_jax.training.train import train

        train(config, Path(flags.get("workdir", f"runs/{name}")), argv)
    elif call.verb == "evaluate":
        from heartseg_jax.verbs.evaluate import evaluate

        evaluate(
            Path(flags["workdir"]),
            step=number(flags, "step"),
            data=Path(flags["data"]) if "data" in flags else None,
            split=flags.get("split"),
            output=Path(flags["output"]) if "output" in flags else None,
        )
    elif call.verb == "prepare":
        from heartseg_jax.verbs.prepare import prepare

        prepare(flags, config)
    elif call.verb == "convert":
        from heartseg_jax.verbs.convert import convert

        convert(flags)
    elif call.verb == "inspect":
        from heartseg_jax.verbs.inspect import inspect

        inspect(
            Path(flags["workdir"]),
            number(flags, "step"),
            against=Path(flags["against"]) if "against" in flags else None,
            against_step=number(flags, "against_step"),
            as_json="json" in flags,
        )
    elif call.verb == "lab":
        from heartseg_jax.verbs.lab import lab

        lab(config, Path(flags.get("workdir", f"runs/{name}")), argv)
    elif call.verb == "check":
        if ("config" in flags) == ("input" in flags):
            raise UserError("check needs either --config=FILE or --input=STUDY, a study or a dataset")
        check(flags, name, config)


def check(flags: dict[str, str], name: str, config: Any) -> None:
    """Carry out the verb `check`: of a dataset, a study or a config, whichever is named."""
    path, as_json = Path(flags.get("input", "")), "json" in flags
    is_dataset = "input" in flags and (path / "dataset.json").is_file()
    for flag, of in {"output": is_dataset, "series": "input" in flags and not is_dataset}.items():
        if flag in flags and not of:
            raise UserError(
                f"check --{flag} is for {'a dataset' if flag == 'output' else 'a study'} alone: leave it out"
            )
    if is_dataset:
        from heartseg_jax.verbs.check_dataset import check_dataset

        check_dataset(path, Path(flags["output"]) if "output" in flags else None, as_json=as_json)
    elif "input" in flags:
        from heartseg_jax.verbs.check_study import check_study

        check_study(path, flags.get("series", ""), as_json=as_json)
    else:
        from heartseg_jax.verbs.check_config import check_config

        check_config(name, config, as_json=as_json)


def number(flags: dict[str, str], name: str) -> Any:
    """Return a flag's whole number, or None where it was not given."""
    return load.parse_value(f"--{name}", flags[name], 0) if name in flags else None


def main(argv: list[str]) -> int:
    """Run one command line; return the exit status: 0, 2 for a user's mistake, 3 for a guard's stop."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text that a terminal takes
    if any(word in ("--help", "-h", "help") for word in argv):
        print(usage())
        return 0
    try:
        run(parse(argv), argv)
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except GuardStop as stop:
        print(f"stopped by the {stop}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        # No room, no permission, a file where a folder should be: the machine's answer, not a bug. Others are.
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        print(
            f"error: {error.filename or 'the disk'}: {error.strerror}; make room, or name another place",
            file=sys.stderr,
        )
        return 2
    except MemoryError as error:
        wanted = f" ({error})" if str(error) else ""
        print(f"error: out of memory{wanted}; lower data.size, data.batch_size or model.width", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
