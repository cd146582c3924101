"""A config as dotted fields and as JSON's dicts and lists; how two differ, and what may change on resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

RESUMABLE = ("train.epochs", "guards.", "log.", "checkpoint.", "data.threads", "data.cache_gb")
"""Fields (or, with a final dot, groups) that a run may change when it is resumed."""


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
