"""Checkpoints as they lie on the disk: found, checked and read by TensorStore, without Orbax and without JAX.

Orbax and JAX take two seconds to import, which those who only read weights do without. Orbax writes an item per folder:
JSON in `metadata`, a state's arrays as Zarr in an OCDBT store, and which there are in `_METADATA`. The digests of these
files are kept beside them: Orbax's array files have no checksums of their own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from heartseg_jax.errors import UserError
from heartseg_jax.files import read_json, write_json

JSON = ("data", "contract")
ITEMS = ("state", *JSON)

BEST = "best"
"""In place of a step: the checkpoint with the highest validation Dice, kept in the folder of that name."""

SEAL = "sha256.json"
"""In a checkpoint's folder: the SHA-256 of every file of its items."""

LISTED = "_METADATA"
WEIGHTS = ("params", "batch_stats")
AVERAGE = "ema"

Step = int | str


class Saved(NamedTuple):
    """What a checkpoint holds beside the state."""

    step: int
    data: Mapping[str, Any]
    contract: Mapping[str, Any]


class Damaged(Exception):
    """A checkpoint that cannot be read or is not what was saved; `Folder` adds which other one is good."""


class Kept:
    """A root folder with a folder `<step>/` for each checkpoint; what is not committed yet has another name."""

    def __init__(self, path: Path):
        self.path = path

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdecimal() and entry.is_dir())

    def digest(self, step: int) -> str:
        """Return the SHA-256 of the digests of its files, by name."""
        return digest_of(self.path / str(step), ITEMS)

    def check(self, step: int) -> None:
        """Compare the files with their digests; checkpoints of earlier versions have none and are accepted."""
        if wrong := broken_seal(self.path / str(step), ITEMS):
            raise Damaged(wrong)

    def read(self, step: int) -> Saved:
        """Return what lies beside the state, once the files have been compared with their digests."""
        self.check(step)
        found = {}
        for item in JSON:
            try:
                found[item] = json.loads((self.path / str(step) / item / "metadata").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise Damaged(f"its {item} cannot be read: {type(error).__name__}") from error
            if not isinstance(found[item], dict):
                raise Damaged(f"its {item} is not a JSON object")
        return Saved(step, found["data"], found["contract"])

    def weights(self, step: int) -> dict[str, Any]:
        """Return the state without its optimizer: see `Folder.read_weights`. Files are not compared with digests."""
        folder = self.path / str(step) / "state"
        try:
            return _arrays(folder, _wanted(_paths(folder)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # The first sentence says which array; what follows is TensorStore's own state, of no use to a user.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise Damaged(f"its arrays cannot be read: {reason}") from error

    def is_whole(self, step: int) -> bool:
        """Whether a checkpoint can be read and is what was saved."""
        with contextlib.suppress(Damaged):
            return bool(self.read(step)) and bool(self.weights(step))
        return False


K = TypeVar("K", bound=Kept)


class Folder(Generic[K]):
    """The folder `checkpoints/` of one run: `<step>/` for each kept step, and `best/<step>/`.

    `kept` opens each of the two.
    """

    def __init__(self, path: Path, kept: Callable[[Path], K]):
        self._path, self._kept = path.absolute(), kept
        self._steps = kept(self._path)

    @functools.cached_property
    def _best(self) -> K:
        return self._kept(self._path / BEST)

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, oldest first; the best one is not among them."""
        return self._steps.steps()

    def choose(self, step: Step | None = None) -> Step:
        """Return `step` (or 'best') if it has a checkpoint, the last step where None is given; else raise a UserError.

        What is returned is what the other methods take; `read(...).step` is always a number.
        """
        if step == BEST:
            if not (self._path / BEST).is_dir() or not self._best.steps():
                raise UserError(
                    f"{self._path} has no best checkpoint: nothing was scored on validation patients yet, or an "
                    "earlier version trained it; give a step"
                )
            return BEST
        known = self.steps()
        if not known:
            raise UserError(f"{self._path} has no checkpoint yet; let the run train first")
        if step is not None and step not in known:
            raise UserError(f"{self._path} has no checkpoint of step {step}; there are {', '.join(map(str, known))}")
        return known[-1] if step is None else step

    def folder(self, step: Step) -> Path:
        """Return the folder of a chosen step's checkpoint."""
        store, number = self._at(step)
        return store.path / str(number)

    def digest(self, step: Step) -> str:
        """Return the SHA-256 of a chosen checkpoint: of the digests of its files, by name."""
        store, number = self._at(step)
        return store.digest(number)

    def read(self, step: Step) -> Saved:
        """Return what is kept beside the state of `step`.

        Raises:
          UserError: it cannot be read, is not what was saved, or holds something else than objects.
        """
        with self._opened(step) as (store, number):
            return store.read(number)

    def read_weights(self, step: Step) -> tuple[Saved, dict[str, Any]]:
        """Return what is kept beside the state of `step`, and of the state what a network is evaluated with.

        That is a tree of dicts of numpy arrays: `ema` where the run averages its weights, else `params` and, where the
        network has them, `batch_stats`. The rest, the optimizer's, twice as much, is not read.

        Raises:
          UserError: as `read`.
        """
        with self._opened(step) as (store, number):
            return store.read(number), store.weights(number)

    def _at(self, step: Step) -> tuple[K, int]:
        return (self._best, self._best.steps()[-1]) if step == BEST else (self._steps, int(step))

    @contextlib.contextmanager
    def _opened(self, step: Step) -> Iterator[tuple[K, int]]:
        """Give the store and the number of a chosen step; where that is damaged, name a good one."""
        try:
            yield self._at(step)
        except Damaged as error:
            good = next((n for n in reversed(self.steps()) if n != step and self._steps.is_whole(n)), None)
            fix = "no other checkpoint of this run is good: delete that folder to train again"
            if good is not None:
                fix = f"delete that folder, or give --step={good}, to use step {good}, the newest good one"
            raise UserError(f"the checkpoint {self.folder(step)} is damaged ({error}); {fix}") from error


class Reader(Folder[Kept]):
    """The folder `checkpoints/` of one run, to read."""

    def __init__(self, path: Path):
        super().__init__(path, Kept)


def _paths(folder: Path) -> list[tuple[str, ...]]:
    """Return the path of each array of a state, as Orbax lists them; what is empty has none.

    Raises:
      OSError, ValueError, KeyError, TypeError, AttributeError: there is no such list, or of another form.
    """
    listed = json.loads((folder / LISTED).read_text(encoding="utf-8"))
    if listed["use_ocdbt"] is not True or listed.get("use_zarr3"):
        raise ValueError(f"{LISTED} names another kind of store than this version writes")
    return [
        tuple(str(key["key"]) for key in entry["key_metadata"])
        for entry in listed["tree_metadata"].values()
        if not entry["value_metadata"]["skip_deserialize"]
    ]


def _wanted(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the paths of the weights that are meant for use; they hold dicts only, no lists."""
    averaged = [path for path in paths if path[0] == AVERAGE]
    found = averaged or [path for path in paths if path[0] in WEIGHTS]
    if not any("params" in path[:2] for path in found):
        raise ValueError(f"{LISTED} names no parameters")
    return found


def _arrays(folder: Path, paths: list[tuple[str, ...]]) -> dict[str, Any]:
    """Return a tree of the arrays at these paths of an item's folder, its names in order.

    They are read one after another: an array is in memory twice while it is unpacked.
    """
    import tensorstore as ts

    context = ts.Context()
    tree: dict[str, Any] = {}
    base = {"driver": "file", "path": f"{folder}/"}
    for path in sorted(paths):
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"},
            "fill_missing_data_reads": False,  # what is missing is an error, not zeros
        }
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = np.asarray(ts.open(spec, open=True, context=context).result().read().result())
    return tree


def digests(folder: Path, items: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of a checkpoint's items, by its path in the folder."""
    paths = sorted(path for item in items for path in (folder / item).rglob("*"))
    return {
        path.relative_to(folder).as_posix(): _digest_of_file(path)
        for path in paths
        if path.is_file() and path.name != "commit_success.txt"
    }


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:  # piece by piece: a large network's arrays are one file
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_seal(folder: Path, items: Sequence[str]) -> None:
    """Add the digests to a checkpoint that is written whole."""
    write_json(folder / SEAL, digests(folder, items))


def broken_seal(folder: Path, items: Sequence[str]) -> str:
    """Return what of a checkpoint is not as it was saved, or ''; those of earlier versions have no digests and pass."""
    if not (folder / SEAL).is_file():
        return ""
    try:
        kept = read_json(folder / SEAL)
    except UserError:
        return f"{SEAL} cannot be read"
    seen = digests(folder, items)
    wrong = sorted(name for name in kept if kept[name] != seen.get(name))
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more} differs from what was saved, by SHA-256" if wrong else ""


def digest_of(folder: Path, items: Sequence[str]) -> str:
    """Return one SHA-256 for a checkpoint that is not broken: of its files' digests, in the order of their names."""
    kept = read_json(folder / SEAL) if (folder / SEAL).is_file() else digests(folder, items)
    return hashlib.sha256("".join(f"{name} {kept[name]}\n" for name in sorted(kept)).encode()).hexdigest()
