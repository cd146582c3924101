"""Checkpoints read without Orbax: the same weights, without the optimizer's arrays and without JAX."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.training.checkpoints import Checkpoints
from heartseg_jax.training.saved import Reader
from heartseg_jax.training.steps import TrainState

ROOT = Path(__file__).resolve().parents[2]


def saved(path, step=7, **parts):
    kernel = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])
    state = TrainState(
        jnp.int32(step),
        {"head": {"kernel": kernel, "bias": jnp.zeros(3)}},
        {"norm": {"mean": jnp.array([0.25])}},
        ({"mu": {"head": {"kernel": 9 * kernel}}}, ()),
    )
    checkpoints = Checkpoints(path, keep=3)
    checkpoints.save(state._replace(**parts), {"next_index": 2}, {"view": 1})
    checkpoints.close()
    return path / str(step) / "state"


def test_weights_come_back_in_the_order_of_their_names_and_the_optimizer_does_not(tmp_path):
    saved(tmp_path)
    found, arrays = Reader(tmp_path).read_weights(7)
    assert (found.step, found.data, found.contract) == (7, {"next_index": 2}, {"view": 1})
    assert {part: list(arrays[part]) for part in arrays} == {"batch_stats": ["norm"], "params": ["head"]}
    head = arrays["params"]["head"]
    assert list(head) == ["bias", "kernel"]
    assert head["kernel"].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]
    assert head["bias"].tolist() == [0.0, 0.0, 0.0]  # an array of zeros is stored too, and is not missing
    assert (head["kernel"].dtype, arrays["batch_stats"]["norm"]["mean"].tolist()) == (np.float32, [0.25])


def test_averages_are_read_instead_of_the_latest_weights(tmp_path):
    saved(tmp_path, ema={"params": {"head": {"kernel": jnp.array([8.0])}}, "batch_stats": {}})
    assert Reader(tmp_path).read_weights(7)[1] == {"ema": {"params": {"head": {"kernel": np.array([8.0])}}}}


def test_only_folders_of_whole_steps_are_steps(tmp_path):
    assert Reader(tmp_path / "none").steps() == []
    for name in ("10", "9", "11.orbax-checkpoint-tmp", "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").touch()
    assert Reader(tmp_path).steps() == [9, 10]


@pytest.mark.parametrize(
    "change",
    [
        lambda listed: listed | {"use_ocdbt": False},
        lambda listed: listed | {"use_zarr3": True},
        lambda listed: listed | {"tree_metadata": {}},
        lambda listed: [],
        lambda listed: {"use_ocdbt": True},
    ],
)
def test_a_list_of_arrays_in_another_form_is_damage(tmp_path, change):
    state = saved(tmp_path)
    (tmp_path / "7" / "sha256.json").unlink()  # as earlier versions wrote it: nothing to compare with
    place = state / "_METADATA"
    place.write_text(json.dumps(change(json.loads(place.read_text()))))
    with pytest.raises(UserError, match="is damaged .its arrays cannot be read"):
        Reader(tmp_path).read_weights(7)


def test_a_listed_array_that_is_missing_is_damage_and_not_zeros(tmp_path):
    state = saved(tmp_path)
    (tmp_path / "7" / "sha256.json").unlink()
    place = state / "_METADATA"
    listed = json.loads(place.read_text())
    name, entry = next((k, v) for k, v in listed["tree_metadata"].items() if "kernel" in k and "params" in k)
    entry["key_metadata"][-1]["key"] = "other"
    listed["tree_metadata"] = {name: entry}
    place.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="its arrays cannot be read: "):
        Reader(tmp_path).read_weights(7)


def test_neither_orbax_nor_jax_is_imported(tmp_path):
    saved(tmp_path)
    code = "import sys; from pathlib import Path; from heartseg_jax.training.saved import Reader; "
    code += f"print(Reader(Path({str(tmp_path)!r})).read_weights(7)[1]['params']['head']['kernel'].sum(), "
    code += "sorted({'jax', 'orbax', 'flax'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "21.5 []"
