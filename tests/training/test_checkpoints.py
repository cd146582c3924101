"""Checkpoints: what is saved comes back, and what does not fit is refused by name."""

import contextlib

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
        (state()._replace(params={}), "params/conv/kernel is only in the checkpoint"),
    ],
)
def test_another_model_is_refused_with_both_sides_named(tmp_path, like, message):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(), {}, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(4, like)


def test_a_damaged_checkpoint_is_named_with_the_fix(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state(), {}, {})
    checkpoints.close()
    for file in (tmp_path / "4" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        Checkpoints(tmp_path).restore(4, state())


def test_what_a_kill_left_half_written_is_removed_only_by_the_process_that_trains(tmp_path):
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


def saved(path, steps=(1, 2)):
    checkpoints = Checkpoints(path, keep=3)
    for step in steps:
        checkpoints.save(state(width=40, step=step), {"next_index": step}, {"view": {"low": -200.0}})
    checkpoints.close()
    return path


def read_all(path, step):
    checkpoints = Checkpoints(path)
    try:
        return checkpoints.read(step), checkpoints.restore(step, state(width=40)), checkpoints.restore_arrays(step)
    finally:
        checkpoints.close()


def items(folder):
    return [
        p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "commit_success.txt" and p.parent != folder
    ]


def test_a_flipped_byte_anywhere_in_the_arrays_is_noticed_and_the_newest_good_step_named(tmp_path):
    saved(tmp_path)
    largest = max(items(tmp_path / "2" / "state"), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    for position in np.linspace(0, len(content) - 1, 20).astype(int):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        largest.write_bytes(bytes(damaged))
        for call in ("read", "restore_arrays"):
            with pytest.raises(UserError, match=f"{tmp_path / '2'} is damaged .* step 1"):
                getattr(Checkpoints(tmp_path), call)(2)
    with pytest.raises(UserError, match="step 1"):
        Checkpoints(tmp_path).restore(2, state(width=40))
    largest.write_bytes(content)
    assert read_all(tmp_path, 2)[0].data == {"next_index": 2}


def test_a_flipped_byte_in_every_file_of_a_checkpoint_is_noticed(tmp_path):
    saved(tmp_path, steps=(1,))
    found = items(tmp_path / "1")
    assert {path.relative_to(tmp_path / "1").parts[0] for path in found} == {"state", "data", "contract"}
    for path in found:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match="no other checkpoint"):
            Checkpoints(tmp_path).restore_arrays(1)
        path.write_bytes(content)
    Checkpoints(tmp_path).restore_arrays(1)


def test_the_newest_good_step_is_one_that_is_whole_itself(tmp_path):
    saved(tmp_path, steps=(1, 2, 3))
    for step in (2, 3):
        (tmp_path / f"{step}" / "contract" / "metadata").write_text("{}")
    with pytest.raises(UserError, match="to use step 1, the newest"):
        Checkpoints(tmp_path).read(3)


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_accepted(tmp_path):
    saved(tmp_path, steps=(1,))
    (tmp_path / "1" / "sha256.json").unlink()
    _, restored, _ = read_all(tmp_path, 1)
    assert np.array_equal(restored.params["conv"]["kernel"], state(width=40).params["conv"]["kernel"])


@pytest.mark.parametrize("item", ["data", "contract"])
@pytest.mark.parametrize("content", ["[1]", "null", '"x"', "3", "{", ""])
def test_json_of_another_shape_beside_the_state_is_refused(tmp_path, item, content):
    saved(tmp_path, steps=(1,))
    (tmp_path / "1" / "sha256.json").unlink()
    (tmp_path / "1" / item / "metadata").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        Checkpoints(tmp_path).read(1)


@pytest.mark.parametrize("content", ["[]", "{", '{"state/_METADATA": 3}'])
def test_damaged_digests_are_no_proof(tmp_path, content):
    saved(tmp_path, steps=(1,))
    (tmp_path / "1" / "sha256.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        Checkpoints(tmp_path).restore_arrays(1)


def test_the_best_is_kept_beside_the_steps_and_replaced_only_by_a_better_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    dice = {1: 0.5, 2: None, 3: 0.4, 4: 0.8, 5: float("nan"), 6: 0.8, 7: 0.0}
    kept = [step for step, value in dice.items() if checkpoints.save_best(state(step=step), {}, {"a": 1}, value)]
    assert kept == [1, 4]
    checkpoints.save(state(step=7), {}, {})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [7]
    assert (checkpoints.choose(), checkpoints.choose("best")) == (7, "best")
    best = checkpoints.read("best")
    assert (best.step, best.data["validation_dice"], best.contract) == (4, 0.8, {"a": 1})
    assert int(checkpoints.restore("best", state()).step) == 4
    assert int(checkpoints.restore_arrays("best")["step"]) == 4
    assert checkpoints.folder("best") == tmp_path / "best" / "4"
    # A process that goes on with the run compares with what the one before kept; a Dice of 0 is a Dice.
    again = Checkpoints(tmp_path, keep=1)
    assert not again.save_best(state(step=9), {}, {}, 0.79)
    assert again.save_best(state(step=9), {}, {}, 0.81)
    again.close()
    assert Checkpoints(tmp_path).read("best").step == 9


def test_a_dice_of_zero_is_kept_as_the_best_so_far(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert checkpoints.save_best(state(step=1), {}, {}, 0.0)
    checkpoints.close()
    assert Checkpoints(tmp_path).read("best").data["validation_dice"] == 0.0


def test_without_a_best_that_is_said_and_a_damaged_one_names_a_good_step(tmp_path):
    saved(tmp_path)
    with pytest.raises(UserError, match="no best checkpoint"):
        Checkpoints(tmp_path).choose("best")
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save_best(state(step=2), {}, {}, 0.5)
    checkpoints.close()
    (tmp_path / "best" / "2" / "data" / "metadata").write_text("{ }")
    with pytest.raises(UserError, match=r"best/2 is damaged .* step 2"):
        Checkpoints(tmp_path).read("best")


def test_a_full_disk_is_one_clear_error_and_the_older_checkpoint_stays(tmp_path, small_disk, capfd):
    saved(small_disk / "c", steps=(1,))
    big = state(step=2)._replace(params={"k": jnp.asarray(np.random.default_rng(0).normal(size=90_000))})
    checkpoints = Checkpoints(small_disk / "c", keep=2)
    with pytest.raises(UserError, match="disk is full"), contextlib.closing(checkpoints):
        checkpoints.save(big, {}, {})
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(p.name for p in (small_disk / "c").iterdir()) == ["1"]
    assert read_all(small_disk / "c", 1)[0].step == 1
