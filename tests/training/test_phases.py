"""Phases: their boundaries, and the optimizer that follows from them, against a plain loop."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.models import convolution, registry, tree
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import phase_log, phases, steps
from tests.training.test_steps import batch_of

SCHEDULES = ("none", "frozen", "full", "lp_ft", "staged", "surgical", "custom")


def transfer(schedule, custom=(), multiplier=1.0):
    return SimpleNamespace(schedule=schedule, phases=custom, encoder_multiplier=multiplier, rewarm_steps=4)


def stated(found):
    return [(p.first, p.end, sorted(p.learning - {"decoder", "head"})) for p in found]


def test_the_named_schedules_on_two_levels():
    one, two = "encoder/stage1", "encoder/stage2"
    assert stated(phases.plan(transfer("none"), 2, 9)) == [(0, 9, [one, two])]
    assert stated(phases.plan(transfer("frozen"), 2, 9)) == [(0, 9, [])]
    assert stated(phases.plan(transfer("full"), 2, 9)) == [(0, 9, [one, two])]
    assert stated(phases.plan(transfer("lp_ft"), 2, 8)) == [(0, 4, []), (4, 8, [one, two])]
    assert stated(phases.plan(transfer("staged"), 2, 9)) == [(0, 3, []), (3, 6, [two]), (6, 9, [one, two])]
    assert stated(phases.plan(transfer("surgical"), 2, 9)) == [(0, 3, []), (3, 6, [one]), (6, 9, [one, two])]


def test_custom_phases_have_lengths_and_rates():
    found = phases.plan(transfer("custom", ("1:head", "3:encoder/stage2*0.1+decoder+head")), 2, 8)
    assert [(p.first, p.end) for p in found] == [(0, 2), (2, 8)]
    assert dict(found[1].multipliers) == {"encoder/stage1": 0, "encoder/stage2": 0.1, "decoder": 1, "head": 1}
    assert found[0].frozen == {"encoder/stage1", "encoder/stage2", "decoder"}
    assert dict(phases.plan(transfer("custom", ("1:all*0.5+head",)), 2, 8)[0].multipliers)["decoder"] == 0.5


@pytest.mark.parametrize("text", ["head", "x:head", "0:head", "1:heart", "1:head*x", "1:head*0", "1:", "-1:head"])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(UserError, match=r"transfer\.phases"):
        phases.plan(transfer("custom", (text,)), 2, 8)


def test_more_phases_than_steps_are_refused():
    with pytest.raises(UserError, match="6 phases, too many for 3 steps"):
        phases.plan(transfer("staged"), 5, 3)


PARAMS = {
    "encoder": {"stage1": {"k": np.array([[1.0, -2.0]])}, "stage2": {"k": np.array([[0.5]])}},
    "decoder": {"k": np.array([[3.0], [-1.0]])},
    "head": {"b": np.array([0.25])},
}
PLACES = {
    "encoder/stage1": ("encoder", "stage1", "k"),
    "encoder/stage2": ("encoder", "stage2", "k"),
    "decoder": ("decoder", "k"),
    "head": ("head", "b"),
}
TRAIN = SimpleNamespace(
    clip_norm=1.0,
    weight_decay=0.01,
    learning_rate=0.1,
    warmup_steps=0,
    schedule="cosine",
    epochs=1,
    steps=0,
    optimizer="adamw",
)
TOTAL = 24


def plain_loop(plan, rewarm):
    """AdamW written out: moments of a group start when it thaws, the clip's norm is of what learns."""
    values = {g: np.array(_at(PARAMS, place)) for g, place in PLACES.items()}
    moments = {}
    for number, phase in enumerate(plan):
        rates = dict(phase.multipliers)
        for group in values:
            if rates[group] == 0:
                moments.pop(group, None)
            elif group not in moments:
                moments[group] = [0.0, 0.0, 0]
        for step in range(phase.first, phase.end):
            gradients = {g: np.cos(values[g] * (step + 1)) + values[g] for g in moments}
            norm = np.sqrt(sum(float((x**2).sum()) for x in gradients.values()))
            rate = TRAIN.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / TOTAL)))
            rise = min(rewarm, (phase.end - phase.first) // 4)
            if number and rise:
                rate *= min((step - phase.first + 1) / rise, 1.0)
            for group, x in gradients.items():
                x = x / norm if norm > 1 else x
                m, v, count = moments[group]
                m, v, count = 0.9 * m + 0.1 * x, 0.999 * v + 0.001 * x**2, count + 1
                moments[group] = [m, v, count]
                move = (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
                decay = TRAIN.weight_decay * values[group] if values[group].ndim > 1 else 0.0
                values[group] = values[group] - rate * rates[group] * (move + decay)
    return values


def _at(tree, place):
    for part in place:
        tree = tree[part]
    return tree


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_moves_as_a_plain_loop_does(schedule):
    asked = transfer(schedule, ("1:head", "1:encoder/stage2*0.5+head", "1:encoder/stage2+decoder"), 0.3)
    plan = phases.plan(asked, 2, TOTAL)
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, PARAMS)
        state, before = None, None
        for phase in plan:
            schedule_of = phases.learning_rates(steps.learning_rate_schedule(TRAIN, TOTAL), phase, asked.rewarm_steps)
            tx = phases.build_optimizer(TRAIN, schedule_of, phase)
            fresh = tx.init(params)
            state = fresh if before is None else phases.carry_over(before, state, phase, fresh)
            known = tree.group_labels(params, phases.groups(2))
            for step in range(phase.first, phase.end):
                gradients = jax.tree.map(
                    lambda x, g, step=step, phase=phase: (
                        0 * x if g in phase.frozen else jax.numpy.cos(x * (step + 1)) + x
                    ),
                    params,
                    known,
                )
                updates, state = tx.update(gradients, state, params)
                params = optax.apply_updates(params, updates)
            before = phase
    expected = plain_loop(plan, asked.rewarm_steps)
    for group, place in PLACES.items():
        np.testing.assert_allclose(_at(params, place), expected[group], rtol=1e-6, atol=1e-9, err_msg=group)


@pytest.fixture(scope="module")
def network():
    overrides = {"data.size": "32", "model.width": "8", "model.levels": "3", "model.norm": "encoder"}
    _, config = load.load("configs/quickstart.py", overrides | {"train.warmup_steps": "0", "train.optimizer": "adamw"})
    model = registry.build_model(config.model, HEART)
    return config, model, steps.init_params(model, jax.random.key(0), 32)


def test_after_twenty_frozen_steps_the_encoder_is_bit_identical_and_the_decoder_is_not(network):
    config, model, (params, batch_stats) = network
    (phase,) = phases.plan(transfer("frozen"), 3, 20)
    tx, step = steps.compiled_phase(model, config.train, PRESETS["none"], phase, 20, 0)
    # A negative zero, too, must come out as it went in.
    params["encoder"]["stage1"]["conv1"]["bias"] = params["encoder"]["stage1"]["conv1"]["bias"].at[0].set(-0.0)
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), (params, batch_stats))
    state = steps.begin(tx, jax.tree.map(jax.numpy.copy, params), jax.tree.map(jax.numpy.copy, batch_stats))
    for seed in range(20):
        state, metrics = step(state, batch_of(seed), jax.random.key(0))
    assert step._cache_size() == 1
    after = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    for old, new in zip(before, after, strict=True):
        for group in old:
            same = [
                a.tobytes() == b.tobytes() for a, b in zip(*map(jax.tree.leaves, (old[group], new[group])), strict=True)
            ]
            assert all(same) if group == "encoder" else not any(same), group
    groups = phases.groups(3)
    digests = [phase_log.fingerprint(steps.TrainState(0, *trees, ()), groups) for trees in (before, after)]
    assert {g for g in groups if digests[0][g] == digests[1][g]} == phase.frozen
    assert phase_log.findings(1, phase, *digests) == []
    assert float(metrics["gradient_norm"]) > 0


def test_a_thawed_encoder_moves_with_its_statistics(network):
    config, model, (params, batch_stats) = network
    (phase,) = phases.plan(transfer("full"), 3, 4)
    tx, step = steps.compiled_phase(model, config.train, PRESETS["none"], phase, 4, 0)
    state = steps.begin(tx, *(jax.tree.map(jax.numpy.copy, tree) for tree in (params, batch_stats)))
    for seed in range(2):
        state, _ = step(state, batch_of(seed), jax.random.key(0))
    digests = [
        phase_log.fingerprint(steps.TrainState(0, *t, ()), phases.groups(3))
        for t in ((params, batch_stats), (state.params, state.batch_stats))
    ]
    assert all(digests[0][g] != digests[1][g] for g in phases.groups(3))


def test_findings_name_what_moved_and_what_did_not():
    phase = phases.Phase(0, 10, (("encoder/stage1", 0.0), ("decoder", 1.0), ("head", 1.0)))
    old = {"encoder/stage1": "a", "decoder": "b", "head": "c"}
    found = phase_log.findings(1, phase, old, {"encoder/stage1": "x", "decoder": "b", "head": "y"})
    assert ["encoder/stage1 changed, though frozen" in found[0].seen, "decoder did not change" in found[1].seen] == [
        True,
        True,
    ]


@pytest.mark.parametrize("clip", ["0", "1"])
def test_a_frozen_encoder_saves_a_quarter_of_the_flops(clip, monkeypatch):
    # XLA counts the body of a loop once, and a CPU's weight gradient is a loop over the images of the batch.
    monkeypatch.setattr(convolution, "_gradients_by_image", convolution._gradients_of_xla)
    overrides = {"data.size": "64", "model.width": "16", "model.levels": "5", "model.norm": "encoder"}
    _, config = load.load("configs/quickstart.py", overrides | {"train.clip_norm": clip, "train.optimizer": "adamw"})
    model = registry.build_model(config.model, HEART)
    params, batch_stats = steps.init_params(model, jax.random.key(0), 64)
    flops = {}
    for schedule in ("full", "frozen"):
        (phase,) = phases.plan(transfer(schedule), 5, 100)
        tx, step = steps.compiled_phase(model, config.train, PRESETS["none"], phase, 100, 0)
        state = jax.eval_shape(lambda p, b, tx=tx: steps.begin(tx, p, b), params, batch_stats)
        batch = Batch(
            image=jax.ShapeDtypeStruct((4, 64, 64, 1), np.int16),
            window=jax.ShapeDtypeStruct((4, 3, 2), np.float32),
            label=jax.ShapeDtypeStruct((4, 64, 64), np.uint8),
            merge=jax.ShapeDtypeStruct((4, 9), np.int32),
            mask=jax.ShapeDtypeStruct((4,), np.float32),
        )
        flops[schedule] = step.lower(state, batch, jax.random.key(0)).compile().cost_analysis()["flops"]
    assert flops["frozen"] / flops["full"] <= 0.77
