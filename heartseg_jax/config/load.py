"""Configs from files, the command line and run folders: complete and accepted; and how two differ. No JAX here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import flags, schema
from heartseg_jax.errors import UserError, suggestion

RESUMABLE = (
    "benchmark.",
    "postprocess.",
    "train.epochs",
    "guards.",
    "log.",
    "checkpoint.",
    "data.threads",
    "data.cache_gb",
    "data.resident",
)
"""Fields (or, with a final dot, groups) that a run may change when it is resumed."""


def load(spec: str, overrides: Mapping[str, str] | None = None) -> tuple[str, FrozenConfigDict]:
    """Return the run's name and the config of `spec`, `FILE.py` or `FILE.py:variant`.

    `overrides` are dotted fields and the text that the command line would have: {"data.size": "96"}.

    Raises:
      UserError: the file is missing or fails, or a field or a value does not exist.
    """
    values = absl_flags.FlagValues()
    argv = [f"--config={spec}", *(f"--config.{field}={text}" for field, text in (overrides or {}).items())]
    flags.define_config(values, argv)
    flags.parse("config", values, argv)
    return config_of(values)


def config_of(values: absl_flags.FlagValues) -> tuple[str, FrozenConfigDict]:
    """Return the run's name and the config of parsed flags.

    Raises:
      UserError: a field is missing, unknown or of another type, or a value is not accepted.
    """
    file, _, variant = config_flags.get_config_filename(values["config"]).partition(":")
    config, typed = flags.typed_config(values)
    tuples = {field: _members(field, words) for field, words in typed.items() if isinstance(words, tuple)}
    config.update_from_flattened_dict(tuples)
    if "transfer.phases" in typed and config.transfer.schedule != "custom":
        raise UserError("transfer.phases is only used with --config.transfer.schedule=custom")
    return Path(file).stem + (f"-{variant}" if variant else ""), _checked(config)


def complete(plain: Mapping[str, Any]) -> FrozenConfigDict:
    """Return the config of a run, as `to_plain` wrote it, with the defaults of fields that were added later.

    Raises:
      UserError: it is not the config of a run, or has a field that is unknown, of another type or not accepted.
    """
    lacking = [group for group in ("seed", "data", "model", "train") if group not in plain]
    if lacking:
        raise UserError(f"it lacks {', '.join(lacking)}")
    whole = schema.defaults()
    whole.update(from_plain(_newer(plain)))
    return _checked(whole)


def _newer(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's config with the values that were of another type in earlier versions in today's form."""
    closer = plain["data"].get("closer")
    if not isinstance(closer, int | float):
        return plain
    return {**plain, "data": {**plain["data"], "closer": [str(closer)] if closer else []}}  # one share, or 0 for none


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> FrozenConfigDict:
    """Return the config with `changes`, dotted field -> value.

    Raises:
      UserError: a field is unknown, or a value is of another type or not accepted.
    """
    for name, value in changes.items():
        if name not in schema.FIELDS:
            raise UserError(f"the config has no field '{name}'{suggestion(name, list(schema.FIELDS))}")
        schema.FIELDS[name].check(value)
    whole = schema.defaults()
    whole.update(config)
    whole.update_from_flattened_dict(dict(changes))
    return _checked(whole)


def _checked(config: ConfigDict) -> FrozenConfigDict:
    """Return the config once it has every field of the schema and no other, and only values that are accepted."""
    found = dict(fields(config))
    for name in found:
        if name not in schema.FIELDS:
            raise UserError(
                f"the config has a field '{name}' that nothing reads{suggestion(name, list(schema.FIELDS))}"
            )
    lacking = [name for name in schema.FIELDS if name not in found]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(
            f"the config lacks {', '.join(lacking[:3])}{more}; begin it with get_config() of configs/base.py"
        )
    for name, value in found.items():
        schema.FIELDS[name].check(value)
    schema.check_together(found)
    config.model.num_classes = LABEL_SETS[config.data.task].num_classes
    return FrozenConfigDict(config)


def _members(field: str, words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the words that were typed for a tuple as values of the types of the field's default.

    Raises:
      UserError: there are more or fewer than the default has, or one is not a number.
    """
    like = schema.FIELDS[field].default
    if like and len(words) != len(like):
        raise UserError(f"{field} needs {len(like)} values such as {like}, not '{','.join(map(str, words))}'")
    try:
        return tuple(type(one)(word) for word, one in zip(words, like, strict=True)) if like else words
    except ValueError:
        raise UserError(f"{field} needs numbers such as {like}, not '{','.join(map(str, words))}'") from None


def fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every leaf, in the config's order."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | FrozenConfigDict | dict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


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
    """Return 'field: old -> new' for each field that differs, without those on RESUMABLE."""
    before, after = dict(fields(to_plain(old))), dict(fields(to_plain(new)))
    missing = object()
    return [
        f"{field}: {before.get(field, 'absent')} -> {after.get(field, 'absent')}"
        for field in sorted(set(before) | set(after))
        if before.get(field, missing) != after.get(field, missing) and not is_resumable(field)
    ]


def is_resumable(field: str) -> bool:
    """Return whether a run may change this field when it is resumed."""
    return any(field == name or (name.endswith(".") and field.startswith(name)) for name in RESUMABLE)
