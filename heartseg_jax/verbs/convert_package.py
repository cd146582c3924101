"""`convert --to=package`: runs become a folder that can be passed on, and that says what it was trained on."""

from __future__ import annotations

import dataclasses
import datetime
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heartseg_jax import __version__
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.files import new_folder, read_json
from heartseg_jax.findings import some
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import AIR_HU
from heartseg_jax.inference.predictor import make_predictor
from heartseg_jax.inference.slices import predict_slices
from heartseg_jax.interop import package
from heartseg_jax.preprocess.learned import UNRECORDED
from heartseg_jax.training.networks import records_of
from heartseg_jax.verbs.models import Loaded, joined, load_all
from heartseg_jax.workdir import Workdir

ALLOWED = {"float32": 1e-6, "float16": 0.02}
"""The largest difference of a probability that the rounding of the weights may make."""
ALLOWED_CHANGES = 10_000
"""Where kernels keep few bits: how many labels in a million may change. Single probabilities near a border may by much.
"""
PATIENTS = ("data.test_patients", "data.validation_patients")
"""Fields that name patients: a package does not."""
PATHS = ("data.path", "pretrained.path", "lab.synthetic_run", "lab.heart_run")
"""Fields that say where things are on the machine: only the names are kept."""


def make_package(
    runs: Sequence[Path],
    target: Path,
    *,
    step: int | str | None = None,
    dtype: str = "float32",
    mantissa_bits: int | None = None,
    version: str = "1",
    licences: Path | None = None,
    overwrite: bool = False,
) -> str:
    """Write runs, the members of an ensemble, as a package; return what was written, for the terminal.

    With `mantissa_bits` float16 kernels keep that many of their ten. `licences` is a JSON file with a line of licence
    and attribution for each training dataset, by name.

    Raises:
      UserError: a run cannot be read, says not what it was trained on, or does not go together with the others; the
        name cannot be a package's; the package, read back, predicts something else.
    """
    name = target.absolute().name
    if not package.NAME.fullmatch(name):
        raise UserError(
            f"--output={target}: the folder's name is the model's, which outputs state; use at most 40 small letters, "
            "digits and _ . -"
        )
    if mantissa_bits is not None and dtype != "float16":
        raise UserError("--mantissa_bits needs --dtype=float16")
    _check_target(target, overwrite)
    stated = read_json(licences, fix="give another --licences") if licences else {}
    loaded = [_with_records(one) for one in load_all(runs, step)]
    if packed := [one for one in loaded if one.identity.package]:
        raise UserError(f"{packed[0].network.path} is a package already; give the runs' folders")
    head = _head(loaded, name, version, stated)
    members = [weights for one in loaded for weights in one.network.members]
    with new_folder(target, overwrite=overwrite) as folder:
        package.write_package(folder, head, members, dtype, mantissa_bits)
        worst, changed = _compared(loaded[0], members, list(package.read_package(folder).members))
        if mantissa_bits is not None and changed > ALLOWED_CHANGES:
            raise UserError(
                f"the package would label {changed} of a million pixels otherwise than the runs, {ALLOWED_CHANGES} "
                "allowed; give a larger --mantissa_bits"
            )
        if mantissa_bits is None and worst > ALLOWED[dtype]:
            raise UserError(
                f"the package would differ from the runs by {worst:.2g} in a probability, {ALLOWED[dtype]:g} allowed "
                f"for {dtype}; {'give --dtype=float32' if dtype == 'float16' else 'this is a bug'}"
            )
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    learned = head["contract"]["learned_from"]
    unstated = [one["name"] for one in learned if not one["licence"]]
    lines = [
        f"{target}: {name}, version {version}, {len(members)} network{'s' if len(members) > 1 else ''}, {size:.1f} MB",
        f"read back and compared on a phantom patient: the worst probability differs by {worst:.2g} "
        f"({f'{ALLOWED[dtype]:g}' if mantissa_bits is None else 'any'} allowed), {changed} of a million pixels change "
        "their label",
        *(
            f"learned from {one['name']}: {one['patients']} patients, {one['slices']} slices, {one['images']} images"
            + (" (its initial weights)" if one["inherited"] else "")
            for one in learned
        ),
    ]
    if unstated:
        lines.append(f"note: no licence is stated for {some(unstated, 9)}; give --licences=FILE before you pass it on")
    return "\n".join(lines)


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"--output={target} is a file; a package is a folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    others = [file.name for file in target.iterdir() if file.name not in (package.MODEL, package.WEIGHTS)]
    if others or not package.is_package(target):
        raise UserError(f"--output={target} is a folder with other files in it; name a new one")
    if not overwrite:
        raise UserError(f"--output={target} holds a package already; give --overwrite to replace it")


def _head(loaded: Sequence[Loaded], name: str, version: str, licences: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `model.json` but for the weights'. No patient is named in it, and no folder's place."""
    contract = joined(loaded)
    plain = contract.to_json() | {"dataset": _names(contract.dataset)}
    known = {one["name"] for one in plain["learned_from"]}
    if strange := sorted(set(licences) - known):
        raise UserError(
            f"--licences has '{strange[0]}', which it was not trained on; that is {', '.join(sorted(known))}"
        )
    for one in plain["learned_from"]:
        one["licence"] = str(licences.get(one["name"], one["licence"]))
    return {
        "name": name,
        "version": version,
        "statement": "Research use only, not for diagnosis",
        "packed": {
            "date": datetime.datetime.now().astimezone().date().isoformat(),
            "program": f"heartseg_jax {__version__}",
        },
        "taught": {structure: list(kinds) for structure, kinds in (contract.taught or {}).items()},
        "sources": [_source(one) for one in loaded],
        "contract": plain,
        "config": _shareable(loaded[0].config),
    }


def _with_records(one: Loaded) -> Loaded:
    """Return a run that says what it was trained on, or raise a UserError."""
    contract, path = one.contract, one.network.path
    found = records_of(contract, one.config)
    if not found:
        raise UserError(
            f"{path} does not say what it was trained on, as runs of earlier versions, and its dataset is gone or has "
            "changed; train it again"
        )
    if UNRECORDED in found:
        raise UserError(f"{path} began from weights that do not say what they were trained on; train them again")
    network = one.network._replace(contract=dataclasses.replace(contract, learned_from=found))
    return one._replace(network=network)


def _source(one: Loaded) -> dict[str, Any]:
    """Return where a member came from: its run's commit, seed, command, versions and checkpoint."""
    try:
        run = read_json(Workdir(one.network.path).run)
    except UserError:
        run = {}  # a run that was copied without it: the checkpoint is what counts
    identity = one.identity
    return {
        "seed": int(one.config.seed),
        "step": identity.step,
        "averaged": one.network.averaged,
        "checkpoint_sha256": identity.checkpoint_sha256,
        "config_sha256": identity.config_sha256,
        "started": run.get("started"),
        "commit": run.get("commit"),
        "command": _command(run.get("command")),
        "python": run.get("python"),
        "versions": run.get("versions"),
        "devices": run.get("devices"),
    }


def _shareable(config: Any) -> dict[str, Any]:
    """Return a config without patients and without places."""
    fields = dict(load.fields(config))
    changes: dict[str, Any] = {field: () for field in PATIENTS}
    changes |= {field: _names(fields[field]) for field in PATHS if fields.get(field)}
    return load.to_plain(load.changed(config, changes))


def _names(paths: str) -> str:
    """Return 'A,B' of '/where/ever/A,elsewhere/B'."""
    return ",".join(Path(path).name for path in paths.split(","))


def _command(command: Any) -> str | None:
    """Return a run's command without patients and without places."""
    if not isinstance(command, str):
        return None
    words = []
    for word in shlex.split(command):
        flag, given, value = word.partition("=")
        if given and any(flag.endswith(field) for field in PATIENTS):
            value = "..."
        elif given:
            value = re.sub(r"[^,=:]*/", lambda found: found[0] if found[0].startswith("configs/") else "", value)
        words.append(flag + given + value)
    return shlex.join(words)


def _compared(one: Loaded, members: Sequence[Any], packed: Sequence[Any]) -> tuple[float, int]:
    """Return the largest difference of a probability on a phantom patient, and how many labels in a million differ."""
    # Without closer looks: where their windows lie is rounded to pixels, and says nothing about the weights.
    spec = dataclasses.replace(one.contract.input, closer=(), across_mm=0.0)
    phantom = PhantomSpec()
    images = generate(0, 0, phantom).volume.voxels
    if spec.intensity == "any":
        spec, _ = spec.for_intensity("HU")
    if spec.intensity != "HU":
        images = np.clip((images.astype(np.float32) - AIR_HU) / 8, 0, 255).astype(np.uint8)
    wanted = range(0, len(images), 4)
    worst, changed, total = 0.0, 0, 0
    for pair in zip(members, packed, strict=True):
        predictors = [make_predictor(one.model, [weights], one.config.data.batch_size) for weights in pair]
        both = [predict_slices(predictor, spec, images, wanted, phantom.spacing_mm, True) for predictor in predictors]
        for own, again in zip(*both, strict=True):
            worst = max(worst, float(np.abs(own - again).max()))
            changed += int((own.argmax(axis=-1) != again.argmax(axis=-1)).sum())
            total += own[..., 0].size
    return worst, round(1e6 * changed / total)
