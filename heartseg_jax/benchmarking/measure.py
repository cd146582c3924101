"""A cell measured in this process: the run's own step or predictor, compiled twice, then timed. No files are written.

A process measures one cell: peaks of memory cannot be taken back, and what is compiled may not be there already.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from heartseg_jax.allocator import TUNABLE, VARIABLE
from heartseg_jax.benchmarking.cells import RUN, Cell
from heartseg_jax.benchmarking.rows import DOES_NOT_FIT, MEASURED, Row, row_of
from heartseg_jax.benchmarking.usage import clear_peak, others_share, peak_bytes, usage
from heartseg_jax.benchmarking.weights import initial_state, random_weights
from heartseg_jax.compilation_cache import requests
from heartseg_jax.data.examples import in_order, steps_per_epoch
from heartseg_jax.data.run_dataset import dataset_for
from heartseg_jax.inference.predictor import compile_predictor, make_predictor
from heartseg_jax.machine import out_of_memory
from heartseg_jax.models import cost, kernels
from heartseg_jax.models.speed import matmul_flops_per_second
from heartseg_jax.training import devices, residence
from heartseg_jax.training.feed import open_feed
from heartseg_jax.training.run import Run, cost_shape, run_of, step_memory_bytes
from heartseg_jax.workdir import Workdir

WARM_UP_STEPS = 2
ROUNDS = 3
"""Steps with and without the run's input are timed in turn, in so many stretches each."""
MOST_LOADED = 64
"""Batches that the input gives before it is timed: a streamed one is timed as after a run's first epoch."""


def measure(cell: Cell, place: Path) -> Row:
    """Return the cell's row; its phantom patients are in the folder `place`."""
    config, size = cell.config, cell.config.data.size
    run = run_of(config, Workdir(place / RUN), dataset_for(config, place / RUN))
    shape = cost_shape(config)
    trains = cell.work == "train"
    known = {
        "config": cell.name,
        "work": cell.work,
        "size": size,
        "batch_size": config.data.batch_size,
        "dtype": config.model.dtype,
        "parameters": sum(layer.parameters for layer in cost.layer_costs(size, size, shape)),
        "frozen": sorted(run.phases[-1].frozen) if trains else [],
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": run.mesh.size if trains else 1,
        "large_pages": f"{TUNABLE}=1" in os.environ.get(VARIABLE, ""),
        "native_kernels": kernels.uses_native(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        found = _train(run) if trains else _infer(run)
    except DoesNotFitError as error:
        return row_of(**known, status=DOES_NOT_FIT, reason=str(error))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return row_of(**known, status=DOES_NOT_FIT, reason="out of memory while it computed")
    step_s = found["step_ms"] / 1e3
    flops = run.step_flops(len(run.phases) - 1) if trains else cost.forward_flops(size, size, shape)
    speed = flops * config.data.batch_size / step_s
    product = matmul_flops_per_second(config.model.dtype, long=True) * known["devices"]
    rates = {
        "images_per_s": config.data.batch_size / step_s,
        "flops_per_image": flops,
        "gflops_per_s": speed / 1e9,
        "matmul_gflops_per_s": product / 1e9,
        "mfu": speed / product,
    }
    return row_of(**known, **found, **rates, status=MEASURED)


class DoesNotFitError(Exception):
    """The program needs more memory than there is."""


def check_fits(needed_bytes: float) -> None:
    """Raise a DoesNotFitError where more memory is needed than is known to be available."""
    free = devices.available_bytes()
    if free is not None and needed_bytes > free:
        raise DoesNotFitError(f"needs {needed_bytes / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are available")


def _train(run: Run) -> dict[str, Any]:
    config, program = run.config, run.program(len(run.phases) - 1)
    check_fits(step_memory_bytes(config))  # the compiler itself would run out of memory
    state = devices.replicate(run.mesh, initial_state(run.model, program, config, len(run.contract.input.channels)))
    resident = residence.of_run(run).resident
    with closing(open_feed(run, resident)) as feed:
        feed.load()
        own = next(feed)
        found = compile_twice(lambda: program.step.lower(state, own, run.key).compile()) | {"resident": resident}

        def take(given: Any) -> Any:
            nonlocal state
            state, metrics = program.step(state, given, run.key)
            return state, metrics

        for _ in range(min(steps_per_epoch(len(run.examples), config.data.batch_size), MOST_LOADED)):
            next(feed)
        inputs = (lambda: own, lambda: next(feed))
        alone, fed = timed(take, inputs, config.benchmark.seconds, config.benchmark.steps, found)
    found["fed_step_ms"] = 1e3 * statistics.median(fed.steps_s)
    found["data_wait_ms"] = 1e3 * statistics.mean(fed.waits_s)
    return found | alone.times()


def _infer(run: Run) -> dict[str, Any]:
    config, size = run.config, run.config.data.size
    needed = cost.forward_memory_bytes(config.data.batch_size, size, size, cost_shape(config), config.model.dtype)
    check_fits(needed)  # the batch itself may be too large to be made
    params, batch_stats = random_weights(run.model, size, len(run.contract.input.channels))
    _, batch = next(in_order(run.watched, config.data.batch_size))
    found = compile_twice(lambda: compile_predictor(run.model, params, batch_stats, batch))
    own = jax.device_put(batch._replace(label=None, merge=None))
    predictor = make_predictor(run.model, [(params, batch_stats)], config.data.batch_size)
    [alone] = timed(predictor.predict, (lambda: own,), config.benchmark.seconds, config.benchmark.steps, found)
    return found | alone.times()


def compile_twice(build: Callable[[], Any]) -> dict[str, Any]:
    """Compile a program with an empty compilation cache, and again with what was kept there; return what it took.

    Raises:
      DoesNotFitError: it needs more memory than there is.
    """
    began = time.perf_counter()
    planned = build().memory_analysis()
    found = {"compile_cold_s": time.perf_counter() - began, "compile_warm_s": None, "planned_bytes": None}
    if planned is not None:
        results = planned.temp_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
        found["planned_bytes"] = planned.argument_size_in_bytes + results
        check_fits(results)  # the arguments are there already
    jax.clear_caches()
    with requests() as asked:
        began = time.perf_counter()
        build()
        warm_s = time.perf_counter() - began
    return found | ({"compile_warm_s": warm_s} if asked.all_found else {})


class Timed(NamedTuple):
    """Steps that were timed, each waited for: seconds per step, those of it spent on the next batch, CPU seconds."""

    steps_s: list[float]
    waits_s: list[float]
    cpu_s: list[float]

    def times(self) -> dict[str, Any]:
        """Return what a row has of them."""
        steps_ms = [1e3 * step_s for step_s in self.steps_s]
        return {
            "step_ms": statistics.median(steps_ms),
            "step_ms_quartiles": [float(np.percentile(steps_ms, share)) for share in (25, 75)],
            "steps": len(steps_ms),
            "cpu_ms": 1e3 * sum(self.cpu_s) / len(steps_ms),
        }


def timed(
    take: Callable[[Any], Any],
    inputs: tuple[Callable[[], Any], ...],
    seconds: float,
    least_steps: int,
    found: dict[str, Any],
) -> list[Timed]:
    """Time the step `take(batch)` with each of `inputs`, which give the next batch, in turn; return what each took.

    Each has `seconds` in all, and `least_steps` at least. Peak memory and other processes' load go into `found`.
    """
    for fetch in inputs:
        _stretch(take, fetch, 0.0, WARM_UP_STEPS)
    cleared, before = clear_peak(), usage()
    results = [Timed([], [], []) for _ in inputs]
    for _ in range(ROUNDS):
        for result, fetch in zip(results, inputs, strict=True):
            own = _stretch(take, fetch, seconds / ROUNDS, math.ceil(least_steps / ROUNDS))
            for whole, part in zip(result, own, strict=True):
                whole.extend(part)
    found |= _memory(cleared) | {"others": others_share(before, usage())}
    return results


def _stretch(take: Callable[[Any], Any], fetch: Callable[[], Any], seconds: float, least_steps: int) -> Timed:
    """Take steps for some seconds; the next batch is fetched while a step runs, as in a run, and then it is awaited."""
    found, batch = Timed([], [], []), jax.block_until_ready(fetch())
    cpu_s, until = time.process_time(), time.perf_counter() + seconds
    while len(found.steps_s) < least_steps or time.perf_counter() < until:
        began = time.perf_counter()
        result = take(batch)
        sent = time.perf_counter()
        batch = fetch()
        found.waits_s.append(time.perf_counter() - sent)
        jax.block_until_ready(result)
        found.steps_s.append(time.perf_counter() - began)
    return found._replace(cpu_s=[time.process_time() - cpu_s])


def _memory(cleared: bool) -> dict[str, Any]:
    """Return the peak of memory of the device with most, of the process where JAX's device is the CPU."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.devices()]
    if max(peaks) and jax.default_backend() != "cpu":
        return {"peak_bytes": max(peaks), "peak_of": "device"}
    return {"peak_bytes": peak_bytes(), "peak_of": "steps" if cleared else "process"}
