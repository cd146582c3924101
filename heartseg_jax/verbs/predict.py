"""The verb `predict`: a study in; labels, measurements and files that other systems open out. Or many studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl.flags import DEFINE_enum, DEFINE_list, FlagValues

from heartseg_jax.config.flags import define_cache, define_step, given, switches, texts
from heartseg_jax.errors import UserError

if TYPE_CHECKING:
    from heartseg_jax.data.sources.naming import Naming
    from heartseg_jax.inference.identity import ModelIdentity
    from heartseg_jax.verbs.predict_places import Places
    from heartseg_jax.verbs.predict_study import Job


def define(values: FlagValues, argv: Sequence[str]) -> None:
    """Declare the verb's flags."""
    texts(
        values,
        input="a study (a folder, zip or file of DICOM, a NIfTI or NRRD volume, a folder of pictures), or a folder of "
        "studies (docs/predict.md)",
        output="the folder to write; of a folder of studies, it gets a folder for each",
        checkpoint="instead of --workdir, the folder of a run's checkpoint, such as RUN/checkpoints/12",
        series="of a DICOM study: which series, by its number in the list, its UID, or best",
        shard="K/N: of a folder of studies only every N-th, from the K-th on; or auto, as SLURM or Open MPI says",
        store="URL of an archive to send the DICOM objects to (DICOMweb)",
        names="auto, keep or key: what the folders of a folder of studies are called (docs/predict.md)",
    )
    own: dict[str, Any] = {"flag_values": values}
    DEFINE_list("workdir", None, "the folder of a run or a package; the mean of several: RUN,RUN,...", **own)
    DEFINE_list("export", None, "which outputs (default: all that the input allows; docs/predict.md)", **own)
    DEFINE_enum("language", "en", ("en", "es"), "of the outputs that are pages", **own)
    define_step("step", "which checkpoint of each run: a step, or best (default: the last)", values)
    define_cache(values)
    switches(
        values,
        tta="test-time augmentation: the mean over small rotations, shifts and scales (7 times as slow)",
        nopostprocess="leave the labels as the network gives them",
        keep_refused="also write labels that cannot be trusted and are withheld otherwise, with a warning",
        labelmap="write DICOM SEG as a label map instead of one binary mask per structure",
        keep_table="keep a table of who is who in your own configuration folder",
        overwrite="replace outputs that were made by another model, with other options or of other files",
    )


def run(values: FlagValues, argv: list[str]) -> None:
    """Predict one study, or all studies of a folder.

    Raises:
      UserError: a flag is missing, wrong or unused; there is no model; a study is refused.
    """
    flags = given(values)
    for name in ("input", "output"):
        if name not in flags:
            raise UserError(f"predict needs --{name}=...: {values[name].help}")
    runs, checkpoint = _models(flags)
    from heartseg_jax.progress import say, unless_said

    with unless_said("starting: looking for studies, then loading JAX and the model", seconds=1.0):
        places, naming, shard = _places(flags)
        job = _job(flags, runs, checkpoint)
    from heartseg_jax.verbs.predict_batch import predict_batch, predict_one

    output = Path(flags["output"])
    if places.passed_over:
        say(f"note: {places.passed_over}")
    how: dict[str, Any] = {"overwrite": "overwrite" in flags, "store": flags.get("store", "")}
    if not places.is_batch:
        say(f"predicting {flags['input']}; the first slices wait until the network is compiled")
        predict_one(job, places.studies[0], output, **how)
        return
    for note in naming.notes:
        say(f"note: {note}")
    if "keep_table" in flags and naming.table:
        from heartseg_jax.privacy import keep_table

        say(f"who is who: {keep_table(output.name, naming.table)}; keep it to yourself")
    say(f"predicting {len(places.studies)} studies; the first slices wait until the network is compiled")
    predict_batch(job, places.studies, output, shard=shard or _own_shard(), **how)


def interrupted(values: FlagValues) -> str:
    """Return how to go on after Ctrl-C."""
    return "no half output was left; the same command goes on, and skips the studies that are done"


def shipped_model() -> Path | None:
    """Return the folder of the heart model that comes with the project; None where it is not in this version."""
    from heartseg_jax.interop.package import SHIPPED, is_package

    return SHIPPED["heart_v1"] if is_package(SHIPPED["heart_v1"]) else None


def _models(flags: dict[str, Any]) -> tuple[list[Path], Path | None]:
    """Return the runs and the checkpoint that are named, one of them; or the shipped model."""
    if "workdir" in flags and "checkpoint" in flags:
        raise UserError("predict takes either --workdir or --checkpoint; remove one")
    if "checkpoint" in flags:
        if "step" in flags:
            raise UserError("--checkpoint names a step already; remove --step")
        return [], Path(flags["checkpoint"])
    runs = [Path(word) for word in flags.get("workdir", ()) if word]
    shipped = shipped_model()
    if not runs and shipped is None:
        raise UserError(
            "predict needs a trained model: give --workdir=RUN or --checkpoint=DIR. To make one: `python main.py "
            "--config=configs/quickstart.py` trains on phantoms; `python main.py prepare --source=...` and `python "
            "main.py --config=configs/scratch.py --config.data.path=DATASET` on your own patients"
        )
    return runs or [shipped], None  # type: ignore[list-item]


def _places(flags: dict[str, Any]) -> tuple[Places, Naming, tuple[int, int] | None]:
    """Return the studies, how they were named, and which shard was asked for, all checked before a model is loaded."""
    from heartseg_jax.data.sources.naming import Naming
    from heartseg_jax.verbs.predict_places import parsed_shard, places_of

    source, output, naming = Path(flags["input"]), Path(flags["output"]), Naming(flags.get("names", "auto"))
    shard = parsed_shard(flags["shard"]) if "shard" in flags else None
    if "store" in flags:
        from heartseg_jax.export.store import checked

        checked(flags["store"])
    places = places_of(source, naming)
    if not places.is_batch and (unused := [name for name in ("shard", "names", "keep_table") if name in flags]):
        raise UserError(f"--{unused[0]} is only used with a folder of studies, and {source} is one study; remove it")
    if source.is_dir() and output.absolute().resolve().is_relative_to(source.absolute().resolve()):
        raise UserError(f"--output={output} lies in the input: a later call would take it for studies; name another")
    if output.is_file():
        raise UserError(f"--output={output} is a file: name a folder")
    return places, naming, shard


def _job(flags: dict[str, Any], runs: list[Path], checkpoint: Path | None) -> Job:
    """Return what is done with every study. JAX and Orbax take seconds to import: only once all else is known."""
    from heartseg_jax.compilation_cache import open_cache
    from heartseg_jax.export.registry import Options
    from heartseg_jax.inference.postprocess import settings_of
    from heartseg_jax.native.library import turn_on
    from heartseg_jax.native.switch import remember
    from heartseg_jax.preprocess.learned import in_words
    from heartseg_jax.progress import say
    from heartseg_jax.verbs.models import load_models
    from heartseg_jax.verbs.predict_study import Job, check_exporters

    open_cache(flags.get("compilation_cache"))
    remember(flags.get("native_kernels", "on"))
    turn_on()
    exporters = check_exporters(flags.get("export", ()))
    views = "tta" in flags
    predictor, contract, config = load_models(runs, checkpoint, flags.get("step"), views=views)
    for line in dict.fromkeys(_of_package(model) for model in predictor.models if model.package):
        say(f"model: {line}; trained on {in_words(contract.learned_from)}")
    return Job(
        predictor,
        contract,
        None if "nopostprocess" in flags else settings_of(config, contract.label_set),
        views=views,
        series=flags.get("series", ""),
        exporters=exporters,
        keep_refused="keep_refused" in flags,
        options=Options("labelmap" in flags, flags.get("language", "en")),
    )


def _of_package(model: ModelIdentity) -> str:
    return f"{model.package}, version {model.version}, sha256 {model.package_sha256[:16]}"


def _own_shard() -> tuple[int, int]:
    """Return which of JAX's processes this is, of how many: (1, 1) where there is only one."""
    import jax

    return jax.process_index() + 1, jax.process_count()
