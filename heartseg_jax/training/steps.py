"""The training state and the jitted steps. Pure functions of arrays: no files here."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from heartseg_jax.data.augment import AugmentSettings, augment
from heartseg_jax.errors import UserError
from heartseg_jax.models.forward import apply_model, network_input
from heartseg_jax.models.unet import UNet
from heartseg_jax.training import counts, losses

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that training changes: a pure pytree, saved as it is."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState


def learning_rate_schedule(train: Any, total_steps: int) -> optax.Schedule:
    """Return step -> learning rate: a linear warm-up, then a cosine to 1 % of the peak, or constant."""
    warmup = min(train.warmup_steps, max(total_steps // 10, 1)) if train.warmup_steps else 0
    if train.schedule == "constant":
        tail = optax.constant_schedule(train.learning_rate)
    else:
        tail = optax.cosine_decay_schedule(train.learning_rate, max(total_steps - warmup, 1), alpha=0.01)
    if not warmup:
        return tail
    return optax.join_schedules([optax.linear_schedule(0.0, train.learning_rate, warmup), tail], [warmup])


def build_optimizer(train: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return AdamW on the schedule, behind a clip of the global norm where `train.clip_norm` asks for one."""
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = optax.adamw(schedule, weight_decay=train.weight_decay, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizer) if train.clip_norm else optimizer


def init_state(model: UNet, tx: optax.GradientTransformation, key: jax.Array, size: int) -> TrainState:
    """Return the state before step 1, its weights drawn from `key`."""

    def init(key: jax.Array) -> TrainState:
        variables = model.init({"params": named_key(key, "params")}, jnp.zeros((1, size, size, 3)), train=False)
        params = variables["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), tx.init(params))

    # It runs once, and a CPU needs about twice as long to optimise its many small random draws as to compile them
    # plainly. The last bit of the weights depends on it, and with it every recorded score.
    plain = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(init, compiler_options=plain if jax.default_backend() == "cpu" else None)(key)


def named_key(key: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """Return the key of one use of randomness at one step; nothing random is ever stored."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), step)


def prepare_inputs(batch: Batch, key: jax.Array, settings: AugmentSettings) -> tuple[jax.Array, jax.Array]:
    """Return (image, label) of a training batch: windowed, cast and augmented, all on the device."""
    return augment(key, network_input(batch), batch["label"].astype(jnp.int32), settings)


def weighted_loss(train: Any, logits: jax.Array, label: jax.Array, batch: Batch) -> tuple[jax.Array, Metrics]:
    """Return the loss with the weights of a config's `train` group, and its unweighted parts."""
    return losses.segmentation_loss(
        logits,
        label,
        batch["merge"],
        batch["mask"],
        dice_weight=train.dice_weight,
        cross_entropy_weight=train.cross_entropy_weight,
    )


def make_train_step(
    model: UNet, tx: optax.GradientTransformation, train: Any, augmentation: AugmentSettings
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Return the jitted step `(state, batch, root_key) -> (state, metrics)`; the state is donated."""

    def loss_fn(params: Any, batch_stats: Any, image: jax.Array, label: jax.Array, batch: Batch, key: jax.Array) -> Any:
        logits, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss, parts = weighted_loss(train, logits, label, batch)
        metrics = {"loss": loss, **parts, **counts.pixel_shares(logits, label, batch["merge"], batch["mask"])}
        return loss, (updates.get("batch_stats", {}), metrics)

    def step(state: TrainState, batch: Batch, root: jax.Array) -> tuple[TrainState, Metrics]:
        image, label = prepare_inputs(batch, named_key(root, "augment", state.step), augmentation)
        dropout = named_key(root, "dropout", state.step)
        gradients, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.batch_stats, image, label, batch, dropout
        )
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def make_eval_step(model: UNet, train: Any) -> Callable[[TrainState, Batch], Metrics]:
    """Return the jitted look at a batch without augmentation: `loss` and `confusion [B, 9, 9]`, an example each."""

    def step(state: TrainState, batch: Batch) -> Metrics:
        label = batch["label"].astype(jnp.int32)
        logits = apply_model(model, state.params, state.batch_stats, network_input(batch))
        loss, _ = weighted_loss(train, logits, label, batch)
        one = lambda *example: counts.confusion_counts(*(part[None] for part in example))  # noqa: E731
        confusion = jax.vmap(one)(logits, label, batch["merge"], batch["mask"])
        return {"loss": loss, "confusion": confusion}

    return jax.jit(step)


def data_mesh(batch_size: int) -> Mesh:
    """Return a mesh over all devices, the batch shared out among them."""
    devices = jax.devices()
    if batch_size % len(devices):
        raise UserError(f"data.batch_size={batch_size} must be a multiple of the {len(devices)} devices")
    return jax.make_mesh((len(devices),), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> Batch:
    """Send a host batch to the devices, split along its first axis; returns before the copy has ended."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Send a whole tree to every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
