"""A look at the watched slices during a run: the mean loss, and the counts that the metrics are made of."""

from __future__ import annotations

import jax
import numpy as np

from heartseg_jax.data.examples import in_order
from heartseg_jax.training import devices, steps
from heartseg_jax.training.run import Run


def evaluate(run: Run, state: steps.TrainState) -> tuple[float, dict[int, np.ndarray]]:
    """Return the mean loss and each patient's confusion `[C, C]` on the watched slices, in inference mode."""
    examples = run.watched
    eval_step = steps.compiled_eval(run.model, run.config.train)
    results = [
        (real, eval_step(state, devices.to_devices(run.mesh, batch)))
        for real, batch in in_order(examples, run.config.data.batch_size)
    ]
    loss = 0.0
    confusions: dict[int, np.ndarray] = {}
    for real, result in results:
        found = jax.device_get(result)
        loss += float(found["loss"]) * len(real) / len(examples)
        for number, counts in zip(real, np.asarray(found["confusion"], np.int64), strict=False):
            patient = int(examples.patient[number])
            confusions[patient] = confusions.get(patient, 0) + counts
    return loss, confusions
