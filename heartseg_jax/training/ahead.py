"""A run's programs, compiled by a thread while its phantom patients are made. Nothing depends on it but time.

The thread opens the run with black images of the same number and size. What it compiles is found again where the run
needs it; what fails here is met again there, and raised.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax

from heartseg_jax import workdir as runs
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.errors import UserError
from heartseg_jax.figures import drawing
from heartseg_jax.inference.predictor import compile_predictor
from heartseg_jax.preprocess.host import Batch
from heartseg_jax.progress import say
from heartseg_jax.training import averaging, devices, steps
from heartseg_jax.training.run import Run, run_of


class Ahead:
    """What the thread has done: `step` is set once the training step is compiled, or cannot be."""

    def __init__(self) -> None:
        self.step = threading.Event()
        self.is_compiled = False


@contextlib.contextmanager
def compiling(config: Any, folder: runs.Workdir, blank: Dataset | None) -> Iterator[Ahead]:
    """Within the block, compile the programs of the run that `blank` is like; nothing where that is None.

    The block ends when the thread has; only Ctrl-C does not wait for it.
    """
    ahead = Ahead()
    if blank is None:
        ahead.step.set()
        yield ahead
        return
    thread = threading.Thread(target=_compile, args=(ahead, config, folder, blank), name="compile", daemon=True)
    thread.start()
    try:
        yield ahead
    except KeyboardInterrupt:
        raise
    except BaseException:
        thread.join()  # the interpreter must not end within XLA
        raise
    thread.join()


def _compile(ahead: Ahead, config: Any, folder: runs.Workdir, blank: Dataset) -> None:
    try:
        run = run_of(config, folder, blank)
        own = next(run.first_batches(1))
        state, batch = _shapes(run, own)
        devices.compile_step(run.program(0).step, state, batch, run.key)
        ahead.is_compiled = True
        ahead.step.set()
        steps.compiled_eval(run.model, config.train).lower(state, batch).compile()
        if config.log.figures:
            drawing.load()
        compile_predictor(run.model, *averaging.weights_of(state.arrays()), own)
    except Exception as error:
        if not isinstance(error, UserError):
            say(f"note: not everything was compiled ahead ({type(error).__name__}: {error})")
    finally:
        ahead.step.set()


def _shapes(run: Run, batch: Batch) -> tuple[steps.TrainState, Any]:
    """Return shapes, types and shardings of the state before the first step, and of a batch."""
    size, channels = run.config.data.size, len(run.contract.input.channels)
    params, batch_stats = steps.init_params(run.model, run.key, size, channels)  # compiled for the run itself too
    program = run.program(0)
    params, batch_stats = devices.replicate(run.mesh, (params, batch_stats))
    state = devices.replicate(run.mesh, steps.begin(program, params, batch_stats, run.config.train.ema_decay))
    given = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)  # noqa: E731
    return jax.tree.map(given, state), jax.tree.map(given, devices.to_devices(run.mesh, batch))
