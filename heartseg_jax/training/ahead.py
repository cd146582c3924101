"""A run's programs, compiled by a thread while its phantom patients are made. Nothing depends on it but time.

The thread opens the run with black images of the same number and size. What it compiles is found again where the run
needs it; what fails here is met again there, and raised.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import jax

from heartseg_jax import workdir as runs
from heartseg_jax.data.dataset.records import Dataset
from heartseg_jax.errors import UserError
from heartseg_jax.figures import drawing
from heartseg_jax.inference.predictor import compile_predictor
from heartseg_jax.progress import say
from heartseg_jax.training import averaging, devices, steps
from heartseg_jax.training.feed import Feed, open_feed
from heartseg_jax.training.residence import Residence, of_run
from heartseg_jax.training.run import Run, run_of


class Ahead:
    """What the thread has done: `step` is set once the training step is compiled, or cannot be.

    `residence` is where the slices are for which it is compiled; None where nothing is.
    """

    def __init__(self) -> None:
        self.step = threading.Event()
        self.residence: Future[Residence | None] = Future()
        self.is_compiled = False


@contextlib.contextmanager
def compiling(config: Any, folder: runs.Workdir, blank: Dataset | None) -> Iterator[Ahead]:
    """Within the block, compile the programs of the run that `blank` is like; nothing where that is None.

    The block ends when the thread has; only Ctrl-C does not wait for it.
    """
    ahead = Ahead()
    if blank is None:
        ahead.step.set()
        ahead.residence.set_result(None)
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
        kept = of_run(run)
        ahead.residence.set_result(kept)
        with contextlib.closing(open_feed(run, kept.resident)) as feed:
            state, given, watched = _shapes(run, feed)
        devices.compile_step(run.program(0).step, state, given, run.key)
        ahead.is_compiled = True
        ahead.step.set()
        steps.compiled_eval(run.model, config.train).lower(state, watched).compile()
        if config.log.figures:
            drawing.load()
        compile_predictor(run.model, *averaging.weights_of(state.arrays()), next(run.first_batches(1)))
    except Exception as error:
        if not isinstance(error, UserError):
            say(f"note: not everything was compiled ahead ({type(error).__name__}: {error})")
    finally:
        ahead.step.set()
        if not ahead.residence.done():
            ahead.residence.set_result(None)


def _shapes(run: Run, feed: Feed) -> tuple[steps.TrainState, Any, Any]:
    """Return shapes, types and shardings of the state before the first step, and of what the feed gives."""
    size, channels = run.config.data.size, len(run.contract.input.channels)
    params, batch_stats = steps.init_params(run.model, run.key, size, channels)  # compiled for the run itself too
    program = run.program(0)
    params, batch_stats = devices.replicate(run.mesh, (params, batch_stats))
    state = devices.replicate(run.mesh, steps.begin(program, params, batch_stats, run.config.train.ema_decay))
    given = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)  # noqa: E731
    return jax.tree.map(given, (state, *feed.shapes()))
