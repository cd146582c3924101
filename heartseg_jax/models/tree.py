"""Paths of a tree's leaves as 'encoder/stage1/conv1/kernel', and the groups that paths belong to. No files here.

JAX is imported where a tree of any kind is walked: those who only list a checkpoint's arrays do without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np


def path_name(path: Sequence[Any]) -> str:
    """Return one of JAX's key paths as 'a/b/c', whatever kind of key (dict, field, index) each part is."""
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return {'a/b/c': leaf} of any tree, in JAX's order of its leaves."""
    import jax

    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def named_arrays(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return what `named_leaves` does of a tree that consists of dicts, without JAX."""
    found: dict[str, Any] = {}
    for name in sorted(tree):
        inner = tree[name]
        found |= named_arrays(inner, f"{above}{name}/") if isinstance(inner, Mapping) else {f"{above}{name}": inner}
    return found


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of dicts that `named_leaves` took apart."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def is_within(path: str, group: str) -> bool:
    """Whether a path is `group` itself or lies below it: 'encoder/stage1' holds no 'encoder/stage10/...'."""
    return path == group or path.startswith(f"{group}/")


def group_of(path: str, groups: Sequence[str]) -> str:
    """Return the first of `groups` that a path lies within.

    Raises:
      ValueError: it lies within none of them, so nothing would decide whether that array learns.
    """
    for group in groups:
        if is_within(path, group):
            return group
    raise ValueError(f"parameter {path} belongs to none of the groups {', '.join(groups)}")


def group_labels(tree: Any, groups: Sequence[str]) -> Any:
    """Return a tree like `tree` that has each leaf's group in its place; every leaf must have one (ValueError)."""
    import jax

    return jax.tree_util.tree_map_with_path(lambda path, _: group_of(path_name(path), groups), tree)


def groups_in(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the groups of a network's parameters: one per stage of the encoder, and every other part as a whole."""
    return tuple(
        group
        for part, inner in params.items()
        for group in ([f"{part}/{stage}" for stage in inner] if part == "encoder" else [part])
    )


def mismatches(saved: Any, expected: Any) -> list[str]:
    """Return where two trees of arrays (or of shapes) differ: paths, shapes and dtypes, the paths of both named."""

    def described(tree: Any) -> dict[str, str]:
        return {path: f"{tuple(leaf.shape)} {np.dtype(leaf.dtype).name}" for path, leaf in named_leaves(tree).items()}

    here, there = described(saved), described(expected)
    wrong = [
        f"{name}: saved {here[name]}, expected {there[name]}"
        for name in here
        if there.get(name, here[name]) != here[name]
    ]
    wrong += [f"{name} is not in the checkpoint" for name in sorted(set(there) - set(here))]
    return wrong + [f"{name} is only in the checkpoint" for name in sorted(set(here) - set(there))]


def map_within(groups: Collection[str], change: Callable[..., Any], *trees: Any) -> Any:
    """Map `change` over the leaves of `trees` that lie within `groups`; the other leaves are the last tree's."""
    import jax

    def choose(path: Any, *leaves: Any) -> Any:
        inside = any(is_within(path_name(path), group) for group in groups)
        return change(*leaves) if inside else leaves[-1]

    return jax.tree_util.tree_map_with_path(choose, *trees)
