"""Paths of leaves and their groups."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from heartseg_jax.models import tree
from heartseg_jax.training import phases

GROUPS = ("encoder/stage1", "encoder/stage10", "decoder", "head")


class Pair(NamedTuple):
    first: Any
    second: Any


def test_a_path_names_keys_fields_and_indices():
    assert tree.named_leaves({"b": [1, 2], "a": Pair(3, {"c": 4})}) == {
        "a/first": 3,
        "a/second/c": 4,
        "b/0": 1,
        "b/1": 2,
    }
    assert tree.named_leaves({}) == {}
    assert tree.named_leaves({"a": {}, "b": None}) == {}


def test_a_tree_of_dicts_is_listed_in_the_same_order_without_jax():
    mixed = {"b": {"2": 1, "10": 2}, "a": {"c": {"d": 3}}, "empty": {}}
    assert list(tree.named_arrays(mixed).items()) == [("a/c/d", 3), ("b/10", 2), ("b/2", 1)]
    assert list(tree.named_leaves(mixed)) == list(tree.named_arrays(mixed))


def test_nested_undoes_named_leaves():
    whole = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert tree.nested(tree.named_leaves(whole)) == whole


def test_a_group_ends_where_a_part_of_the_path_ends():
    assert tree.is_within("encoder/stage1/conv1/kernel", "encoder/stage1")
    assert tree.is_within("head", "head")
    assert not tree.is_within("encoder/stage10/conv1/kernel", "encoder/stage1")
    assert tree.group_of("encoder/stage10/k", GROUPS) == "encoder/stage10"
    assert tree.group_of("decoder/stage1/up/kernel", GROUPS) == "decoder"
    assert tree.group_of("decoder/stage1", ("decoder/stage1", "decoder")) == "decoder/stage1"  # the first match wins


@pytest.mark.parametrize("path", ["neck/kernel", "encoder/stage2/k", "heads/kernel"])
def test_a_parameter_of_no_group_is_an_error(path):
    with pytest.raises(ValueError, match=path):
        tree.group_of(path, GROUPS)
    with pytest.raises(ValueError, match=path):
        tree.group_labels(tree.nested({path: np.zeros(2), "head/bias": np.zeros(2)}), GROUPS)


def test_the_groups_in_a_network_are_those_that_phases_are_planned_by():
    params = tree.nested({f"encoder/stage{k}/conv1/kernel": k for k in (1, 2, 3)} | {"decoder/a/b": 4, "head/bias": 5})
    assert tree.groups_in(params) == phases.groups(3)
    assert tree.group_labels(params, phases.groups(3))["encoder"]["stage2"]["conv1"]["kernel"] == "encoder/stage2"


def test_only_what_lies_within_is_changed():
    old = {"encoder": {"stage1": {"k": 1}, "stage10": {"k": 2}}, "head": {"k": 3}}
    new = {"encoder": {"stage1": {"k": 10}, "stage10": {"k": 20}}, "head": {"k": 30}}
    kept = tree.map_within({"encoder/stage1", "head"}, lambda before, after: before, old, new)
    assert kept == {"encoder": {"stage1": {"k": 1}, "stage10": {"k": 20}}, "head": {"k": 3}}
