"""Whether several training steps in one call (`lax.scan`) are faster than a call for each, of a short step.

python benchmarks/steps_per_call.py [--config=configs/quickstart.py] [--size=80] [--batch=8] [--calls=1,4,8]

The step is the run's own, which gathers its batch from random slices on the device. The ways take turns, `--steps`
steps a round, none of which waits for the one before. The table has the time of a step, and its ratio to a call a step
within the same round: medians over the rounds. Below 1 several steps a call are faster.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import load
from heartseg_jax.data.examples import Slices
from heartseg_jax.data.indexed import Indexed
from heartseg_jax.models.registry import build_model
from heartseg_jax.native.library import turn_on
from heartseg_jax.preprocess.augment_settings import PRESETS
from heartseg_jax.preprocess.contract import input_spec
from heartseg_jax.training import losses, phases, steps

SLICES = 256


def random_examples(config: Any, count: int) -> Indexed:
    """Return the order of `count` steps over random slices of the config's size."""
    rng, spec = np.random.default_rng(0), input_spec(config.data, "HU")
    size, classes = config.data.size, LABEL_SETS[config.data.task].num_classes
    slices = Slices(
        rng.integers(-1000, 1000, (SLICES, size, size), np.int16),
        np.tile(np.array([-200, 600], np.float32), (SLICES, len(spec.channels), 1)),
        rng.integers(0, classes, (SLICES, size, size), np.uint8),
        np.tile(np.arange(classes, dtype=np.int32), (SLICES, 1)),
    )
    planes = rng.integers(0, SLICES, (SLICES, len(spec.offsets)), np.int32)
    numbers = rng.integers(0, SLICES, (count, config.data.batch_size), np.int32)
    return jax.device_put(Indexed(slices, planes, numbers, np.ones(numbers.shape, np.float32), np.int32(0)))


def main(argv: list[str]) -> None:
    """Compile each way, let them take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--size", default="80")
    parser.add_argument("--batch", default="8")
    parser.add_argument("--calls", default="1,4,8")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(argv)
    turn_on()  # as in a run
    _, config = load.load(asked.config, {"data.size": asked.size, "data.batch_size": asked.batch})
    model = build_model(config.model, LABEL_SETS[config.data.task])
    phase = phases.plan(config.transfer, config.model.levels, 10_000)[0]
    tx = phases.build_optimizer(config.train, steps.learning_rate_schedule(config.train, 10_000), phase)
    step = steps.make_train_step(model, tx, losses.loss_of(config.train), augmentation=PRESETS[config.data.augment])
    key = jax.random.key(0)

    def of_several(count: int) -> Any:
        def call(state: Any, given: Indexed) -> Any:
            return jax.lax.scan(lambda state, _: step(state, given, key), state, length=count)

        return jax.jit(call, donate_argnums=0)

    channels = len(input_spec(config.data, "HU").channels)
    counts = [int(text) for text in asked.calls.split(",")]
    total = 1 + max(counts) + asked.steps * (asked.rounds + 1)
    given = random_examples(config, total)
    ways = {1: jax.jit(lambda state, given: step(state, given, key), donate_argnums=0)}
    ways |= {count: of_several(count) for count in counts if count > 1}
    states = {count: steps.begin(tx, *steps.init_params(model, key, config.data.size, channels)) for count in ways}
    spent: dict[int, list[float]] = {count: [] for count in ways}
    for number in range(asked.rounds + 1):
        for count, call in ways.items():
            began = time.perf_counter()
            for _ in range(asked.steps // count):
                states[count], _ = call(states[count], given)
            jax.block_until_ready(states[count])
            if number:  # in the first round it is compiled
                spent[count].append(1e3 * (time.perf_counter() - began) / (asked.steps // count * count))
    print("| steps a call | ms a step | ratio to a call a step |\n|---|---|---|")
    for count, times in spent.items():
        ratio = statistics.median(own / one for own, one in zip(times, spent[1], strict=True))
        print(f"| {count} | {statistics.median(times):.2f} | {ratio:.3f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
