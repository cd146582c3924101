"""The verb `prepare`: from its flags to a dataset folder and a report of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl.flags import DEFINE_enum, DEFINE_float, DEFINE_integer, DEFINE_list, FlagValues

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load, schema
from heartseg_jax.config.flags import define_config, given, switches, texts
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.data.sources.registry import FORMATS
from heartseg_jax.errors import UserError

ONLY_SOME = frozenset(flag for known in FORMATS.values() for flag in known.flags)
"""The flags that only some sources read: given to another, they are refused, not passed over in silence."""
PATHS = ("input", "masks", "colours", "labels", "patients")
PLAIN = ("series", "repair", "max_off_palette", "orientation", "block", "seed", "count", "slices", "size")
EXPORT = ("source", "input", "export_png", "series", "patients", "keep_table", "config")
"""The flags that an export of pictures reads."""


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        input="the source: a folder, or a zip of images and masks (image_mask_zip)",
        output="the dataset folder to write",
        masks="masks of a single study: PNGs, a label NIfTI, a segmentation, or painted pictures of --export_png",
        series="which series: its number in the list, its UID, or best (dicom)",
        export_png="write the slices as PNGs to this folder instead, for annotation (dicom)",
        labels="JSON file {value or name: structure}: what values, or segments, of label maps mean",
        colours="JSON file {colour: structure} that replaces the project's palette (dicom, png_pairs)",
        orientation="how slices are stored, such as standard, flip-rows or rot90 (png_pairs)",
        patients="CSV table `file,patient`; default: the header, or the part of the file name before _",
        names="auto, keep or key: what patients are called (docs/data.md)",
    )
    own: dict[str, Any] = {"flag_values": values}
    DEFINE_enum("source", None, tuple(FORMATS), "kind of source (docs/data.md)", required=True, **own)
    DEFINE_list("join", None, "more folders of the same subjects: the results of another task", **own)
    DEFINE_list("merge", None, "nine labels: what each counts as where masks lack some (docs/data.md)", **own)
    DEFINE_list("splits", ["0.7", "0.15", "0.15"], "shares of patients for training, validation, test", **own)
    switches(
        values,
        repair="repair masks damaged by JPEG or antialiasing",
        keep_table="keep a table of who is who in your own configuration folder",
        overwrite="replace an existing dataset",
    )
    most = "share of a mask's pixels that may be off the palette"
    DEFINE_float("max_off_palette", 0.0, most, lower_bound=0, upper_bound=0.999, **own)
    DEFINE_integer("block", 64, "slices per block (image_mask_zip)", lower_bound=1, **own)
    DEFINE_integer("seed", 0, "seed of the split, and of patients that are made (anatomy)", lower_bound=0, **own)
    DEFINE_integer("count", 160, "patients to make (anatomy)", lower_bound=1, **own)
    DEFINE_integer("slices", 12, "slices of each patient (anatomy)", lower_bound=1, **own)
    DEFINE_integer("size", 256, "rows and columns of a slice (anatomy)", lower_bound=32, upper_bound=1024, **own)
    define_config(values, argv, "whose data.phantom to make (phantom), or data.window_hu (--export_png)")


def run(values: FlagValues, argv: list[str]) -> None:
    """Write the dataset, or the pictures, and print what was made.

    Raises:
      UserError: a missing flag, one that the source does not read, a value out of range, or a source that is not fit.
    """
    flags = given(values)
    if not {"output", "export_png"} & set(flags):
        raise UserError("prepare needs --output=DATASET, or --export_png=DIR")
    kind = flags["source"]
    reader, export = FORMATS[kind], "export_png" in flags and "export_png" in FORMATS[kind].flags
    unused = set(flags) - set(EXPORT) if export else set(flags) & ONLY_SOME - set(reader.flags)
    if unused:
        raise UserError(
            f"--{min(unused)} is not used with {'--export_png' if export else f'--source={kind}'}; remove it"
        )
    if "input" in reader.flags and "input" not in flags:
        raise UserError(f"prepare --source={kind} needs --input={reader.input}")
    from heartseg_jax.data.dataset.describe import describe
    from heartseg_jax.data.dataset.write import check_output
    from heartseg_jax.data.sources.write_cases import write_cases

    config = load.config_of(values)[1] if "config" in flags else None
    options = _options(flags, config)
    if export:
        _export(options, Path(flags["export_png"]), config, "keep_table" in flags)
        return
    output, overwrite = Path(flags["output"]), "overwrite" in flags
    check_output(output, overwrite)  # before anything long is read
    print(f"reading    {flags.get('input', kind)}", flush=True)  # at once, so that a log shows that work has begun
    if options.colours:
        print("note       --colours replaces the standard palette: only the colours it names have a meaning")
    source = reader.read(options)
    dataset = write_cases(output, source, fractions=options.splits, seed=options.seed, overwrite=overwrite)
    _report(options.naming, "keep_table" in flags, output.name)
    print(describe(dataset))


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    return "no dataset was written; the same command starts from the beginning"


def _options(flags: Mapping[str, Any], config: Any | None) -> Options:
    """Return what the formats read. Raises UserError for a value that is out of range."""
    read: dict[str, Any] = {name: flags[name] for name in PLAIN if name in flags}
    read |= {name: Path(flags[name]) for name in PATHS if name in flags}
    if "splits" in flags:
        read["splits"] = _shares(flags["splits"])
    return Options(
        **read,
        join=tuple(Path(word) for word in flags.get("join", ()) if word),
        merge=_merge(flags["merge"]) if "merge" in flags else None,
        phantom=None if config is None else config.data.phantom,
        naming=Naming(flags.get("names", "auto")),
    )


def _shares(words: list[str]) -> tuple[float, ...]:
    """Return three shares, or three whole numbers of patients where all are written so."""
    kind = int if all(word.isdecimal() for word in words) else float
    try:
        numbers = tuple(kind(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UserError(f"--splits needs three numbers such as 0.7,0.15,0.15, not '{','.join(words)}'")
    return numbers


def _merge(words: list[str]) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--merge needs nine labels such as 0,1,2,3,4,5,1,7,4, not '{','.join(words)}'")
    try:
        return HEART.check_merge([int(word) for word in words])
    except ValueError as error:
        raise UserError(f"--merge: {error}") from None


def _export(options: Options, folder: Path, config: Any | None, keep: bool) -> None:
    """Write the pictures of DICOM studies, and say what to do with them."""
    from heartseg_jax.data.sources.export_png import export_png
    from heartseg_jax.data.sources.studies import choose_all, find_places

    chosen, doubts = choose_all(find_places(options.input), options)
    window = tuple((schema.defaults() if config is None else config).data.window_hu)
    written = export_png(chosen, folder, window)
    options.naming.notes += doubts
    _report(options.naming, keep, folder.name)
    print(f"pictures   {folder / 'images'}, HU {window[0]:g} to {window[1]:g} as 0 to 255")
    for study in written:
        how = study["orientation"]
        text = "axial in the standard orientation" if how == "standard" else f"for png_pairs: --orientation={how}"
        print(f"{study['first']} and on: {study['slices']} slices, {text if how else 'not axial'}")


def _report(naming: Naming, keep: bool, name: str) -> None:
    """Print what was decided about names, and keep the table of who is who where that was asked for."""
    for note in naming.notes:
        print(f"note       {note}")
    if keep and naming.table:
        from heartseg_jax.privacy import keep_table

        print(f"who is who {keep_table(name, naming.table)}: keep it to yourself")
