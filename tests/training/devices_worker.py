"""Twenty steps of SGD on one and on eight simulated devices, in one process: `python -m tests.training.devices_worker`.

Prints JSON: the losses, BatchNorm statistics and largest difference of the weights of both.
"""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
import optax

from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.models import registry
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import devices, losses, steps
from tests.tiny import OVERRIDES, tile_images, tile_labels

STEPS, BATCH = 20, 16


def batch_of(seed: int) -> Batch:
    """A batch of tiles: the examples differ in brightness, so that BatchNorm of a part is not that of the whole."""
    labels = np.concatenate([tile_labels(shift % 3)[:1] for shift in range(BATCH)])
    images = tile_images(labels, seed) + 40 * np.arange(BATCH, dtype=np.int16)[:, None, None]
    return Batch(
        image=images[..., None],
        window=np.tile(np.array([-200, 600], np.float32), (BATCH, 3, 1)),
        label=labels,
        merge=np.tile(np.arange(9, dtype=np.int32), (BATCH, 1)),
        mask=(np.arange(BATCH) < BATCH - 3).astype(np.float32),  # the last device has only what is filled up
    )


def trained(step, state, count: int):
    """The losses of the steps on `count` devices, and the last state."""
    mesh = devices.data_mesh(BATCH, jax.devices()[:count])
    state, key = devices.replicate(mesh, (state, jax.random.key(7)))
    found = []
    for number in range(STEPS):
        state, metrics = step(state, devices.to_devices(mesh, batch_of(number)), key)
        found.append(float(metrics["loss"]))
    assert all(len(leaf.devices()) == count and leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    return found, jax.device_get(state)


def main() -> None:
    overrides = OVERRIDES | {"model.norm": "batch", "model.levels": "2", "model.dropout": "0.2"}
    config = load.load("configs/quickstart.py", overrides)[1]
    model = registry.build_model(config.model, HEART)
    tx = optax.sgd(0.05)
    step = jax.jit(
        steps.make_train_step(model, tx, losses.loss_of(config.train), augmentation=PRESETS["default"], size=32)
    )
    start = jax.device_get(steps.begin(tx, *steps.init_params(model, jax.random.key(0), 32)))
    (one, last), (eight, other) = (trained(step, start, count) for count in (1, 8))
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), last, other)
    print(
        json.dumps(
            {
                "devices": len(jax.devices()),
                "one": one,
                "eight": eight,
                "weights": max(jax.tree.leaves(apart.params)),
                "statistics": max(jax.tree.leaves(apart.batch_stats)),
            }
        )
    )


if __name__ == "__main__":
    main()
