"""Configs: loading, overrides from the command line, validation, and the difference between two. No JAX here."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, FrozenConfigDict

from heartseg_jax.config import flags, schema
from heartseg_jax.config.suggest import suggestion
from heartseg_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

RESUMABLE = ("train.epochs", "guards.", "log.", "checkpoint.", "data.threads", "data.cache_gb")
"""Fields (or, with a final dot, groups) that a run may change when it goes on."""


def load(spec: str, overrides: Mapping[str, str] | None = None) -> tuple[str, FrozenConfigDict]:
    """Return the run's name and the validated config of `spec`, `FILE.py` or `FILE.py:variant`.

    `overrides` are dotted fields and the text that the command line would have: {"data.size": "96"}.

    Raises:
      UserError: the file is missing or fails, or a field or a value does not exist.
    """
    values = absl_flags.FlagValues()
    argv = [f"--config={spec}", *(f"--config.{field}={text}" for field, text in (overrides or {}).items())]
    flags.define_config(values, argv)
    parse("config", values, argv)
    return config_of(values)


def parse(program: str, values: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Parse the command line of one verb; see `flags.parse`."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # the files in configs/ build on configs/base.py
    flags.parse(program, values, argv, [field for field, _ in fields(base())])


def config_of(values: absl_flags.FlagValues) -> tuple[str, FrozenConfigDict]:
    """Return the run's name and the validated config of parsed flags.

    Raises:
      UserError: a field is missing, unknown or of another type, or its value cannot be meant.
    """
    spec = flags.spec_of(values)
    if spec is None:
        raise UserError("--config=FILE is missing")
    path, variant = spec
    config, typed = flags.typed_config(values)
    known = dict(fields(base()))
    with config.unlocked():
        config.update_from_flattened_dict(
            {field: _members(field, value, known[field]) for field, value in typed.items() if isinstance(value, tuple)}
        )
    check_fields(config, base())
    validate(config)
    return path.stem + (f"-{variant}" if variant else ""), FrozenConfigDict(config)


def _members(field: str, words: tuple[Any, ...], like: Any) -> tuple[Any, ...]:
    """Return the words typed for a tuple as values of the types of `like`; an empty `like` takes any number of words.

    Raises:
      UserError: there are more or fewer than `like` has, or one is no number.
    """
    if like and len(words) != len(like):
        raise UserError(f"{field} needs {len(like)} values such as {like}, not '{','.join(map(str, words))}'")
    try:
        return tuple(type(one)(word) for word, one in zip(words, like, strict=True)) if like else words
    except ValueError:
        raise UserError(f"{field} needs numbers such as {like}, not '{','.join(map(str, words))}'") from None


def base() -> ConfigDict:
    """Return the config that has every field once, with its default."""
    from configs import base as defaults

    return defaults.get_config()


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


def fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf, in the config's order."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | FrozenConfigDict | dict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


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
