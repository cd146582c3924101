"""Checkpoints: what is saved comes back, and what does not fit is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.steps import TrainState


def state(width=3, dtype=jnp.float32, step=4) -> TrainState:
    kernel = jnp.arange(2 * width, dtype=dtype).reshape(2, width)
    return TrainState(
        jnp.int32(step), {"conv": {"kernel": kernel}}, {}, ({"mu": kernel + 1, "count": jnp.int32(step)}, ())
    )


def test_state_position_and_contract_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state(step=step), {"next_index": step}, {"view": {"size": 8}})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2, 3]
    saved = checkpoints.read(3)
    assert (saved.step, saved.data, saved.contract) == (3, {"next_index": 3}, {"view": {"size": 8}})
    restored = checkpoints.restore(3, state(step=0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, state(step=3)))
    arrays = checkpoints.restore_arrays(3)
    assert np.array_equal(arrays["params"]["conv"]["kernel"], state().params["conv"]["kernel"])


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (state(width=5), r"params/conv/kernel: saved \(2, 3\) float32, expected \(2, 5\) float32"),
        (state(dtype=jnp.bfloat16), "params/conv/kernel: saved .* float32, expected .* bfloat16"),
        (state()._replace(batch_stats={"mean": jnp.zeros(2)}), "batch_stats/mean is not in the checkpoint"),
        (state()._replace(params={}), "params/conv/kernel is in the checkpoint alone"),
    ],
)
def test_another_model_is_refused_with_both_sides_named(tmp_path, like, message):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(), {}, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(4, like)


def test_a_damaged_checkpoint_is_named_with_the_mend(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(), {}, {})
    checkpoints.close()
    for file in (tmp_path / "4" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        Checkpoints(tmp_path).restore(4, state())


def test_what_a_kill_left_half_written_is_cleared_away_by_who_trains_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(), {}, {})
    checkpoints.close()
    left = tmp_path / "8.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    assert Checkpoints(tmp_path).steps() == [4]
    assert left.exists()
    assert Checkpoints(tmp_path, keep=1).steps() == [4]
    assert not left.exists()


def test_saving_does_not_share_memory_with_the_next_step(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    grow = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    current = state()
    checkpoints.save(current, {}, {})
    for _ in range(20):
        current = grow(current)
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(4, state())
    assert np.array_equal(restored.params["conv"]["kernel"], state().params["conv"]["kernel"])
