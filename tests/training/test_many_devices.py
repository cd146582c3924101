"""One program over several devices: the numbers of one. The devices are simulated, in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.training import devices

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found():
    run = subprocess.run(
        [sys.executable, "-m", "tests.training.devices_worker"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_eight_devices_have_the_loss_of_one_over_twenty_steps_of_sgd(found):
    assert found["devices"] == 8
    assert len(found["one"]) == 20
    np.testing.assert_allclose(found["eight"], found["one"], rtol=0, atol=1e-5)
    assert found["one"][-1] < 0.9 * found["one"][0]  # something was learned


def test_batch_norm_is_of_the_whole_batch_and_the_weights_are_the_same(found):
    assert found["statistics"] < 1e-5
    assert found["weights"] < 1e-5


def test_a_batch_that_cannot_be_split_is_refused_by_its_field():
    with pytest.raises(UserError, match=r"data\.batch_size=5.*multiple of the 2"):
        devices.data_mesh(5, [jax.devices()[0]] * 2)


def test_a_process_alone_holds_every_row():
    assert devices.own_rows(devices.data_mesh(4), 4).tolist() == [0, 1, 2, 3]
