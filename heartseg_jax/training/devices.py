"""The devices that a run computes on: found, shared out, and whether a step fits their memory."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from heartseg_jax import distributed
from heartseg_jax.allocator import give_back
from heartseg_jax.errors import UserError
from heartseg_jax.progress import duration, say


def describe() -> str:
    """Return platform, number and kind of the devices, such as 'gpu: 2 x NVIDIA H100', of all processes."""
    devices = jax.devices()
    kinds = Counter(device.device_kind for device in devices)
    processes = f" in {distributed.count()} processes" if distributed.count() > 1 else ""
    return f"{devices[0].platform}: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}{processes}"


def data_mesh(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh over `devices`, of all processes where None are given, the batch split among them.

    Raises:
      UserError: the batch cannot be split evenly.
    """
    devices = jax.devices() if devices is None else devices
    if batch_size % len(devices):
        raise UserError(f"data.batch_size={batch_size} must be a multiple of the {len(devices)} devices")
    return jax.make_mesh((len(devices),), ("batch",), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Return the rows of a global batch that this process's devices hold, rising: what it loads, and only that."""
    places = _split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[place] for place in places if place is not None]))


def to_devices(mesh: Mesh, batch: Any) -> Any:
    """Send a host batch to the devices, split along its first axis; returns before the copy has ended.

    Of several processes each gives its `own_rows`.
    """
    if distributed.count() == 1:
        return jax.device_put(batch, _split(mesh))
    with jax.transfer_guard_host_to_device("allow"):  # it is explicit, but JAX does not take it for that
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(_split(mesh), leaf), batch)


def to_host(mesh: Mesh, tree: Any) -> Any:
    """Return arrays of which each device may hold a part as whole numpy arrays, in every process."""
    return jax.device_get(tree if distributed.count() == 1 else _gather(mesh)(tree))


def local(tree: Any) -> Any:
    """Return arrays that every device holds whole as this process's own, to compute with without the others."""
    return tree if distributed.count() == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def copied(tree: Any) -> Any:
    """Return a copy of arrays that the next step may overwrite, as a checkpoint is written from it.

    It is on the host; of several processes on the devices, and each process writes a part of it.
    """
    if distributed.count() > 1:
        return jax.jit(lambda arrays: jax.tree.map(jnp.copy, arrays))(tree)
    # Copied though it is on the host: on a CPU the arrays may share the devices' memory.
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), jax.device_get(tree))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Send a whole tree, the same in every process, to every device."""
    whole = NamedSharding(mesh, PartitionSpec())
    if distributed.count() == 1:
        return jax.device_put(tree, whole)

    def send(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(send(jax.random.key_data(leaf)))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf  # made by a program over all devices
        host = np.asarray(jax.device_get(leaf))
        return jax.make_array_from_process_local_data(whole, host, host.shape)

    return jax.tree.map(send, tree)


def _split(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("batch"))


@functools.lru_cache(maxsize=4)
def _gather(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def compile_step(step: Any, state: Any, given: Any, key: Any, *, again: bool = False) -> None:
    """Compile a jitted step for these arguments, which are left as they are; calling it then compiles nothing.

    Of the state and of what the step is given, shapes are enough.

    Says how long it took, and whether the program came from the compilation cache. `again`: it has been compiled for
    such arguments already, of which nothing is said.

    Raises:
      UserError: the program needs more memory than is available.
    """
    from heartseg_jax.compilation_cache import requests

    if not again:
        say("compiling the training step (usually 5 to 60 s)")
    began = time.monotonic()
    with requests() as asked:
        compiled = step.lower(state, given, key).compile()
    give_back()
    if not again or asked.made:
        source = "found in the compilation cache" if asked.all_found else "compiled"
        say(f"the training step was {source} in {duration(time.monotonic() - began)}")
    planned = compiled.memory_analysis()
    if planned is not None:
        # The state's buffers are used again for what comes out; arguments are on the device, unless only their shapes
        # are given: then they will be.
        to_come = sum(
            leaf.size * leaf.dtype.itemsize
            for leaf in jax.tree.leaves((state, given))
            if isinstance(leaf, jax.ShapeDtypeStruct)
        )
        new = planned.temp_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
        check_memory(new + to_come)


def check_memory(needed_bytes: float) -> None:
    """Raise a UserError where a training step needs more than the memory that is known to be available."""
    free = available_bytes()
    if free is not None and needed_bytes > free:
        raise UserError(
            f"a training step needs {needed_bytes / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            "available; lower --config.data.batch_size, --config.data.size or --config.model.width"
        )


def available_bytes() -> int | None:
    """Return the free memory of the device with least, of the machine where it computes; None where unknown."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return host_available_bytes()
    known = [stats for device in devices if (stats := device.memory_stats()) and "bytes_limit" in stats]
    return min((stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in known), default=None)


def host_available_bytes(root: Path = Path("/")) -> int | None:
    """Return what Linux would give this process: available memory and swap, within its control group's limit."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    try:
        group = root / "sys/fs/cgroup"
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        return free  # no control group, or one without a limit ('max')
