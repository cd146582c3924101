"""The verb `convert`: a Keras file's encoder into this project's form; a run into a Keras file, or into a package."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl.flags import DEFINE_enum, DEFINE_integer, FlagValues

from heartseg_jax.config.flags import define_step, given, switches, texts
from heartseg_jax.errors import UserError

if TYPE_CHECKING:
    from heartseg_jax.interop.encoder import Pretrained

MOST_CHANNELS = 64
"""Of an input image: a typing error must not ask for a kernel of gigabytes."""


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        input="a Keras file: .h5, .keras or .weights.h5; with --to=package a run's folder, or RUN,RUN,... as members",
        output="the folder to write; with --to=keras a .keras or .weights.h5 file",
        workdir="the folder of a run or a package (--to=keras)",
        version="of the package, as outputs state it (--to=package; default: 1)",
        licences="a JSON file: training dataset -> a line of licence and attribution (--to=package)",
    )
    DEFINE_integer(
        "channels", 3, "input channels of the network", lower_bound=1, upper_bound=MOST_CHANNELS, flag_values=values
    )
    define_step("step", "which checkpoint (with --to): a step, or best (default: the last)", values)
    switches(values, verify="compare each block with Keras (pip install keras)", overwrite="replace an existing output")
    DEFINE_enum("to", None, ["keras", "package"], "from a run: to a Keras file, or to a package", flag_values=values)
    DEFINE_integer(
        "mantissa_bits",
        None,
        "of ten, that float16 kernels keep: fewer make the package smaller (--to=package)",
        lower_bound=1,
        upper_bound=10,
        flag_values=values,
    )
    DEFINE_enum(
        "dtype", "float32", ["float16", "float32"], "of the package's kernels (--to=package)", flag_values=values
    )


def run(values: FlagValues, argv: list[str]) -> None:
    """Convert in the direction that --to names."""
    convert(given(values))


def convert(flags: Mapping[str, Any]) -> None:
    """Convert as `flags`, those that were typed, ask for.

    Raises:
      UserError: flags are missing or do not go together; the source cannot be converted or verified; the output
        exists already.
    """
    to = flags.get("to")
    name, needed, others, act = DIRECTIONS[to]
    for flag in flags:
        if flag not in needed.keys() | others | {"overwrite"}:
            owners = [other for other, (_, own, more, _) in DIRECTIONS.items() if flag in own.keys() | more and other]
            hint = f", which belongs to --to={' and --to='.join(owners)}" if owners else ""
            raise UserError(f"{name} takes no --{flag}{hint}")
    for flag, what in needed.items():
        if flag not in flags:
            instead = " (or --to=keras --workdir=RUN)" if flag == "input" and to is None else ""
            raise UserError(f"{name} needs --{flag}={what}{instead}")
    act(flags)


def _from_keras(flags: Mapping[str, Any]) -> None:
    from heartseg_jax.interop.encoder import SHIPPED, load_encoder, save_folder

    source, output, channels = Path(flags["input"]), Path(flags["output"]), flags.get("channels", 3)
    _check_folder(output, "overwrite" in flags)
    encoder = load_encoder(source, channels=channels)
    print(table(encoder))
    if "verify" in flags:
        encoder = _verified(encoder, SHIPPED.get(str(source), source), channels)
    save_folder(encoder, output)
    print(f"\nwritten to {output}; train from it with --config.pretrained.path={output}")


def _verified(encoder: Pretrained, source: Path, channels: int) -> Pretrained:
    """Return the encoder with the comparison in its report, or raise a UserError where it differs from Keras."""
    from heartseg_jax.interop import parity

    if source.is_dir():
        raise UserError(f"{source} is a folder of convert: Keras cannot run it; verify the Keras file it was made from")
    found = parity.verify(source, channels=channels)
    print(f"\n{parity.table(found)}")
    if found.why:
        print(f"only the encoder was compared: {found.why}")
    parity.check(found)
    print(f"verified: at most {found.worst.difference:.2g} of the peak, {parity.TOLERANCE:g} allowed")
    return encoder._replace(report=encoder.report | {"verification": parity.summary(found)})


def _check_folder(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file; convert makes a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / "conversion.json").is_file():
        raise UserError(f"--output={output} is a folder with other files in it; name a new one")
    if not overwrite:
        raise UserError(f"--output={output} holds a conversion already; give --overwrite to replace it")


def _to_keras(flags: Mapping[str, Any]) -> None:
    target = Path(flags["output"])
    if not target.name.endswith((".keras", ".weights.h5")):
        raise UserError(f"--output={target} must end in .keras (the whole model) or .weights.h5 (only weights)")
    if target.is_dir():
        raise UserError(f"--output={target} is a folder; name a file")
    if target.exists() and "overwrite" not in flags:
        raise UserError(f"--output={target} exists already; give --overwrite to replace it")
    # Orbax takes a second to import: only once the flags are known to be good.
    from heartseg_jax.interop.to_keras import export
    from heartseg_jax.training.networks import read_network

    network = read_network(Path(flags["workdir"]), flags.get("step"))
    if len(network.members) > 1:
        raise UserError(f"{network.path} holds {len(network.members)} networks, a Keras file one; convert one run")
    config, (params, batch_stats) = network.config, network.members[0]
    channels = int(params["encoder"]["stage1"]["conv1"]["kernel"].shape[2]) // config.model.fold**2
    target.parent.mkdir(parents=True, exist_ok=True)
    export(params, batch_stats, model=config.model, size=config.data.size, channels=channels, target=target)
    averaged = " (its averaged weights)" if network.averaged else ""
    print(f"step {network.identities[0].step} of {network.path}{averaged} written to {target}")


def _to_package(flags: Mapping[str, Any]) -> None:
    from heartseg_jax.verbs.convert_package import make_package

    said = make_package(
        [Path(word) for word in flags["input"].split(",") if word],
        Path(flags["output"]),
        step=flags.get("step"),
        dtype=flags.get("dtype", "float32"),
        mantissa_bits=flags.get("mantissa_bits"),
        version=flags.get("version", "1"),
        licences=Path(flags["licences"]) if "licences" in flags else None,
        overwrite="overwrite" in flags,
    )
    print(f"{said}\npredict with it: python main.py predict --workdir={flags['output']} --input=STUDY --output=DIR")


DIRECTIONS: dict[str | None, tuple[str, dict[str, str], set[str], Callable[[Mapping[str, Any]], None]]] = {
    None: ("convert of a Keras file", {"input": "FILE", "output": "DIR"}, {"channels", "verify"}, _from_keras),
    "keras": ("convert --to=keras", {"workdir": "RUN", "output": "FILE.keras"}, {"to", "step"}, _to_keras),
    "package": (
        "convert --to=package",
        {"input": "RUN", "output": "FOLDER"},
        {"to", "step", "dtype", "mantissa_bits", "version", "licences"},
        _to_package,
    ),
}
"""By --to: what the direction is called, the flags that it needs, those that it takes, and what it does."""


def table(encoder: Pretrained) -> str:
    """Return the page for the terminal: what was kept, what was left out and why, and notes."""
    report = encoder.report
    rows = [("in Keras", "here", "shape", "")]
    rows += [(row["keras"], row["flax"], "x".join(map(str, row["shape"])), "kept") for row in report["layers"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{report['source']} ({report['format']}, sha256 {report['sha256'][:12]}): an encoder of {encoder.levels} "
        f"stages, width {encoder.width}, {encoder.channels} input channels",
        "",
    ]
    lines += ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(3, "-" * (sum(widths) + 6))
    reasons: dict[str, list[str]] = {}
    for entry in report["left_out"]:
        reasons.setdefault(entry["reason"], []).append(entry["layer"])
    for reason, names in reasons.items():
        lines += ["", f"left out, {reason}:", textwrap.indent(textwrap.fill(" ".join(names), 100), "    ")]
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])
