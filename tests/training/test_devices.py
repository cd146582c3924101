"""The devices: described, and a step that does not fit their memory is refused."""

import jax
import jax.numpy as jnp
import pytest

from heartseg_jax.config import load
from heartseg_jax.errors import UserError
from heartseg_jax.training import devices, run


def test_the_devices_are_described_by_platform_number_and_kind():
    assert devices.describe() == f"cpu: {len(jax.devices())} x cpu"


def test_a_step_that_does_not_fit_is_refused_with_the_fields_that_shrink_it(monkeypatch):
    step = jax.jit(lambda state, batch, key: (state + jnp.tile(batch, (1000, 1000)).sum(), batch))
    arguments = (jnp.float32(0), jnp.ones((4, 4)), jnp.float32(1))
    devices.compile_step(step, *arguments)
    monkeypatch.setattr(devices, "available_bytes", lambda: 1)
    with pytest.raises(UserError, match=r"data\.batch_size.*data\.size.*model\.width"):
        devices.compile_step(step, *arguments)


def test_what_compile_step_compiled_is_not_compiled_again():
    traced = []

    def function(state, batch, key):
        traced.append(1)
        return state + batch + key, batch

    step = jax.jit(function)
    devices.compile_step(step, *(jnp.float32(n) for n in range(3)))
    step(*(jnp.float32(n) for n in range(3)))
    assert len(traced) == 1


def test_available_memory_is_the_machines_within_the_control_groups_limit(tmp_path):
    assert devices.host_available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 100 kB\nSwapFree: 20 kB\n")
    assert devices.host_available_bytes(tmp_path) == 120 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("70000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 3000\n")
    assert devices.host_available_bytes(tmp_path) == 120 * 1024
    (group / "memory.max").write_text("100000\n")
    assert devices.host_available_bytes(tmp_path) == 100000 - 70000 + 3000


def test_the_first_look_at_memory_counts_the_config_s_own_channels():
    def needed(channels):
        config = load.load("configs/quickstart.py", {"data.channels": channels, "data.size": "64"})[1]
        return run.step_memory_bytes(config), config.data.batch_size // len(jax.devices()), config.model.width

    (one, batch, width), (three, _, _) = needed("0"), needed("-1,0,1")
    # Two more channels: their pixels, and 9 weights per filter with a gradient and two moments.
    assert three - one == 4 * (batch * 64 * 64 * 2 + 4 * 9 * width * 2)
