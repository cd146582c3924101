"""The laboratory's estimate: FLOPs by hand."""

import pytest

from heartseg_jax.config import load
from heartseg_jax.lab.arms import arm_config
from heartseg_jax.lab.laboratory import estimate, step_flops
from heartseg_jax.models.cost import Shape, layer_costs


def configured(**changes):
    small = {"data.size": "32", "model.width": "4", "model.levels": "3", "data.batch_size": "2", "train.steps": "100"}
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load.load("configs/lab.py", small | dotted)[1]


def flops(config):
    """FLOPs per layer of one image."""
    model = config.model
    return {c.path: c.flops for c in layer_costs(32, 32, Shape(3, model.width, model.levels, 9, model.norm))}


def test_a_step_costs_its_forward_pass_and_twice_what_the_backward_pass_reaches():
    config = configured()
    full, frozen, staged = (
        step_flops(arm_config(config, arm)) for arm in ("scratch_deep", "brain_frozen", "brain_staged")
    )
    layers = flops(arm_config(config, "scratch_deep"))
    forward = sum(layers.values())
    encoder = {s: sum(f for path, f in layers.items() if path.startswith(f"encoder/stage{s}")) for s in (1, 2, 3)}
    assert full == pytest.approx(2 * 3 * forward)
    assert frozen == pytest.approx(2 * (forward + 2 * (forward - sum(encoder.values()))))
    # Four phases of 25 steps: nothing of the encoder, then stage 3, 2 and 1 as well.
    reached = [0, encoder[3], encoder[3] + encoder[2], sum(encoder.values())]
    expected = [2 * (forward + 2 * (forward - sum(encoder.values()) + more)) for more in reached]
    assert staged == pytest.approx(sum(expected) / 4)


def test_a_step_costs_what_its_input_channels_cost():
    one, three = (step_flops(configured(data__channels=channels)) for channels in ("0", "repeat"))
    # Two channels less in the first convolution: 9 weights for each of 4 filters, three passes of two images.
    assert three - one == pytest.approx(2 * 3 * 32 * 32 * 2 * 9 * 2 * 4)


def test_the_estimate_counts_runs_rates_and_steps(monkeypatch):
    monkeypatch.setattr("heartseg_jax.lab.laboratory.network_flops_per_second", lambda *_, native: 1e9)
    config = configured()
    step_s, once = estimate(config, {"scratch_deep": 3}, workers=1)
    assert step_s["scratch_deep"] == pytest.approx(step_flops(arm_config(config, "scratch_deep")) / 1e9)
    assert once == pytest.approx(3 * 100 * step_s["scratch_deep"] + 3 * 3 + 15)
    _, tried = estimate(configured(lab__learning_rates="1e-3,3e-3"), {"scratch_deep": 3}, workers=1)
    assert tried - once == pytest.approx(2 * 3 * 100 * step_s["scratch_deep"])
