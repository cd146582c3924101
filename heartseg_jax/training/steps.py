"""The training state and the jitted steps. Pure functions of arrays: no files here."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from heartseg_jax.allocator import least_memory
from heartseg_jax.models.registry import apply_model
from heartseg_jax.models.tree import map_within
from heartseg_jax.models.unet import UNet
from heartseg_jax.preprocess.augment_settings import AugmentSettings
from heartseg_jax.preprocess.device import augmented, prepared
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.training import averaging, counts, losses
from heartseg_jax.training.phases import Phase, build_optimizer, learning_rates

Metrics = dict[str, jax.Array]
LossFn = Callable[[jax.Array, Batch], tuple[jax.Array, Metrics]]
"""`(logits, batch) -> (loss, its parts)`; the batch is what the network received, its labels augmented."""
TrainStep = Any
"""`(state, given, root_key) -> (state, metrics)`; `given` is a `Batch`, or what gathers one: see `batch_of`."""
EvalStep = Any
"""`(state, given) -> metrics`."""


class TrainState(NamedTuple):
    """All that training changes: a pure pytree, saved as it is.

    `ema` is the moving average {'params', 'batch_stats'} of the weights, None where `train.ema_decay` is 0.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any = None

    def arrays(self) -> dict[str, Any]:
        """Return the state as a dict without what it lacks; without an average it is as in earlier versions."""
        return {name: part for name, part in self._asdict().items() if part is not None}


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


def init_params(model: UNet, key: jax.Array, size: int, channels: int = 3) -> tuple[Any, Any]:
    """Return (params, batch_stats) for images `[B, size, size, channels]`, the weights drawn from `key`."""
    return _initialiser(model, size, channels)(key)


def forget_initialiser(model: UNet, size: int, channels: int) -> None:
    """Let go of the program of `init_params`, which runs once and takes 44 MiB with 31 million parameters."""
    _initialiser(model, size, channels).clear_cache()


@functools.lru_cache(maxsize=16)
def _initialiser(model: UNet, size: int, channels: int) -> Any:
    def init(key: jax.Array) -> tuple[Any, Any]:
        variables = model.init({"params": named_key(key, "params")}, jnp.zeros((1, size, size, channels)), train=False)
        return variables["params"], variables.get("batch_stats", {})

    # It runs once, and a CPU needs about twice as long to optimise its many small random draws as to compile them
    # plainly. The last bit of the weights depends on it, and with it every recorded score.
    plain = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(init, compiler_options=plain if jax.default_backend() == "cpu" else None)


def begin(tx: Any, params: Any, batch_stats: Any, ema_decay: float = 0.0) -> TrainState:
    """Return the state before step 1; `tx.init(params)` is the optimizer's, and `ema_decay` 0 means no average."""
    average = averaging.begin_average(params, batch_stats) if ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params), average)


def named_key(key: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """Return the key of one use of randomness at one step; nothing random is ever stored."""
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), step)


def batch_of(given: Any, step: jax.Array | int) -> Batch:
    """Return the batch of a step: `given` itself, or what its method `at(step)` gathers of slices on the device."""
    if isinstance(given, Batch):
        return given
    # What follows is compiled as for a batch that is given: it must not be fused with the gathering, and round anew.
    batch: Batch = jax.lax.optimization_barrier(given.at(step))
    return batch


def make_train_step(
    model: UNet,
    tx: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    augmentation: AugmentSettings,
    size: int | None = None,
    frozen: Collection[str] = frozenset(),
    ema_decay: float = 0.0,
) -> TrainStep:
    """Return the pure step `(state, given, root_key) -> (state, metrics)`; `given` as for `batch_of`.

    What is `frozen` (names of groups) gets no gradient computed, keeps its BatchNorm statistics, and is handed on as
    the very array that came in. The network sees `size` pixels where stored slices are larger. With `ema_decay` the
    state's average follows the weights (`averaging.follow`).
    """

    def stopped(params: Any) -> Any:
        # Without it the clip's and the log's global norm would bring the frozen groups' backward pass back.
        return map_within(frozen, jax.lax.stop_gradient, params)

    def objective(params: Any, batch_stats: Any, seen: Batch, key: jax.Array) -> Any:
        logits, updates = model.apply(
            {"params": stopped(params), "batch_stats": batch_stats},
            seen.image,
            train=True,
            frozen=frozen,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss, parts = loss_fn(logits, seen)
        metrics = {"loss": loss, **parts, **counts.pixel_shares(logits, seen.label, seen.merge, seen.mask)}
        return loss, (updates.get("batch_stats", {}), metrics)

    def step(state: TrainState, given: Any, root: jax.Array) -> tuple[TrainState, Metrics]:
        batch = batch_of(given, state.step)
        seen = augmented(batch, named_key(root, "augment", state.step), augmentation, size)
        dropout = named_key(root, "dropout", state.step)
        gradients, (batch_stats, metrics) = jax.grad(objective, has_aux=True)(
            state.params, state.batch_stats, seen, dropout
        )
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        # Not even zero is added to what is frozen: -0.0 would become 0.0.
        params = map_within(frozen, lambda old, new: old, state.params, optax.apply_updates(state.params, updates))
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        average = None
        if ema_decay:
            latest = {"params": params, "batch_stats": batch_stats}
            average = averaging.follow(state.ema, state.step, latest, ema_decay, frozen)
        return TrainState(state.step + 1, params, batch_stats, opt_state, average), metrics

    return step


@functools.lru_cache(maxsize=64)
def compiled_phase(
    model: UNet,
    train: Any,
    augmentation: AugmentSettings,
    phase: Phase,
    total_steps: int,
    rewarm_steps: int,
    *,
    size: int | None = None,
    replicas: bool = False,
) -> tuple[optax.GradientTransformation, TrainStep]:
    """Return the optimizer and the jitted step of a phase; the step is given its state's buffers to overwrite.

    They are the same ones for the same phase, so that a process that trains it again (a control, another fold) does
    not compile it again. With `replicas` the step is mapped over a first axis of all that it takes.
    """
    schedule = learning_rates(learning_rate_schedule(train, total_steps), phase, rewarm_steps)
    tx = build_optimizer(train, schedule, phase)
    step = make_train_step(
        model,
        tx,
        losses.loss_of(train),
        augmentation=augmentation,
        size=size,
        frozen=phase.frozen,
        ema_decay=train.ema_decay,
    )
    step = jax.vmap(step) if replicas else step
    return tx, jax.jit(step, donate_argnums=0, compiler_options=least_memory())


@functools.lru_cache(maxsize=16)
def compiled_eval(model: UNet, train: Any) -> EvalStep:
    """Return the jitted evaluation of a batch with the loss of a config's `train` group, without augmentation.

    It takes a batch, or what gathers one as that of step 0. Returns `loss` and, by example, `confusion [B, C, C]` of
    the averaged weights where the state has them.
    """
    loss_fn = losses.loss_of(train)

    def step(state: TrainState, given: Any) -> Metrics:
        seen = prepared(batch_of(given, 0))
        logits = apply_model(model, *averaging.weights_of(state.arrays()), seen.image)
        loss, _ = loss_fn(logits, seen)
        one = lambda *example: counts.confusion_counts(*(part[None] for part in example))  # noqa: E731
        confusion = jax.vmap(one)(logits, seen.label, seen.merge, seen.mask)
        return {"loss": loss, "confusion": confusion}

    return jax.jit(step, compiler_options=least_memory())
