"""Configs: loading, overrides from the command line, validation, and the difference between two. No JAX here."""

from __future__ import annotations

import difflib
import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from heartseg_jax.config import schema
from heartseg_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

RESUMABLE = ("train.epochs", "guards.", "log.", "checkpoint.", "data.threads", "data.cache_gb")
"""Fields (or, with a final dot, groups) that a run may change when it goes on."""


def load(spec: str, overrides: Mapping[str, str] | None = None) -> tuple[str, FrozenConfigDict]:
    """Return the run's name and the validated config of `spec`, `FILE.py` or `FILE.py:variant`.

    `overrides` maps dotted fields to text as typed, e.g. `{"data.size": "128"}`.

    Raises:
      UserError: no such file or variant, an unknown field, a value of the wrong type or out of range.
    """
    file, _, variant = spec.partition(":")
    path = Path(file)
    if not path.is_file():
        siblings = path.parent if path.parent.is_dir() else Path("configs")
        known = sorted(p.as_posix() for p in siblings.glob("*.py") if p.stem not in ("__init__", "base"))
        raise UserError(f"no config file at {file}{suggestion(file, known)}")
    config = _execute(path, variant)
    check_fields(config, base())
    for field, text in (overrides or {}).items():
        set_field(config, field, text)
    validate(config)
    return path.stem + (f"-{variant}" if variant else ""), FrozenConfigDict(config)


def _execute(path: Path, variant: str) -> ConfigDict:
    """Run a config file and return its `get_config(variant)`."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the files in configs/ build on configs/base.py
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python config file; give one such as configs/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(variant)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"the config file {path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {path} must return an ml_collections ConfigDict")
    return config


def base() -> ConfigDict:
    """Return the config that has every field once, with its default."""
    return _execute(ROOT / "configs" / "base.py", "")


def check_fields(config: Mapping[str, Any], like: Mapping[str, Any]) -> None:
    """Raise a UserError for the first field that `like` does not have, that lacks, or that has another type."""
    found, known = dict(fields(config)), dict(fields(like))
    for field, value in found.items():
        if field not in known:
            raise UserError(f"the config has a field '{field}' that nothing reads{suggestion(field, list(known))}")
        _check_type(field, value, known[field])
    lacking = [field for field in known if field not in found]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(
            f"the config lacks {', '.join(lacking[:3])}{more}; begin it with configs/base.py's get_config()"
        )


def complete(plain: Mapping[str, Any]) -> FrozenConfigDict:
    """Return the config of a run, as `to_plain` wrote it, with the defaults of fields that came after that run.

    Raises:
      UserError: it is no run's config, or has a field of another type, or one that nothing reads any more.
    """
    lacking = [group for group in ("seed", "data", "model", "train") if group not in plain]
    if lacking:
        raise UserError(f"it lacks {', '.join(lacking)}")
    whole = base()
    with whole.unlocked():
        whole.update(from_plain(plain))
    check_fields(whole, base())
    return FrozenConfigDict(whole)


def _check_type(field: str, value: Any, like: Any) -> None:
    if isinstance(like, tuple):
        if not isinstance(value, tuple) or (like and len(value) != len(like)):
            raise UserError(f"{field} needs {len(like) or 'a tuple of'} values such as {like}, not {value!r}")
        for member, expected in zip(value, like or ("",) * len(value), strict=True):
            _check_type(field, member, expected)
    elif type(value) is not type(like) and not (isinstance(like, float) and type(value) is int):
        raise UserError(f"{field} needs a value of type {type(like).__name__} such as {like!r}, not {value!r}")
    elif isinstance(like, float) and not math.isfinite(value):
        raise UserError(f"{field} needs a finite number, not {value}")


def suggestion(word: str, known: list[str]) -> str:
    """Return '; did you mean X?' or '; there are A, B' for an unknown word."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf, in the config's order."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | FrozenConfigDict | dict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def set_field(config: ConfigDict, field: str, text: str) -> None:
    """Set one dotted field from the text typed on the command line, keeping the field's type."""
    known = dict(fields(config))
    if field not in known:
        if any(name.startswith(field + ".") for name in known):
            inside = next(name for name in known if name.startswith(field + "."))
            raise UserError(f"config.{field} is a group of fields; set one inside it, such as {inside}")
        raise UserError(f"the config has no field '{field}'{suggestion(field, list(known))}")
    owner = config
    *groups, leaf = field.split(".")
    for group in groups:
        owner = owner[group]
    with owner.unlocked():
        owner[leaf] = parse_value(field, text, known[field])


def parse_value(field: str, text: str, default: Any) -> Any:
    """Return `text` as a value of the type of `default`, or raise a UserError that names the field."""
    if isinstance(default, bool):
        truth = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in truth:
            return truth[text.lower()]
        raise UserError(f"{field} needs true or false, not '{text}'")
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise UserError(f"{field} needs a whole number, not '{text}'") from None
    if isinstance(default, float):
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{field} needs a number, not '{text}'") from None
        if value != value or value in (float("inf"), float("-inf")):
            raise UserError(f"{field} needs a finite number, not '{text}'")
        return value
    if isinstance(default, tuple | list):
        return _parse_sequence(field, text, tuple(default))
    return text


def _parse_sequence(field: str, text: str, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """Parse '1,2,3' or '(1, 2, 3)'; a default with members fixes their number and type."""
    body = text.strip().strip("()[]")
    words = [word.strip().strip("'\"") for word in body.split(",") if word.strip()]
    if not default:
        return tuple(words)
    if len(words) != len(default):
        raise UserError(f"{field} needs {len(default)} values such as {default}, not '{text}'")
    return tuple(parse_value(field, word, like) for word, like in zip(words, default, strict=True))


def validate(config: Mapping[str, Any]) -> None:
    """Raise a UserError for the first field whose value cannot be meant."""
    schema.check(dict(fields(config)))


def to_plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as nested dicts and lists, ready for JSON."""
    return {
        name: to_plain(value)
        if isinstance(value, ConfigDict | FrozenConfigDict | dict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in config.items()
    }


def from_plain(plain: Mapping[str, Any]) -> FrozenConfigDict:
    """Return the config that `to_plain` wrote."""

    def tuples(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {name: tuples(value) for name, value in node.items()}
        return tuple(node) if isinstance(node, list) else node

    return FrozenConfigDict(tuples(plain))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return 'field: old -> new' for each field that differs, fields on RESUMABLE left out."""
    before, after = dict(fields(to_plain(old))), dict(fields(to_plain(new)))
    missing = object()
    return [
        f"{field}: {before.get(field, 'absent')} -> {after.get(field, 'absent')}"
        for field in sorted(set(before) | set(after))
        if before.get(field, missing) != after.get(field, missing) and not is_resumable(field)
    ]


def is_resumable(field: str) -> bool:
    """Tell whether a run may change this field when it goes on."""
    return any(field == name or (name.endswith(".") and field.startswith(name)) for name in RESUMABLE)
