"""What a checkpoint states: written, read again, and read from earlier versions."""

import dataclasses
import json

import pytest

from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.findings import REFUSE, WARN
from heartseg_jax.preprocess.contract import Contract, InputSpec, input_spec
from heartseg_jax.preprocess.learned import Learned, inherited, trained_on
from tests.preprocess.specs import spec

PHASES = tuple({"first_step": n, "multipliers": {"encoder/stage1": 0.0, "head": 1.0}} for n in (1, 8))
CONTRACT = Contract(spec("0:-200..600,1"), "heart", "/data/ds", "abc", 5, PHASES)
VERSION_1 = {
    "phases": [{"first_step": 0, "multipliers": {"head": 1.0}}],
    "view": {
        "intensity": "HU",
        "size": 32,
        "mm_per_pixel": 0.0,
        "channels": "adjacent",
        "normalise": "window",
        "window_hu": [-200.0, 600.0],
        "percentiles": [1.0, 99.0],
    },
    "dataset": "/data/ds",
    "dataset_identity": "abc",
    "task": "tumour",
    "per_epoch": 5,
}


def config(**overrides):
    return load.load("configs/quickstart.py", {name.replace("__", "."): v for name, v in overrides.items()})[1].data


def test_it_comes_back_from_json():
    assert Contract.from_json(json.loads(json.dumps(CONTRACT.to_json())), "here") == CONTRACT


def test_version_1_is_read():
    window = (-200.0, 600.0)
    found = Contract.from_json(VERSION_1, "here")
    assert found.input == InputSpec("HU", 32, 0.0, ((-1, window), (0, window), (1, window)), (1.0, 99.0))
    assert (found.task, found.label_set.name) == ("tumour", "tumour")
    # Version 1 counted steps from 0.
    assert found.phases == ({"first_step": 1, "multipliers": {"head": 1.0}},)
    view = VERSION_1["view"] | {"channels": "repeat", "normalise": "percentile"}
    assert Contract.from_json(VERSION_1 | {"view": view}, "here").input.channels == ((0, None),) * 3


def test_a_contract_from_before_tasks_and_phases_is_of_the_heart_in_one_phase():
    old = {name: value for name, value in VERSION_1.items() if name not in ("task", "phases")}
    found = Contract.from_json(old, "here")
    assert (found.task, found.phases) == ("heart", ())
    one, two = (Contract(found.input, "heart", "elsewhere", "abc", 5, PHASES[:count]) for count in (1, 2))
    assert found.differences(one) == one.differences(found) == []
    assert found.differences(two) == two.differences(found) == ["phases"]


def test_a_run_that_goes_on_may_differ_in_the_place_of_its_dataset_only():
    other = Contract(spec(), "tumour", "elsewhere", "def", 6, PHASES[:1])
    assert CONTRACT.differences(other) == ["input", "task", "dataset_identity", "per_epoch", "phases"]


def changed(content, path, value):
    """A deep copy of JSON with the value at a path of keys replaced."""
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize("content", [None, [1], "x", 3, {}])
def test_what_is_no_contract_is_refused(content):
    with pytest.raises(UserError, match="the checkpoint of step 3 does not state"):
        Contract.from_json(content, "the checkpoint of step 3")


@pytest.mark.parametrize("content", [VERSION_1, CONTRACT.to_json()])
def test_every_key_is_needed(content):
    optional = {"version", "phases", "learned_from"} | ({"task"} if "view" in content else set())
    part = "view" if "view" in content else "input"
    for key in content.keys() - optional:
        with pytest.raises(UserError, match=key):
            Contract.from_json({k: v for k, v in content.items() if k != key}, "here")
    for key in content[part].keys() - {"closer", "across_mm"}:
        with pytest.raises(UserError, match=key):
            Contract.from_json(content | {part: {k: v for k, v in content[part].items() if k != key}}, "here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 3),
        (("task",), "liver"),
        (("task",), ["heart"]),
        (("dataset",), 3),
        (("per_epoch",), "5"),
        (("input",), "HU"),
        (("input", "intensity"), "mm"),
        (("input", "size"), "32"),
        (("input", "size"), 0),
        (("input", "mm_per_pixel"), None),
        (("input", "mm_per_pixel"), float("nan")),
        (("input", "channels"), []),
        (("input", "channels"), [[0.5, None]]),
        (("input", "channels"), [[0, [600, -200]]]),
        (("input", "channels"), [[0, ["a", "b"]]]),
        (("input", "percentiles"), [1.0]),
        (("phases",), [3]),
        (("phases",), [{"first_step": "0", "multipliers": {}}]),
    ],
)
def test_values_of_another_kind_are_refused(path, value):
    with pytest.raises(UserError, match="here"):
        Contract.from_json(changed(CONTRACT.to_json(), path, value), "here")


def test_eight_bit_images_are_always_normalised_by_percentiles():
    assert [window for _, window in input_spec(config(), "HU").channels] == [(-200.0, 600.0)] * 3
    assert [window for _, window in input_spec(config(), "uint8").channels] == [None] * 3
    assert [window for _, window in input_spec(config(data__normalise="percentile"), "HU").channels] == [None] * 3
    with pytest.raises(UserError, match="8-bit"):
        input_spec(config(data__channels="0:-200..600,0"), "uint8")


def test_percentiles_fit_any_unit_and_a_window_only_its_own():
    percentile = spec(window=None)
    assert percentile.for_intensity("HU") == (percentile, [])
    adapted, [warning] = percentile.for_intensity("uint8")
    assert (adapted, warning.level, warning.check) == (spec(window=None, intensity="uint8"), WARN, "intensity")
    _, [refusal] = spec().for_intensity("uint8")
    assert (refusal.level, refusal.check) == (REFUSE, "intensity")


def test_what_it_learned_from_is_noted_and_not_compared():
    record = Learned("hearts", "real", 2, 9, {"left_atrium": 2, "vena_cava": 0}, ("a" * 64,), licence="CC0")
    known = dataclasses.replace(CONTRACT, learned_from=(record,))
    again = Contract.from_json(json.loads(json.dumps(known.to_json())), "it")
    assert again == known
    assert CONTRACT.differences(known) == []
    assert (known.taught["left_atrium"], known.taught["vena_cava"]) == (("real",), ())
    assert CONTRACT.taught is None
    encoder, whole = inherited((record,), head=False), inherited((record,), head=True)
    assert (encoder[0].structures, whole[0].structures) == ({}, record.structures)
    assert trained_on(encoder) == {"a" * 64}


@pytest.mark.parametrize(
    "change", [{"images": "drawn"}, {"patients": -1}, {"patients": "2"}, {"name": 3}, {"licence": 0}]
)
def test_a_record_that_cannot_be_is_one_line(change):
    record = Learned("hearts", "real", 2, 9, {}, ()).to_json() | change
    with pytest.raises(UserError, match="contract"):
        Contract.from_json(CONTRACT.to_json() | {"learned_from": [record]}, "it")


def test_a_model_of_two_units_is_for_any_and_each_slice_is_seen_in_its_own():
    percentile = config(data__normalise="percentile")
    units = {
        "HU+uint8": "any",
        "HU+tissue": "any",
        "uint8+tissue": "any",
        "tissue": "any",
        "HU": "HU",
        "uint8": "uint8",
    }
    assert {unit: input_spec(percentile, unit).intensity for unit in units} == units
    both = input_spec(percentile, "HU+uint8")
    for unit, air in (("HU", -1000), ("uint8", 0), ("tissue", 0)):
        own, found = both.for_intensity(unit)
        assert (own.intensity, own.fill, found) == (unit, air, [])
    with pytest.raises(ValueError, match="must be chosen"):
        _ = both.fill


def test_a_window_is_for_hu_and_for_images_made_from_tissue_maps():
    windowed = input_spec(config(), "HU+tissue")
    assert windowed.intensity == "HU"
    assert [window for _, window in windowed.channels] == [(-200.0, 600.0)] * 3
    assert windowed.for_intensity("tissue")[1] == []
    assert windowed.for_intensity("uint8")[1][0].level == REFUSE
    with pytest.raises(UserError, match="normalise=percentile"):
        input_spec(config(), "HU+uint8")
    with pytest.raises(UserError, match="several windows"):
        input_spec(config(data__channels="0:-200..600,0:0..100"), "HU+tissue")


@pytest.mark.parametrize(("written", "closer"), [(0.0, ()), (0.6, (0.6,)), ([0.5, 0.7], (0.5, 0.7))])
def test_closer_looks_of_older_contracts_are_one_number(written, closer):
    content = CONTRACT.to_json()
    found = Contract.from_json(content | {"input": content["input"] | {"closer": written}}, "here")
    assert found.input.closer == closer


@pytest.mark.parametrize("written", [1.0, [0.5, 0], ["0.5"], "0.5"])
def test_a_share_that_is_none_is_refused(written):
    content = CONTRACT.to_json()
    with pytest.raises(UserError):
        Contract.from_json(content | {"input": content["input"] | {"closer": written}}, "here")
